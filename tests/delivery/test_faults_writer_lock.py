"""The writer lock shows whether a writer lives, even if its pid says nothing."""

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from mlflow import MlflowClient
from mlflow.entities import Run

from journals import HEAD, journal_of
from orbiter_mlflow.cli.main import commands
from orbiter_mlflow.delivery import spool, writer_lock
from orbiter_mlflow.delivery.ack import read_ack, write_ack
from orbiter_mlflow.delivery.journal import Journal
from orbiter_mlflow.delivery.journal_reader import read_head
from orbiter_mlflow.delivery.records import Close, Metrics, Status, Tags
from orbiter_mlflow.delivery.spool_folder import default_spool
from scripts import PRELUDE
from waiting import eventually

ELSEWHERE = {
    "boot": replace(HEAD.writer, boot="another"),
    "container": replace(HEAD.writer, namespace="pid:[1]"),
}


@pytest.mark.parametrize("where", ELSEWHERE)
def test_the_lock_reveals_a_death_that_the_pid_cannot(tmp_path: Path, where: str) -> None:
    writer = ELSEWHERE[where]
    journal = Journal(tmp_path / "j.jsonl", replace(HEAD, writer=writer))
    assert not writer_lock.is_dead(journal.path, writer)
    assert writer_lock.is_alive(journal.path, writer)
    journal.close()
    assert writer_lock.is_dead(journal.path, writer)
    assert not writer_lock.is_alive(journal.path, writer)


def test_another_machine_and_a_copy_prove_nothing(tmp_path: Path) -> None:
    journal = journal_of(tmp_path / "j.jsonl", [])
    assert not writer_lock.is_dead(journal, replace(HEAD.writer, host="another-machine"))
    writer = ELSEWHERE["container"]
    assert writer_lock.is_dead(journal, writer)
    copy = tmp_path / "copy.jsonl"
    shutil.copyfile(journal, copy)
    assert not writer_lock.is_dead(copy, writer)
    shutil.copyfile(writer_lock.path_of(journal), writer_lock.path_of(copy))
    assert not writer_lock.is_dead(copy, writer)


def test_a_journal_is_not_removed_while_its_writer_may_live(tmp_path: Path) -> None:
    writer = ELSEWHERE["container"]
    journal = Journal(tmp_path / "j.jsonl", replace(HEAD, writer=writer))
    assert not spool.may_be_removed(journal.path, writer)
    assert not spool.may_be_removed(journal.path, writer, ended=True)
    journal.append(Close())
    assert spool.may_be_removed(journal.path, writer)
    journal.close()


@contextmanager
def in_another_container(script: Path, **environment: str) -> Iterator["subprocess.Popen[str]"]:
    """Run a script in its own PID namespace, under the same host name."""
    command = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    tried = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no pid namespace can be made here: {tried.stderr.strip()}")
    with subprocess.Popen(
        [*command, sys.executable, str(script)],
        env=os.environ | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


TRAINER = PRELUDE + textwrap.dedent(
    """
    async def middle():
        print("half", flush=True)
        sys.stdin.readline()
        for step in range(100, 200):
            trainer.report({"loss": 1.0}, step=step)
    trainer = validated(); trainer.inside = middle
    asyncio.run(trainer.train())
    del trainer
    """
)


def sync(*options: str) -> tuple[int, str]:
    folder = default_spool()
    result = CliRunner(env={"COLUMNS": "200"}).invoke(commands, ["sync", *options, str(folder)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result.exit_code, result.output


def status() -> str:
    return CliRunner(env={"COLUMNS": "200"}).invoke(commands, ["status"]).output


def only_run(uri: str) -> tuple[Run, int]:
    """The only run, and its number of points."""
    client = MlflowClient(uri)
    (run,) = client.search_runs(["0"])
    return run, len(client.get_metric_history(run.info.run_id, "train/loss"))


@pytest.mark.parametrize("ended", [(), ("--ended",)], ids=["", "ended"])
def test_a_live_trainer_in_another_container_is_not_ended(
    tmp_path: Path, sqlite_uri: str, ended: tuple[str, ...]
) -> None:
    script = tmp_path / "script.py"
    script.write_text(TRAINER)
    with in_another_container(
        script, MLFLOW_TRACKING_URI=sqlite_uri, ORBITER_MLFLOW_DELIVERY="offline"
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "half\n"
        (journal,) = spool.journals(default_spool())
        assert read_head(journal).writer.host == HEAD.writer.host
        assert read_head(journal).writer.namespace != HEAD.writer.namespace
        code, said = sync(*ended)
        assert code == 1
        assert "its trainer is still running" in said
        run, points = only_run(sqlite_uri)
        assert (run.info.status, points) == ("RUNNING", 100)
        assert journal.exists()

        process.stdin.write("\n")
        process.stdin.flush()
        assert process.wait(60) == 0
    assert sync()[0] == 0
    run, points = only_run(sqlite_uri)
    assert (run.info.status, points) == ("FINISHED", 200)
    assert "orbiter.error.type" not in run.data.tags
    assert list(default_spool().iterdir()) == []


def test_a_trainer_killed_in_another_container_is_known_to_be_dead(
    tmp_path: Path, sqlite_uri: str
) -> None:
    script = tmp_path / "script.py"
    script.write_text(TRAINER)
    with in_another_container(
        script, MLFLOW_TRACKING_URI=sqlite_uri, ORBITER_MLFLOW_DELIVERY="offline"
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        process.kill()
        process.wait(60)
    (journal,) = spool.journals(default_spool())
    eventually(lambda: writer_lock.is_dead(journal, read_head(journal).writer))
    assert sync()[0] == 0
    run, points = only_run(sqlite_uri)
    assert (run.info.status, points) == ("KILLED", 100)
    assert run.data.tags["orbiter.error.phase"] == "train"


def test_a_journal_that_grows_after_its_end_is_still_delivered(
    tmp_path: Path, sqlite_uri: str
) -> None:
    """Somebody has declared its writer dead and set the run KILLED."""
    folder = default_spool()
    head = replace(HEAD, tracking_uri=sqlite_uri, writer=ELSEWHERE["boot"], experiment_id="0")
    journal = spool.open_journal(folder, replace(head, experiment=None))
    journal.append(Metrics(0, 1000, {"train/loss": 1.0}))
    code, _ = sync()
    assert code == 1
    ack = read_ack(journal.path)
    write_ack(journal.path, replace(ack, closed=True, status="KILLED"))
    assert "delivered" in status()
    assert sync()[0] == 0
    assert journal.path.exists()
    journal.append(Metrics(1, 1001, {"train/loss": 1.0}))
    journal.append(Tags({"orbiter.state": "completed"}))
    assert "waiting" in status()
    journal.append(Status("FINISHED", 2000))
    journal.append(Close())
    journal.close()
    assert sync()[0] == 0
    run, points = only_run(sqlite_uri)
    assert (run.info.status, points) == ("FINISHED", 2)
    assert list(folder.iterdir()) == []
