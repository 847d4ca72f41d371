"""Random campaigns: run trainings under faults at random moments, then check the store.

    python tests/support/campaign.py --trials 200 --seed 1

prints a row for each kind of trial, and exits with 1 if a point is lost or duplicated or a status
is false. Ctrl-C ends it early, with the rows of the trials so far. Kinds: `kills` (trainer,
delivery and server, with -9), `network` (30% of the requests are cut, answered by HTML, by half an
answer, twice, late, or dropped after the commit), `disk` (a spool of 160 KB; only where file
systems can be mounted), `artifacts` (uploads refused or cut). With `--program script`, a plain
MLflow script behind `journal+` takes the trainer's place; with `--program plain`, the same script
without the prefix, to see what it loses.
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from mlflow import MlflowClient
from mlflow.entities import Run

from faults import delivery_processes
from orbiter_mlflow.delivery import spool
from orbiter_mlflow.delivery.hosts.drain_loop import open_mlflow
from orbiter_mlflow.delivery.hosts.environment import DELIVERY_DEFAULTS
from orbiter_mlflow.delivery.sync import deliver
from proxy import Fault, Proxy
from servers import running_server

Kind = Literal["kills", "network", "disk", "artifacts"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Program = Literal["trainer", "script", "plain"]

HTML = b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"
DISK = "160k"
WITHIN = 120.0
"""Seconds for a trial's journal to be delivered once the faults are over."""

TRAINER = """
import asyncio, os, random, sys
from pathlib import Path
from orbiter.train import *
from orbiter_mlflow import *

seed, folder, ending = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
rng = random.Random(seed)
accepted = os.open(folder / "accepted", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

class Backend(Trainer):
    def check_agent(self, agent): pass
    def check_dataset(self, train_data, test_data=None): pass
    def check_reward(self, reward_fn=None): pass
    def check_config(self, config=None): pass
    async def train(self):
        self._require_validated()
        self._state = TrainerState.TRAINING
        for step in range(rng.randrange(300, 1500)):
            self.report({"loss": step / 7}, step=step)
            os.write(accepted, b"%d\\n" % step)
            if step % 50 == 0:
                await asyncio.sleep(rng.uniform(0, 0.06))
            if step == 100:
                (folder / "notes.txt").write_text("notes")
                self.log_artifact(folder / "notes.txt")
            if ending == "raise" and step == 250:
                raise RuntimeError("as told")
        os.write(accepted, b"reported\\n")
        self._state = TrainerState.COMPLETED
        return TrainMetrics()
    async def evaluate(self, test_data=None):
        return TrainMetrics(accuracy=0.5)

class Tracked(MLflowTrainerMixin, Backend): pass

trainer = Tracked(mlflow=MLflowSettings(flush_timeout=1, skip_provenance=("git", "packages")))
trainer.check_dataset([[seed, n] for n in range(20)])
trainer.mark_validated()
try:
    asyncio.run(trainer.train())
except TrainerError:
    os.write(accepted, b"failed\\n")
else:
    os.write(accepted, b"completed\\n")
"""

SCRIPT = """
import os, random, sys, time
from pathlib import Path
import mlflow

seed, folder, ending = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
rng = random.Random(seed)
accepted = os.open(folder / "accepted", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

mlflow.start_run()
mlflow.log_params({"lr": 0.1, "seed": seed})
for step in range(rng.randrange(300, 1500)):
    mlflow.log_metric("train/loss", step / 7, step=step)
    os.write(accepted, b"%d\\n" % step)
    if step % 50 == 0:
        time.sleep(rng.uniform(0, 0.06))
    if step == 100:
        mlflow.set_tag("kind", "campaign")
        mlflow.log_text("notes", "notes.txt")
    if ending == "raise" and step == 250:
        os.write(accepted, b"failed\\n")
        raise RuntimeError("as told")
os.write(accepted, b"reported\\n")
mlflow.end_run()
os.write(accepted, b"completed\\n")
"""


@dataclass
class Outcome:
    """The outcome of a trial; `problems` say what is wrong with it."""

    kind: Kind
    seed: int
    points: int = 0
    """Accepted: `report` had returned."""
    lost: int = 0
    doubled: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def status_is_false(self) -> bool:
        return any(problem.startswith("status") for problem in self.problems)


@dataclass
class Site:
    """A server behind a proxy, both of which can be stopped and restarted."""

    store: Path
    folder: Path
    proxy: Proxy = field(init=False)
    server: running_server = field(init=False)

    def __enter__(self) -> "Site":
        shutil.copy(self.store, self.folder / "server.db")
        self.server = running_server(f"sqlite:///{self.folder}/server.db", self.folder)
        self.server.__enter__()
        self.proxy = Proxy(self.server.uri)
        self.proxy.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.proxy.__exit__()
        self.server.__exit__()

    def restart_server(self) -> None:
        self.server.__exit__()
        self.server.__enter__()


