"""Trainings of one machine share a delivery process: killed, left, crowded, kept apart."""

import os
import random
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from faults import all_removed, shared_delivery_processes
from orbiter_mlflow.delivery.spool import journals, remove
from orbiter_mlflow.delivery.spool_folder import default_spool
from proxy import Proxy
from scripts import PRELUDE, output, started
from waiting import eventually

pytestmark = pytest.mark.server

POINTS = 200
EXPECTED = [(step, 1.0 / (step + 1)) for step in range(POINTS)]
SCRIPT = PRELUDE + textwrap.dedent(
    """
    name = sys.argv[1]

    async def inside(trainer):
        Path(f"{name}.half").touch()
        while not Path(f"{name}.go").exists():
            await asyncio.sleep(0.02)
            trainer.set_tag("waits", "yes")
            if Path(f"{name}.token").exists():
                os.environ["MLFLOW_TRACKING_TOKEN"] = Path(f"{name}.token").read_text()
        for step in range(100, 200):
            trainer.report({"loss": 1.0 / (step + 1)}, step=step)

    Tracked.inside = inside
    trained(run_name=name)
    """
)
Process = subprocess.Popen[str]


class Trainings:
    """Trainings in processes of their own; each stops halfway until it is told to go on."""

    def __init__(self, folder: Path, uri: str) -> None:
        self.folder = folder
        self.uri = uri
        self._script = folder / "shared.py"
        self._script.write_text(SCRIPT)
        self._all: list[Process] = []

    def start(self, name: str, before: Sequence[str] = (), **environ: str) -> Process:
        process = subprocess.Popen(
            [*before, sys.executable, str(self._script), name],
            cwd=self.folder,
            env=os.environ | {"MLFLOW_TRACKING_URI": self.uri} | environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._all.append(process)
        return process

    def halfway(self, *names: str) -> None:
        for name in names:
            eventually((self.folder / f"{name}.half").exists)

    def go(self, *names: str) -> None:
        for name in names:
            (self.folder / f"{name}.go").touch()

    def end(self) -> None:
        for process in self._all:
            process.kill()
            process.communicate()


@pytest.fixture
def trainings(tmp_path: Path, sqlite_uri: str) -> Iterator[Trainings]:
    with running(tmp_path, sqlite_uri) as trainings:
        yield trainings


@contextmanager
def running(folder: Path, uri: str) -> Iterator[Trainings]:
    trainings = Trainings(folder, uri)
    try:
        yield trainings
    finally:
        trainings.end()
        for journal in journals(default_spool()):
            remove(journal)


def runs(uri: str) -> dict[str, Run]:
    return {run.info.run_name: run for run in MlflowClient(uri).search_runs(["0"])}


def has_started(uri: str, *names: str) -> bool:
    """Whether the first half of these runs is in the store."""
    found = runs(uri)
    return all(name in found and found[name].data.metrics.get("train/loss") for name in names)


def assert_whole(uri: str, *names: str) -> None:
    """Exactly these runs are there, FINISHED, with each point once."""
    client, found = MlflowClient(uri), client_runs(uri)
    assert sorted(run.info.run_name for run in found) == sorted(names)
    for run in found:
        assert run.info.status == "FINISHED"
        history = client.get_metric_history(run.info.run_id, "train/loss")
        assert sorted((m.step, m.value) for m in history) == EXPECTED


def client_runs(uri: str) -> list[Run]:
    return list(MlflowClient(uri).search_runs(["0"]))


def has_more_than(requests: list[str], count: int) -> bool:
    return len(requests) > count


def has_successor(killed: int) -> bool:
    return bool(set(shared_delivery_processes()) - {killed})


def only_process() -> int:
    (pid,) = eventually(shared_delivery_processes)
    return pid


def test_eight_trainings_at_once_share_one_process_which_stays_for_the_next(
    trainings: Trainings,
) -> None:
    names = [f"t{number}" for number in range(8)]
    processes = [trainings.start(name) for name in names]
    trainings.halfway(*names)
    shared = only_process()
    trainings.go(*names)
    for process in processes:
        output(process)
    eventually(all_removed)
    trainings.go("next")
    output(trainings.start("next"))
    assert only_process() == shared
    assert_whole(trainings.uri, *names, "next")
    eventually(lambda: not shared_delivery_processes())
    assert [path.name for path in default_spool().iterdir()] == ["delivery.log"]
    assert (default_spool() / "delivery.log").read_text() == ""


def test_it_is_killed_under_two_trainings(trainings: Trainings) -> None:
    pair = [trainings.start(name) for name in ("a", "b")]
    trainings.halfway("a", "b")
    for _ in range(3):
        eventually(lambda: has_started(trainings.uri, "a", "b"))
        killed = only_process()
        os.kill(killed, signal.SIGKILL)
        # Each training notices, though it waits for nothing; both find the same new one.
        eventually(partial(has_successor, killed))
    only_process()
    trainings.go("a", "b")
    for process in pair:
        output(process)
    eventually(all_removed)
    assert_whole(trainings.uri, "a", "b")


def test_eight_trainings_go_through_kills_and_a_failing_network(
    tmp_path: Path, server_uri: str
) -> None:
    names = [f"t{number}" for number in range(8)]
    given = experiment(tmp_path) | {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
        "ORBITER_MLFLOW_FLUSH_TIMEOUT": "300",  # somebody is left to start the next delivery
    }
    with Proxy(server_uri) as proxy, running(tmp_path, proxy.uri) as trainings:
        for kind in ("answer", "drop", "cut"):
            proxy.add(kind, chance=0.1, rng=random.Random(kind))
        processes = [trainings.start(name, **given) for name in names]
        trainings.halfway(*names)
        for round_ in range(6):
            killed = only_process()
            began = len(proxy.requests)
            eventually(partial(has_more_than, proxy.requests, began + 10))
            os.kill(killed, signal.SIGKILL)
            if round_ == 3:
                trainings.go(*names)
            eventually(partial(has_successor, killed))
        for process in processes:
            output(process, within=300)
        proxy.heal()
        eventually(all_removed, within=120)
    client, found = MlflowClient(server_uri), runs_of(server_uri, tmp_path)
    assert sorted(run.info.run_name for run in found) == names
    for run in found:
        assert run.info.status == "FINISHED"
        history = client.get_metric_history(run.info.run_id, "train/loss")
        assert sorted((m.step, m.value) for m in history) == EXPECTED


THREADS = """
import threading

barrier = threading.Barrier(8)

def one(number):
    barrier.wait()
    trained(run_name=f"t{number}")

threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_trainers_in_threads_that_start_at_once_are_all_delivered(
    tmp_path: Path, sqlite_uri: str
) -> None:
    said = output(started(THREADS, tmp_path, environ={"MLFLOW_TRACKING_URI": sqlite_uri}))
    assert said == ""
    eventually(all_removed)
    found = runs(sqlite_uri)
    assert sorted(found) == [f"t{number}" for number in range(8)]
    assert {run.info.status for run in found.values()} == {"FINISHED"}


def test_one_training_is_killed_and_the_other_goes_on(trainings: Trainings) -> None:
    killed, survivor = trainings.start("killed"), trainings.start("survivor")
    trainings.halfway("killed", "survivor")
    eventually(lambda: has_started(trainings.uri, "killed", "survivor"))
    shared = only_process()
    killed.kill()
    eventually(lambda: runs(trainings.uri)["killed"].info.status == "KILLED")
    assert runs(trainings.uri)["survivor"].info.status == "RUNNING"
    assert only_process() == shared
    trainings.go("survivor")
    output(survivor)
    assert runs(trainings.uri)["survivor"].info.status == "FINISHED"


def test_a_killed_training_that_has_started_it_does_not_take_it_along(trainings: Trainings) -> None:
    first = trainings.start("first")
    trainings.halfway("first")
    shared = only_process()
    second = trainings.start("second")
    trainings.halfway("second")
    os.kill(first.pid, signal.SIGKILL)
    eventually(lambda: runs(trainings.uri).get("first") is not None)
    trainings.go("second")
    output(second)
    assert only_process() == shared
    eventually(lambda: runs(trainings.uri)["first"].info.status == "KILLED")
    assert runs(trainings.uri)["second"].info.status == "FINISHED"


def test_the_credentials_of_one_training_never_serve_another(
    tmp_path: Path, server_uri: str
) -> None:
    with Proxy(server_uri) as proxy, running(tmp_path, proxy.uri) as trainings:
        proxy.token = "good"
        good = trainings.start("good", MLFLOW_TRACKING_TOKEN="good", **experiment(tmp_path))
        trainings.halfway("good")
        bad = trainings.start("bad", MLFLOW_TRACKING_TOKEN="bad", **experiment(tmp_path))
        trainings.halfway("bad")
        eventually(lambda: len(shared_delivery_processes()) == 2)
        trainings.go("good", "bad")
        output(good)
        output(bad)
        assert [run.info.run_name for run in runs_of(server_uri, tmp_path)] == ["good"]
        (waiting,) = eventually(lambda: only(journals(default_spool())))
        assert waiting.exists(), "what the bad token may not write waits"


def test_a_training_whose_token_changes_leaves_the_others(tmp_path: Path, server_uri: str) -> None:
    with Proxy(server_uri) as proxy, running(tmp_path, proxy.uri) as trainings:
        proxy.token = "old"
        given = {"MLFLOW_TRACKING_TOKEN": "old", **experiment(tmp_path)}
        pair = [trainings.start(name, **given) for name in ("stays", "moves")]
        trainings.halfway("stays", "moves")
        eventually(lambda: len(runs_of(server_uri, tmp_path)) == 2)
        shared = only_process()
        trainings.go("stays")
        output(pair[0])
        eventually(lambda: len(journals(default_spool())) == 1)
        proxy.token = "new"
        (tmp_path / "token").write_text("new")
        (tmp_path / "token").rename(tmp_path / "moves.token")
        eventually(lambda: set(shared_delivery_processes()) - {shared})
        trainings.go("moves")
        output(pair[1])
        eventually(all_removed)
        found = runs_of(server_uri, tmp_path)
        assert [run.info.status for run in found] == ["FINISHED", "FINISHED"]
        for run in found:
            history = MlflowClient(server_uri).get_metric_history(run.info.run_id, "train/loss")
            assert sorted(m.step for m in history) == list(range(POINTS))


def test_a_container_with_the_same_spool_has_one_of_its_own(trainings: Trainings) -> None:
    contained = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    tried = subprocess.run([*contained, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no pid namespace can be made here: {tried.stderr.strip()}")
    pair = [trainings.start("outside")]
    trainings.halfway("outside")
    pair.append(trainings.start("inside", contained))
    trainings.halfway("inside")
    assert len(list(default_spool().glob("*.delivery"))) == 2
    eventually(lambda: len(shared_delivery_processes()) == 2)
    trainings.go("outside", "inside")
    for process in pair:
        output(process)
    eventually(lambda: {r.info.status for r in client_runs(trainings.uri)} == {"FINISHED"})
    assert_whole(trainings.uri, "outside", "inside")


def test_a_store_that_hangs_holds_up_no_journal_for_another(
    tmp_path: Path, server_uri: str, sqlite_uri: str
) -> None:
    with Proxy(server_uri) as proxy, running(tmp_path, sqlite_uri) as trainings:
        hanging = proxy.add("hang")
        trainings.start("hangs", MLFLOW_TRACKING_URI=proxy.uri)
        trainings.halfway("hangs")
        eventually(lambda: hanging.hits)
        trainings.go("well")
        output(trainings.start("well"))
        only_process()
        assert_whole(sqlite_uri, "well")


def test_a_store_that_is_made_anew_between_two_trainings_gets_all_of_the_second(
    trainings: Trainings, tmp_path: Path
) -> None:
    trainings.go("first", "second")
    output(trainings.start("first"))
    shared = only_process()
    eventually(all_removed)
    (tmp_path / "store.db").unlink()
    output(trainings.start("second"))
    assert only_process() == shared
    eventually(all_removed)
    assert_whole(trainings.uri, "second")


def open_to_all(pipe: Path) -> None:
    """A pipe with a reader, as without one it would be replaced."""
    os.mkfifo(pipe)
    pipe.chmod(0o622)
    os.open(pipe, os.O_RDWR)


SPOILED: dict[str, Any] = {
    "a file in place of the pipe": lambda pipe: pipe.write_text(""),
    "a pipe that others may use": open_to_all,
    "a link": lambda pipe: pipe.symlink_to(pipe.parent / "elsewhere"),
    "a folder that others may write to": lambda pipe: pipe.parent.chmod(0o777),
}


@pytest.mark.parametrize("how", SPOILED)
def test_where_a_pipe_cannot_be_trusted_a_training_has_a_process_of_its_own(
    how: str, trainings: Trainings
) -> None:
    trainings.go("first", "second")
    output(trainings.start("first"))
    (pipe,) = default_spool().glob("*.delivery")
    eventually(lambda: not shared_delivery_processes())
    SPOILED[how](pipe)
    try:
        output(trainings.start("second"))
        assert shared_delivery_processes() == []
        assert_whole(trainings.uri, "first", "second")
    finally:
        default_spool().chmod(0o700)


def test_it_starts_with_the_trainer_and_ends_after_one_that_never_trained(
    tmp_path: Path, sqlite_uri: str
) -> None:
    script = tmp_path / "made.py"
    script.write_text(
        PRELUDE + "trainer = Tracked()\nready()\nwhile not Path('go').exists(): time.sleep(0.02)\n"
    )
    process = subprocess.Popen(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env=os.environ | {"MLFLOW_TRACKING_URI": sqlite_uri},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    eventually((tmp_path / "ready").exists)
    maps = Path(f"/proc/{only_process()}/maps")
    eventually(lambda: "sqlite" in maps.read_text())  # mlflow is imported
    (tmp_path / "go").touch()
    output(process)
    eventually(lambda: not shared_delivery_processes())
    assert client_runs(sqlite_uri) == []


def experiment(folder: Path) -> dict[str, str]:
    return {"MLFLOW_EXPERIMENT_NAME": folder.name}


def runs_of(uri: str, folder: Path) -> list[Run]:
    client = MlflowClient(uri)
    found = client.get_experiment_by_name(folder.name)
    return [] if found is None else list(client.search_runs([found.experiment_id]))


def only(found: list[Path]) -> list[Path]:
    return found if len(found) == 1 else []
