"""Faults of processes: killed, forked, crowded, out of disk.

The processes are real and really killed; each test checks the store.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from faults import (
    Scene,
    all_removed,
    arrived,
    delivery_processes,
    expected,
    in_trouble,
    soon,
)
from folders import each_file
from orbiter_mlflow.delivery import spool
from orbiter_mlflow.delivery.ack import read_ack
from orbiter_mlflow.delivery.hosts import base
from orbiter_mlflow.delivery.spool_folder import default_spool
from proxy import BATCH, Proxy
from trainers import Tracked
from waiting import eventually

pytestmark = pytest.mark.server


@pytest.fixture
def scene(server_uri: str, tmp_path: Path) -> Iterator[Scene]:
    with Proxy(server_uri) as proxy, Scene(proxy, server_uri, tmp_path.name) as scene:
        yield scene


@pytest.fixture
def own_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """A delivery process for this test alone, started with its first trainer."""
    monkeypatch.setattr(base, "_hosts", {})
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")


def child() -> int:
    """The delivery process that was started last."""
    started = {}
    for pid in delivery_processes():
        with contextlib.suppress(OSError):  # one of an earlier test has just ended
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            started[pid] = int(fields[19]), pid
    return max(started, key=started.__getitem__)


def gone(pid: int) -> bool:
    """Whether a process has ended; a zombie counts as ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


# -- the delivery process is killed --------------------------------------------------------------


async def test_delivery_is_killed_while_idle_in_a_batch_and_in_the_final_flush(
    scene: Scene, own_child: None
) -> None:
    async def middle(trainer: Tracked) -> None:
        await arrived(trainer)
        kill(child())
        trainer.set_tag("phase", "idle")
        assert trainer._tracked.writer is not None
        await trainer._tracked.writer.flush(30)
        held = scene.proxy.add("hold", path=BATCH, times=1)
        trainer.set_tag("phase", "in a batch")
        await soon(lambda: held.hits)
        kill(child())
        held.release()
        await soon(lambda: held.passed)

    trainer = scene.trainer(middle)
    training = asyncio.create_task(trainer.train())
    await soon(lambda: len(scene.proxy.faults) == 1 and scene.proxy.faults[0].passed)
    held = scene.proxy.add("hold", path="runs/update", times=1)
    await soon(lambda: held.hits)
    kill(child())
    held.release()
    assert (await training).steps == 300
    await arrived(trainer)
    assert scene.assert_whole().data.tags["phase"] == "in a batch"


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: gone(pid))