def run_trial(
    site: Site, kind: Kind, seed: int, folder: Path, program: Program = "trainer"
) -> Outcome:
    """Run one program under faults, then compare the store with what it had logged."""
    rng = random.Random(f"{kind} {seed}")
    name = f"{program}-{kind}-{seed}"
    client = MlflowClient(site.server.uri)
    where = {"MLFLOW_EXPERIMENT_NAME": name}
    if program != "trainer":  # MLflow's own look-up of a name needs the server
        where = {"MLFLOW_EXPERIMENT_ID": client.create_experiment(name)}
    with _spool(kind, folder) as spool_dir:
        _train(site, kind, rng, folder, spool_dir, where, seed, program)
        site.proxy.heal()
        site.proxy.open()
        problem = _deliver(spool_dir, site.proxy.uri)
        return _judged(site, kind, seed, folder, name, problem)


@contextlib.contextmanager
def _spool(kind: Kind, folder: Path) -> Iterator[Path]:
    path = folder / "spool"
    path.mkdir(mode=0o700)
    if kind != "disk":
        yield path
        return
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=0700", "tmpfs", str(path)], check=True
    )
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def can_mount() -> bool:
    """Whether this process may mount a file system."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
            return False
        subprocess.run(["umount", folder], check=True)
        return True


def _train(
    site: Site,
    kind: Kind,
    rng: random.Random,
    folder: Path,
    spool_dir: Path,
    where: dict[str, str],
    seed: int,
    program: Program,
) -> None:
    script = folder / "train.py"
    script.write_text(TRAINER if program == "trainer" else SCRIPT)
    prefix = "journal+" if program == "script" else ""
    ending = "raise" if rng.random() < 0.15 else "return"
    for fault in _faults(kind, rng):
        with site.proxy.lock:
            site.proxy.faults.append(fault)
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, str(script), str(seed), str(folder), ending],
            env=os.environ
            | {
                **where,
                "MLFLOW_TRACKING_URI": f"{prefix}{site.proxy.uri}",
                "MLFLOW_HTTP_REQUEST_TIMEOUT": "3",
                "ORBITER_MLFLOW_FLUSH_TIMEOUT": "1",
                "ORBITER_MLFLOW_SPOOL_DIR": str(spool_dir),
                "ORBITER_MLFLOW_LINGER": rng.choice(["0", "3"]),
            },
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
    try:
        if kind == "kills":
            _kill_at_random(site, rng, process, folder)
        elif kind == "network" and rng.random() < 0.3:
            _kill_when_training(rng, process, folder)
        process.wait(timeout=180)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        process.wait()


def _faults(kind: Kind, rng: random.Random) -> list[Fault]:
    each = {"rng": rng, "chance": 0.06}
    if kind == "network":
        return [
            Fault("cut", **each),  # type: ignore[arg-type]
            Fault("drop", **each),  # type: ignore[arg-type]
            Fault("answer", status=502, body=HTML, **each),  # type: ignore[arg-type]
            Fault("half", **each),  # type: ignore[arg-type]
            Fault("twice", path="POST", **each),  # type: ignore[arg-type]
            Fault("late", delay=rng.uniform(0.1, 4), **each),  # type: ignore[arg-type]
        ]
    if kind == "artifacts":
        status = rng.choice([400, 403, 404, 413, 500, 503])
        trouble = rng.choice(["answer", "cut", "hang"])
        return [Fault(trouble, path="mlflow-artifacts", status=status, body=HTML)]  # type: ignore[arg-type]
    return []


def _accepted(folder: Path) -> list[str]:
    try:
        return (folder / "accepted").read_text().split("\n")[:-1]
    except FileNotFoundError:
        return []


def _kill_when_training(
    rng: random.Random, process: "subprocess.Popen[bytes]", folder: Path
) -> None:
    count = rng.randrange(1, 600)
    while process.poll() is None and len(_accepted(folder)) < count:
        time.sleep(0.002)
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)


def _kill_at_random(
    site: Site, rng: random.Random, process: "subprocess.Popen[bytes]", folder: Path
) -> None:
    victims = rng.sample(["trainer", "delivery", "server"], k=rng.choice([1, 2]))
    for victim in victims:
        if victim == "trainer":
            _kill_when_training(rng, process, folder)
        elif victim == "server":
            time.sleep(rng.uniform(0.2, 1.5))
            site.restart_server()
        else:
            time.sleep(rng.uniform(0.2, 2.0))
            for pid in delivery_processes(process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _deliver(spool_dir: Path, uri: str) -> str:
    """Let live delivery finish, or deliver by `sync`; return the problem if both fail."""
    deadline = time.monotonic() + WITHIN
    problem = ""
    while time.monotonic() < deadline:
        waiting = spool.journals(spool_dir)
        if not waiting:
            return ""
        for journal in waiting:
            with contextlib.suppress(FileNotFoundError):
                backlog = deliver(journal, open_mlflow, in_force=uri, timeout=10)
                problem = f"{backlog.state}: {backlog.problem}"
                trial_of_an_artifact = backlog.ack.settled and backlog.lanes_waiting
                if trial_of_an_artifact and backlog.state != "delivering":
                    return ""
        time.sleep(0.1)
    return f"not delivered: {problem}"


def _judged(site: Site, kind: Kind, seed: int, folder: Path, name: str, problem: str) -> Outcome:
    outcome = Outcome(kind, seed, problems=[problem] if problem else [])
    said = _accepted(folder)
    steps = [int(line) for line in said if line.isdecimal()]
    outcome.points = len(steps)
    client = MlflowClient(site.server.uri)
    experiment = client.get_experiment_by_name(name)
    runs: list[Run] = [] if experiment is None else client.search_runs([experiment.experiment_id])
    if not runs and not steps:  # killed before it had begun
        return outcome
    if len(runs) != 1:
        outcome.lost = len(steps)
        outcome.problems.append(f"{len(runs)} runs")
        return outcome
    (run,) = runs
    history = client.get_metric_history(run.info.run_id, "train/loss")
    found = Counter((metric.step, metric.value) for metric in history)
    outcome.doubled = sum(count - 1 for count in found.values())
    missing = sum((step, step / 7) not in found for step in steps)
    reported_lost = int(run.data.tags.get("orbiter.lost", "0"))
    if kind != "disk":
        outcome.lost = missing
    elif missing > reported_lost:
        outcome.lost = missing - reported_lost
    if (expected := _expected(said)) is not None and run.info.status != expected:
        outcome.problems.append(f"status {run.info.status}, not {expected}")
    if outcome.lost or outcome.doubled:
        outcome.problems.append(f"{outcome.lost} lost, {outcome.doubled} doubled")
    for tag in ("orbiter.quarantined", "orbiter.damaged", *(["orbiter.lost"] * (kind != "disk"))):
        if tag in run.data.tags:
            outcome.problems.append(f"{tag} = {run.data.tags[tag]}")
    return outcome


def _expected(said: list[str]) -> str | None:
    """The true status; None where the kill may have come before or after the end."""
    if "completed" in said:
        return "FINISHED"
    if "failed" in said:
        return "FAILED"
    return None if "reported" in said or len(said) == 251 else "KILLED"


def run_campaign(
    trials: int,
    seed: int,
    store: Path,
    kinds: tuple[Kind, ...] = KINDS,
    program: Program = "trainer",
) -> Iterator[Outcome]:
    """Run trials of each kind in turn."""
    if not can_mount():
        kinds = tuple(kind for kind in kinds if kind != "disk")
    with tempfile.TemporaryDirectory() as scratch, Site(store, Path(scratch)) as site:
        for number in range(trials):
            folder = Path(scratch) / str(number)
            folder.mkdir()
            yield run_trial(
                site, kinds[number % len(kinds)], seed * 100_000 + number, folder, program
            )
            shutil.rmtree(folder)


def table(outcomes: list[Outcome]) -> str:
    """A table with a row for each kind and one for all."""
    rows = [f"{'':10} {'trials':>7} {'points':>8} {'lost':>5} {'doubled':>8} {'false status':>13}"]
    for name in (*KINDS, "all"):
        those = [one for one in outcomes if name in (one.kind, "all")]
        rows.append(
            f"{name:10} {len(those):>7} {sum(one.points for one in those):>8}"
            f" {sum(one.lost for one in those):>5} {sum(one.doubled for one in those):>8}"
            f" {sum(one.status_is_false for one in those):>13}"
        )
    return "\n".join(rows)


def main() -> None:
    """Run a campaign and print its table."""
    parser = argparse.ArgumentParser(description="Random faults against real trainings.")
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=KINDS, action="append")
    parser.add_argument("--program", choices=get_args(Program), default="trainer")
    given = parser.parse_args()
    os.environ.update(DELIVERY_DEFAULTS)
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "empty.db"
        open_mlflow(f"sqlite:///{store}")
        outcomes = []
        kinds = tuple(given.kind or KINDS)
        with contextlib.suppress(KeyboardInterrupt):
            for outcome in run_campaign(given.trials, given.seed, store, kinds, given.program):
                outcomes.append(outcome)
                if outcome.problems:
                    told = "; ".join(outcome.problems)
                    print(f"{outcome.kind} {outcome.seed}: {told}", flush=True)
    print(table(outcomes))
    sys.exit(any(outcome.problems for outcome in outcomes))


if __name__ == "__main__":
    main()
