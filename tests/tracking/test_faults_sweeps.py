"""Sweeps under faults: a server that is down, processes that are killed, children elsewhere."""

import asyncio
import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

from mlflow.entities import Run

from orbiter_mlflow import MLflowSettings, Sweep, SweepError, names
from orbiter_mlflow.delivery.spool_folder import default_spool
from scripts import output, started
from servers import LateStore, free_port, running_server
from sweeps import child, children, counts, ended_run, parent_of, table
from waiting import eventually

CHILD = """
class Slow(Tracked):
    async def train(self):
        metrics = await super().train()
        self.report({"loss": self.config.learning_rate}, step=100)
        while len(sys.argv) > 2 and not Path(sys.argv[2]).exists():
            Path(sys.argv[2] + ".waits").touch()
            time.sleep(0.02)
        return metrics

settings = None
if len(sys.argv) > 3:
    import pickle
    settings = pickle.loads(Path(sys.argv[3]).read_bytes())
trainer = Slow(TrainConfig(learning_rate=float(sys.argv[1])), mlflow=settings)
trainer.mark_validated()
asyncio.run(trainer.train())
"""
"""A process that is a child: its arguments are a learning rate, which becomes its loss, a file that
it waits for, and one with its settings."""


def a_process(folder: Path, *arguments: object, environ: dict[str, str]) -> "subprocess.Popen[str]":
    folder.mkdir()
    return started(CHILD, folder, [*map(str, arguments)], environ=environ)


def test_a_sweep_without_a_server_is_whole_once_the_server_is_there(
    empty_store: Path, tmp_path: Path
) -> None:
    port = free_port()
    settings = MLflowSettings(
        tracking_uri=f"http://127.0.0.1:{port}", experiment="scan", flush_timeout=0.2
    )

    async def scan() -> tuple[Sweep, float]:
        began = time.monotonic()
        async with Sweep("s", settings, metric="train/loss", direction="lower") as sweep:
            await asyncio.gather(*(child(sweep, rate) for rate in (0.5, 0.25, 0.75)))
        return sweep, time.monotonic() - began

    sweep, took = asyncio.run(scan())
    assert took < 30
    assert (sweep.run_id, sweep.counts()) == (None, {"FINISHED": 3})
    store = tmp_path / "store.db"
    store.write_bytes(empty_store.read_bytes())
    with running_server(f"sqlite:///{store}", tmp_path, port) as uri:
        code = subprocess.run(
            [sys.executable, "-m", "orbiter_mlflow", "sync", "--wait", "5"], timeout=60, check=False
        ).returncode
        assert code in (0, 1)  # 1: the delivery process has some of it
        parent = parent_of(uri, sweep)
        assert parent.info.status == "FINISHED"
        eventually(lambda: children(uri, parent).keys() == {"0.5", "0.25", "0.75"})
        nested = children(uri, parent)
        assert parent.data.tags[names.SWEEP_BEST] == nested["0.25"].info.run_id
        assert counts(parent) == {"FINISHED": 3}
        assert [row[0] for row in table(uri, parent)["data"]] == [
            nested[rate].info.run_id for rate in ("0.25", "0.5", "0.75")
        ]


def test_children_in_processes_nest_and_count(sqlite_uri: str, tmp_path: Path) -> None:
    settings = MLflowSettings(tracking_uri=sqlite_uri, experiment="scan")
    with Sweep("s", settings, metric="train/loss", direction="lower") as sweep:
        pickled = tmp_path / "settings"
        pickled.write_bytes(pickle.dumps(sweep.settings("pickled")))
        go = tmp_path / "go"
        processes = [
            a_process(tmp_path / "a", 0.5, environ=sweep.environment("by environment")),
            a_process(tmp_path / "b", 0.25, go, pickled, environ={}),
        ]
        killed = a_process(tmp_path / "c", 0.1, tmp_path / "never", environ=sweep.environment())
        eventually(Path(f"{tmp_path}/never.waits").exists)
        assert sweep.counts()["RUNNING"] >= 1
        killed.kill()
        killed.communicate()
        go.touch()
        for process in processes:
            output(process)
        assert sweep.counts() == {"FINISHED": 2, "KILLED": 1}
    parent = parent_of(sqlite_uri, sweep)
    nested = eventually(lambda: found if len(found := children(sqlite_uri, parent)) == 3 else None)
    assert parent.data.tags[names.SWEEP_BEST] == nested["0.25"].info.run_id
    assert nested["0.5"].info.run_name == "by environment"
    assert nested["0.25"].info.run_name == "pickled"
    eventually(lambda: children(sqlite_uri, parent)["0.1"].info.status == "KILLED")
    assert [row[2] for row in table(sqlite_uri, parent)["data"]] == [
        "FINISHED",
        "FINISHED",
        "KILLED",
    ]


