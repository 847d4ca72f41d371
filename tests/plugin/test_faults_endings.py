"""How a run ends when a plain MLflow script does: by itself, by an exception, by a signal."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from scripts import ended
from waiting import eventually


def started(script: str, uri: str, folder: Path) -> "subprocess.Popen[str]":
    """Start a plain MLflow script whose tracking URI has our prefix."""
    file = folder / "plain_script.py"
    file.write_text("import mlflow, os, signal, sys, time\n" + textwrap.dedent(script))
    return subprocess.Popen(
        [sys.executable, str(file)],
        cwd=folder,
        env={**os.environ, "MLFLOW_TRACKING_URI": f"journal+{uri}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def the_end(script: str, uri: str, folder: Path) -> Run:
    """The run of a script, once the script has ended and the run has its final status."""
    process = started(script, uri, folder)
    _, err = process.communicate(timeout=120)
    sys.stderr.write(err)
    client = MlflowClient(uri)
    return eventually(lambda: ended(client))


BARE = """
mlflow.start_run()
for step in range(100):
    mlflow.log_metric("loss", 1 / (step + 1), step=step)
"""
ENDINGS = {
    "nothing more": ("", "FINISHED"),
    "an exception": ("raise ValueError('mine')", "FAILED"),
    "Ctrl-C": ("os.kill(os.getpid(), signal.SIGINT); time.sleep(60)", "KILLED"),
    "a kill": ("os.kill(os.getpid(), signal.SIGKILL)", "KILLED"),
    "SIGTERM": ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)", "KILLED"),
    "an exit without a word": ("os._exit(0)", "KILLED"),
    "an end, then an exception": ("mlflow.end_run(); raise ValueError('late')", "FINISHED"),
    "an exit": ("sys.exit(0)", "FINISHED"),
}


@pytest.mark.parametrize("what", ENDINGS)
def test_the_status_is_true(what: str, sqlite_uri: str, tmp_path: Path) -> None:
    last, status = ENDINGS[what]
    run = the_end(BARE + last, sqlite_uri, tmp_path)
    assert run.info.status == status
    assert run.info.end_time is not None
    assert run.data.metrics == {"loss": 0.01}
    client = MlflowClient(sqlite_uri)
    assert len(client.get_metric_history(run.info.run_id, "loss")) == 100
    ours = {name for name in run.data.tags if name.startswith("orbiter.")}
    assert ours == {"orbiter.uid", "orbiter.delivered"}


BLOCKS: dict[str, tuple[str, str]] = {
    "an exception inside the block": ("raise ValueError('mine')", "FAILED"),
    "an exit inside the block": ("sys.exit(3)", "FAILED"),
    "the end of the block": ("pass", "FINISHED"),
}


@pytest.mark.parametrize("what", BLOCKS)
def test_a_block_ends_its_run_as_mlflow_does(what: str, sqlite_uri: str, tmp_path: Path) -> None:
    last, status = BLOCKS[what]
    script = f"with mlflow.start_run():\n    mlflow.log_metric('x', 1.0)\n    {last}\n"
    run = the_end(script, sqlite_uri, tmp_path)
    assert (run.info.status, run.data.metrics) == (status, {"x": 1.0})


def test_the_death_of_a_joining_process_says_nothing_of_the_run(
    sqlite_uri: str, tmp_path: Path
) -> None:
    client = MlflowClient(sqlite_uri)
    run_id = client.create_run("0").info.run_id
    process = started(
        f"""
        mlflow.MlflowClient().log_metric("{run_id}", "x", 1.0)
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        sqlite_uri,
        tmp_path,
    )
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL

    def arrived() -> bool:
        return bool(client.get_run(run_id).data.metrics == {"x": 1.0})

    eventually(arrived)
    eventually(lambda: not list(tmp_path.rglob("*.jsonl")))
    assert client.get_run(run_id).info.status == "RUNNING"


def test_a_run_that_a_client_leaves_open_stays_open(sqlite_uri: str, tmp_path: Path) -> None:
    client = MlflowClient(sqlite_uri)
    process = started(
        """
        client = mlflow.MlflowClient()
        run_id = client.create_run("0").info.run_id
        client.log_metric(run_id, "x", 1.0)
        """,
        sqlite_uri,
        tmp_path,
    )
    process.communicate(timeout=120)
    eventually(lambda: not list(tmp_path.rglob("*.jsonl")))
    (run,) = client.search_runs(["0"])
    assert (run.info.status, run.data.metrics) == ("RUNNING", {"x": 1.0})