async def test_a_thread_delivers_if_no_process_can_be_started(
    scene: Scene,
    own_child: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    before = delivery_processes()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    pair = [scene.trainer(), scene.trainer()]
    for trainer in pair:
        await trainer.train()
        await arrived(trainer)
    for run in scene.runs():
        scene.assert_whole(run)
    assert len(scene.runs()) == 2
    assert set(delivery_processes()) <= set(before)
    (warning,) = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert "no delivery process can be started" in warning


async def test_the_thread_survives_an_outage(
    scene: Scene, own_child: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    scene.proxy.refuse()

    async def middle(trainer: Tracked) -> None:
        await in_trouble(trainer)
        scene.proxy.open()
        await arrived(trainer)
        scene.proxy.refuse()
        trainer.set_tag("phase", "two")
        await in_trouble(trainer)
        scene.proxy.open()

    trainer = scene.trainer(middle, delivery="thread")
    await trainer.train()
    await arrived(trainer)
    scene.assert_whole()


# -- what the delivery process has of its parent -------------------------------------------------


async def test_the_delivery_process_holds_nothing_of_its_parents(
    scene: Scene, own_child: None
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as ours:
        ours.set_inheritable(True)
        theirs = f"socket:[{os.fstat(ours.fileno()).st_ino}]"
        mask = os.umask(0)  # the modes must not come from the umask
        try:
            trainer = scene.trainer()
            await trainer.train()
            await arrived(trainer)  # an upload opens files for a moment
        finally:
            os.umask(mask)
        assert_stands_alone(child(), theirs)
    scene.assert_whole()


def assert_stands_alone(pid: int, socket_of_the_parent: str) -> None:
    folder = str(default_spool())
    held = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it is closed just now
            held.append(str(link.readlink()))
    assert socket_of_the_parent not in held
    known = ("pipe:", "/dev/null", "anon_inode:", "socket:", folder)
    assert [name for name in held if not name.startswith(known)] == []
    assert sum(name.endswith(".delivery") for name in held) == 1, "its orders"
    assert sum(name.startswith(folder) for name in held) >= 3, "the log, and the journal's lock"
    assert f"PPid:\t{os.getpid()}\n" not in Path(f"/proc/{pid}/status").read_text()
    assert os.getsid(pid) != os.getsid(0)
    assert os.getpgid(pid) != os.getpgid(0)
    # MLflow resolves relative paths against the working folder, which must be the training's.
    assert Path(f"/proc/{pid}/cwd").readlink() == Path.cwd()
    assert [pid for pid in our_children() if gone(pid)] == []

    assert stat.S_IMODE(Path(folder).stat().st_mode) == 0o700
    files = each_file(Path(folder), Path.stat)
    assert {path.suffix for path in files} >= {".jsonl", ".ack", ".log"}
    assert {stat.S_IMODE(status.st_mode) for status in files.values()} == {0o600}
    assert {stat.S_IMODE(path.parent.stat().st_mode) for path in files} == {0o700}


def our_children() -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = path.read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
        if int(parent) == os.getpid():
            found.append(int(path.parent.name))
    return found


# -- the trainer is killed -----------------------------------------------------------------------

SCRIPT = """
import asyncio, os, signal, sys, time
from pathlib import Path
from orbiter.train import *
from orbiter_mlflow import *

class Backend(Trainer):
    def check_agent(self, agent): pass
    def check_dataset(self, train_data, test_data=None): pass
    def check_reward(self, reward_fn=None): pass
    def check_config(self, config=None): pass
    async def train(self):
        self._require_validated()
        for step in range(300):
            if step == 150:
                await self.middle()
            self.report({"loss": step / 7}, step=step)
        await self.late()
        return TrainMetrics(loss=300 / 7, accuracy=0.5, steps=300)
    async def middle(self): pass
    async def late(self): pass
    async def evaluate(self, test_data=None):
        return TrainMetrics(accuracy=0.5)

class Tracked(MLflowTrainerMixin, Backend):
    pass

def validated():
    trainer = Tracked()
    trainer.check_dataset(list(range(50)))
    trainer.mark_validated()
    return trainer

def say(word):
    Path(word).touch()

async def wait_for(word):
    while not Path(word).exists():
        await asyncio.sleep(0.01)
"""


@contextmanager
def trainer_process(
    tmp_path: Path, script: str, uri: str, experiment: str = "", **environment: str
) -> Iterator["subprocess.Popen[str]"]:
    """A process that runs SCRIPT and `script`, in its own group, which is killed at the end."""
    path = tmp_path / f"script{time.monotonic_ns()}.py"
    path.write_text(SCRIPT + textwrap.dedent(script))
    process = subprocess.Popen(
        [sys.executable, str(path)],
        env=os.environ
        | {"MLFLOW_TRACKING_URI": uri, "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
        | ({"MLFLOW_EXPERIMENT_NAME": experiment} if experiment else {})
        | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def told(process: "subprocess.Popen[str]") -> str:
    """The error output of a process, once it has ended well."""
    said, _ = process.communicate(timeout=90)
    assert process.returncode == 0, said
    return said


REPORTS = [(step, step / 7) for step in range(300)]

WAIT_AT_THE_END = """
async def late(self):
    say("reported")
    await asyncio.sleep(600)
Tracked.late = late
asyncio.run(validated().train())
"""


def test_the_trainer_is_killed_while_the_server_is_down_for_a_while(
    scene: Scene, tmp_path: Path
) -> None:
    scene.proxy.refuse()
    with trainer_process(tmp_path, WAIT_AT_THE_END, scene.proxy.uri, scene.experiment) as process:
        eventually(lambda: (tmp_path / "reported").exists())
        os.kill(process.pid, signal.SIGKILL)
        (journal,) = spool.journals(default_spool())
        eventually(lambda: read_ack(journal).problem)
        (deliverer,) = delivery_processes(process.pid)
        scene.proxy.open()
        # Nobody has asked for the dead trainer's exit code yet, so it is a zombie.
        eventually(all_removed)
        assert process.returncode is None
        run = scene.run()
        assert run.info.status == "KILLED"
        assert run.data.tags["orbiter.error.type"] == "ProcessDied"
        assert scene.history(run) == REPORTS
        eventually(lambda: gone(deliverer))


def test_an_abandoned_journal_is_taken_over_by_a_later_trainers_delivery(
    scene: Scene, tmp_path: Path
) -> None:
    scene.proxy.refuse()
    folder = default_spool()
    with trainer_process(
        tmp_path, WAIT_AT_THE_END, scene.proxy.uri, scene.experiment, ORBITER_MLFLOW_LINGER="0.5"
    ) as process:
        eventually(lambda: (tmp_path / "reported").exists())
        process.kill()
        process.wait()
        eventually(lambda: not delivery_processes(process.pid))
    (journal,) = spool.journals(folder)
    assert read_ack(journal).offset == 0
    assert scene.runs() == []

    scene.proxy.open()
    with trainer_process(
        tmp_path, "asyncio.run(validated().train())", scene.proxy.uri, scene.experiment
    ) as process:
        said = told(process)
        assert "Traceback" not in said
    eventually(all_removed)
    killed, finished = sorted(scene.runs(), key=lambda run: run.info.status, reverse=True)
    assert (killed.info.status, finished.info.status) == ("KILLED", "FINISHED")
    assert scene.history(killed) == REPORTS
    scene.assert_whole(finished)


def test_after_both_are_killed_a_later_trainers_delivery_takes_over(
    scene: Scene, tmp_path: Path
) -> None:
    script = """
    async def middle(self):
        await self.wait_run_id()
        say("halfway")
        await wait_for("go")
    Tracked.middle = middle
    """
    held = scene.proxy.add("hold", path=BATCH)
    with trainer_process(
        tmp_path,
        textwrap.dedent(script) + WAIT_AT_THE_END,
        scene.proxy.uri,
        scene.experiment,
        MLFLOW_HTTP_REQUEST_TIMEOUT="60",
    ) as process:
        eventually(lambda: held.hits and (tmp_path / "halfway").exists())
        (deliverer,) = delivery_processes(process.pid)
        kill(deliverer)
        (tmp_path / "go").touch()
        eventually(lambda: (tmp_path / "reported").exists())
        process.kill()
    scene.proxy.heal()
    with trainer_process(
        tmp_path, "asyncio.run(validated().train())", scene.proxy.uri, scene.experiment
    ) as process:
        told(process)
    eventually(all_removed)
    killed, finished = sorted(scene.runs(), key=lambda run: run.info.status, reverse=True)
    assert killed.info.status == "KILLED"
    assert scene.history(killed) == REPORTS
    scene.assert_whole(finished)


# -- forks, signals, crowds ----------------------------------------------------------------------


def test_forked_and_spawned_children_neither_write_nor_deliver(
    scene: Scene, tmp_path: Path
) -> None:
    script = """
    import multiprocessing

    def double(trainer, x):
        trainer.report({"loss": 1e9}, step=10_000)
        return 2 * x, trainer.state

    def fork_and_leave(trainer, leave):
        pid = os.fork()
        if pid == 0:
            trainer.report({"loss": 1e9}, step=10_000)
            trainer.set_tag("forked", "yes")
            leave(0)
        assert os.waitpid(pid, 0)[1] == 0

    async def middle(self):
        fork_and_leave(self, os._exit)
        for method in ("spawn", "fork"):
            # No `with`: it ends workers by SIGTERM, for which they inherited our handler.
            pool = multiprocessing.get_context(method).Pool(1)
            answer = await asyncio.to_thread(pool.apply, double, (self, 21))
            assert answer[0] == 42, answer
            pool.close()
            pool.join()
    Tracked.middle = middle

    if __name__ == "__main__":
        hits = []
        signal.signal(signal.SIGTERM, lambda number, frame: hits.append(number))
        mine = signal.getsignal(signal.SIGTERM)
        before = [signal.getsignal(n) for n in signal.valid_signals() if n not in (9, 19)]
        trainer = validated()
        metrics = asyncio.run(trainer.train())
        assert metrics.steps == 300
        fork_and_leave(trainer, sys.exit)
        os.kill(os.getpid(), signal.SIGTERM)
        assert hits == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) is mine
        after = [signal.getsignal(n) for n in signal.valid_signals() if n not in (9, 19)]
        assert before == after
        deadline = time.monotonic() + 30
        while not trainer.delivered:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        names = [Path(f"/proc/{pid}/cmdline").read_text() for pid in children]
        assert not [name for name in names if "resource_tracker" not in name], names
    """
    with trainer_process(tmp_path, script, scene.proxy.uri, scene.experiment) as process:
        assert "Traceback" not in told(process)
    eventually(all_removed)
    assert "forked" not in scene.assert_whole().data.tags
    eventually(lambda: not list(default_spool().glob("*.ack")))


def test_ctrl_c_reaches_the_trainer_only(scene: Scene, tmp_path: Path) -> None:
    scene.proxy.refuse()
    with trainer_process(tmp_path, WAIT_AT_THE_END, scene.proxy.uri, scene.experiment) as process:
        eventually(lambda: (tmp_path / "reported").exists())
        (journal,) = spool.journals(default_spool())
        eventually(lambda: read_ack(journal).problem)
        (deliverer,) = delivery_processes(process.pid)
        os.killpg(process.pid, signal.SIGINT)  # as the terminal does
        os.kill(deliverer, signal.SIGINT)
        process.communicate(timeout=30)
        assert process.returncode == -signal.SIGINT
        assert not gone(deliverer)
    scene.proxy.open()
    eventually(all_removed)
    run = scene.run()
    assert run.info.status == "KILLED"
    assert run.data.tags["orbiter.error.type"] == "CancelledError"
    assert scene.history(run) == REPORTS


def test_eight_trainers_on_one_spool_and_one_fresh_store(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/fresh.db"
    script = "trainer = validated(); asyncio.run(trainer.train()); asyncio.run(trainer.evaluate())"
    running: list[Any] = [trainer_process(tmp_path, script, uri, "crowd") for _ in range(8)]
    processes = [one.__enter__() for one in running]
    try:
        for process in processes:
            assert "Traceback" not in told(process)
        eventually(all_removed)
    finally:
        for one in running:
            one.__exit__(None, None, None)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("crowd")
    assert experiment is not None
    runs: list[Run] = list(client.search_runs([experiment.experiment_id]))
    assert len(runs) == 8
    for run in runs:
        history = client.get_metric_history(run.info.run_id, "train/loss")
        assert sorted((m.step, m.value) for m in history) == expected()
        assert run.info.status == "FINISHED"
        assert "orbiter.quarantined" not in run.data.tags
        (data,) = run.inputs.dataset_inputs
        assert data.dataset.name


def test_a_full_disk_costs_points_but_not_the_training(scene: Scene, tmp_path: Path) -> None:
    # A limit on the file's size simulates a full disk: writes fail in the same way.
    script = """
    import resource
    async def middle(self):
        await self.wait_run_id()
        (journal,) = Path(os.environ["XDG_STATE_HOME"], "orbiter-mlflow").glob("*.jsonl")
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (journal.stat().st_size + 50, limits[1]))
        for step in range(1000, 1100):
            self.report({"loss": 0.0}, step=step)
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    Tracked.middle = middle
    metrics = asyncio.run(validated().train())
    assert metrics.steps == 300
    """
    with trainer_process(tmp_path, script, scene.proxy.uri, scene.experiment) as process:
        said = told(process)
    assert said.count("takes no more records") == 1
    assert "Traceback" not in said
    eventually(all_removed)
    run = scene.run()
    # The result's step is the last one reported, whether it was kept or not.
    assert scene.history(run) == REPORTS
    assert scene.history(run, "train/final/loss") == [(1099, 300 / 7)]
    assert run.info.status == "FINISHED"
    assert run.data.tags["orbiter.lost"] == "100"