PARENT = """
settings = MLflowSettings(tracking_uri=sys.argv[1], flush_timeout=0.2)
sweep = Sweep("s", settings, metric="train/loss", direction="lower")
with sweep:
    asyncio.run(validated(**dict(sweep.settings("inside"))).train())
    import json
    Path("new").write_text(json.dumps([sweep.id, sweep.environment("outside")]))
    Path("new").rename("child")
    while True:
        time.sleep(0.02)
"""


def test_a_killed_parent_ends_killed_and_its_children_go_on_and_it_can_be_resumed(
    sqlite_uri: str, tmp_path: Path
) -> None:
    parent_process = started(PARENT, tmp_path, [sqlite_uri])
    eventually((tmp_path / "child").exists)
    uid, environ = json.loads((tmp_path / "child").read_text())
    outside = a_process(tmp_path / "outside", 0.25, tmp_path / "go", environ=environ)
    eventually(Path(f"{tmp_path}/go.waits").exists)
    parent_process.kill()
    parent_process.communicate()
    parent = eventually(lambda: ended_run(sqlite_uri, uid))
    assert parent.info.status == "KILLED"
    assert outside.poll() is None
    (tmp_path / "go").touch()
    output(outside)
    both = ["FINISHED", "FINISHED"]
    eventually(lambda: [run.info.status for run in children(sqlite_uri, parent).values()] == both)
    settings = MLflowSettings(tracking_uri=sqlite_uri)
    with Sweep("s", settings, metric="train/loss", direction="lower", resume=uid) as again:
        assert again.counts() == {"FINISHED": 2}
    parent = eventually(
        lambda: run if (run := ended_run(sqlite_uri, uid)) and finished(run) else None
    )
    assert counts(parent) == {"FINISHED": 2}
    assert parent.data.tags[names.SWEEP_BEST]


def test_a_sweep_is_killed_and_resumed_without_a_store_and_is_one_once_there_is_one(
    late_store: LateStore, tmp_path: Path
) -> None:
    process = started(PARENT, tmp_path, [late_store.uri])
    eventually((tmp_path / "child").exists)
    uid, _ = json.loads((tmp_path / "child").read_text())
    process.kill()
    process.communicate()
    settings = MLflowSettings(tracking_uri=late_store.uri, flush_timeout=0.2)
    again = Sweep("s", settings, metric="train/loss", direction="lower", resume=uid)
    with again:
        trainer = asyncio.run(child(again, 0.001))
        assert again.counts() == SEEN
    assert again.run_id is None
    late_store.appear()
    eventually(lambda: trainer.delivered)
    parent = eventually(
        lambda: run if (run := ended_run(late_store.uri, uid)) and finished(run) else None
    )
    eventually(lambda: len(children(late_store.uri, parent)) == 2)
    nested = children(late_store.uri, parent)
    assert counts(parent) == SEEN
    assert parent.data.tags[names.SWEEP_BEST] == nested["0.001"].info.run_id


SEEN = {"FINISHED": 2, "not seen": 1}
"""The killed process has given settings to a child that was never started."""


def finished(run: Run) -> bool:
    return bool(run.info.status == "FINISHED")


def test_a_fork_neither_ends_the_sweep_nor_hands_out_settings(sqlite_uri: str) -> None:
    sweep = Sweep("s", MLflowSettings(tracking_uri=sqlite_uri))
    with sweep:
        pid = os.fork()
        if pid == 0:
            try:
                sweep.settings()
            except SweepError:
                sweep.__exit__(None, None, None)
                os._exit(0)
            os._exit(1)
        assert os.waitpid(pid, 0)[1] == 0
        assert sweep.counts() == {}
        asyncio.run(child(sweep, 0.5))
    parent = parent_of(sqlite_uri, sweep)
    assert (parent.info.status, counts(parent)) == ("FINISHED", {"FINISHED": 1})


def test_a_child_whose_spool_is_elsewhere_nests_and_is_told_as_not_seen(
    sqlite_uri: str, tmp_path: Path
) -> None:
    with Sweep("s", MLflowSettings(tracking_uri=sqlite_uri)) as sweep:
        environ = sweep.environment()
        folder = str(default_spool() / "sweeps" / str(sweep.id))
        environ["ORBITER_MLFLOW_SWEEP"] = environ["ORBITER_MLFLOW_SWEEP"].replace(
            folder, str(tmp_path / "no-such-folder")
        )
        environ["ORBITER_MLFLOW_SPOOL_DIR"] = str(tmp_path / "other-spool")
        output(a_process(tmp_path / "a", 0.5, environ=environ))
    parent = parent_of(sqlite_uri, sweep)
    assert counts(parent) == {"not seen": 1}
    eventually(lambda: children(sqlite_uri, parent).keys() == {"0.5"})
