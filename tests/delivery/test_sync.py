"""`orbiter-mlflow sync` and `status`."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from journals import GONE, HEAD, done, journal_of
from orbiter_mlflow import names
from orbiter_mlflow.delivery.ack import Ack, read_ack, write_ack
from orbiter_mlflow.delivery.records import (
    Close,
    Metrics,
    Params,
    Record,
    Status,
    Tags,
    Update,
)
from waiting import eventually

ELSEWHERE = replace(HEAD.writer, host="another-machine")
POINTS = 3000


def a_run(*, closed: bool = True) -> list[Record]:
    end: list[Record] = [Status("FINISHED", 1_700_000_009_000), Close()]
    return [
        Tags({names.STATE: "training"}),
        Params({"learning_rate": "0.1"}),
        *[Metrics(i, 1000 + i, {"train/loss": float(i)}) for i in range(POINTS)],
        *(end if closed else []),
    ]


@pytest.fixture
def spool(tmp_path: Path, sqlite_uri: str) -> Path:
    folder = tmp_path / "spool"
    folder.mkdir()
    head = replace(HEAD, tracking_uri=sqlite_uri, writer=GONE)
    journal_of(folder / "a.jsonl", a_run(), head)
    return folder


def command(*arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "orbiter_mlflow", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"COLUMNS": "200"},
    )


def assert_one_whole_run(uri: str, status: str = "FINISHED") -> None:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("journals")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == status
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(m.step, m.value) for m in history] == [(i, float(i)) for i in range(POINTS)]


def test_a_spool_is_listed_delivered_and_then_empty(spool: Path, sqlite_uri: str) -> None:
    journal = spool / "a.jsonl"
    before = journal.read_bytes()
    for looking in (("status", spool), ("sync", "--dry-run", spool), ("status", journal)):
        code, out = done(*looking)
        assert code == 0
        assert "a.jsonl" in out
        assert str(POINTS) in out
        assert "waiting" in out
    assert journal.read_bytes() == before
    assert sorted(spool.iterdir()) == [journal, spool / "a.writer"]

    code, out = done("sync", spool)
    assert (code, "a.jsonl: delivered, run " in out) == (0, True)
    assert list(spool.iterdir()) == []
    assert_one_whole_run(sqlite_uri)

    code, out = done("sync", spool)
    assert (code, out) == (0, "no journals: everything is delivered\n")


def test_a_copy_of_a_journal_is_delivered_once_to_another_store(
    spool: Path, tmp_path: Path, sqlite_uri: str
) -> None:
    copy = tmp_path / "from" / "another" / "machine.jsonl"
    copy.parent.mkdir(parents=True)
    shutil.copyfile(spool / "a.jsonl", copy)
    other = f"sqlite:///{tmp_path}/other.db"
    assert done("sync", "--tracking-uri", other, copy)[0] == 0
    assert_one_whole_run(other)


def test_a_killed_sync_is_continued_by_the_next(spool: Path, sqlite_uri: str) -> None:
    journal = spool / "a.jsonl"
    with journal.open("r+b"):
        process = command("sync", spool)
        eventually(lambda: read_ack(journal).offset or process.poll() is not None)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert done("sync", spool)[0] == 0
    assert_one_whole_run(sqlite_uri)


def test_two_syncs_at_once_deliver_once(spool: Path, sqlite_uri: str) -> None:
    both = [command("sync", spool) for _ in range(2)]
    said = "".join(process.communicate(timeout=120)[0] for process in both)
    assert said.count("delivered, run") >= 1
    assert_one_whole_run(sqlite_uri)


def test_a_second_sync_names_the_process_that_holds_the_journal(spool: Path) -> None:
    journal = spool / "a.jsonl"
    (spool / "a.ack").write_text('{"offset":0,"drainer":"process 4711 on this-host"}')
    with journal.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        code, out = done("sync", spool)
    assert code == 1
    assert "skipped: process 4711 on this-host is delivering it" in out
    assert journal.exists()


def test_a_terminal_of_80_columns_shows_the_table_whole(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    journal = (spool / "a.jsonl").rename(spool / "20261125T102039014-334e097f.jsonl")
    journal.with_suffix(".ack").write_text(json.dumps({"run_id": "1234567890"}))
    with journal.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        _, out = done("status", spool)
    assert "\u2026" not in out
    for shown in ("points", "refused", journal.name, "12345678", "delivering"):
        assert shown in out


def test_a_store_that_cannot_be_reached_leaves_everything_as_it_was(
    spool: Path, tmp_path: Path
) -> None:
    before = (spool / "a.jsonl").read_bytes()
    nowhere = f"sqlite:///{tmp_path}/no/such/folder.db"
    code, out = done("sync", "--wait", 1, "--tracking-uri", nowhere, spool)
    assert code == 1
    assert "not delivered" in out
    assert (spool / "a.jsonl").read_bytes() == before
    code, out = done("status", spool)
    assert str(POINTS) in out


@pytest.mark.parametrize("ended", [False, True])
def test_a_trainer_on_another_machine_counts_as_running_without_ended(
    tmp_path: Path, sqlite_uri: str, ended: bool
) -> None:
    head = replace(HEAD, tracking_uri=sqlite_uri, writer=ELSEWHERE)
    journal = journal_of(tmp_path / "b.jsonl", a_run(closed=False), head)
    code, out = done("sync", *(["--ended"] if ended else []), journal)
    assert_one_whole_run(sqlite_uri, "KILLED" if ended else "RUNNING")
    assert journal.exists() is not ended
    if not ended:
        assert code == 1
        assert "another-machine; if that trainer has ended, add --ended" in out


def test_a_kept_journal_stays_and_is_not_sent_again(tmp_path: Path, sqlite_uri: str) -> None:
    head = replace(HEAD, tracking_uri=sqlite_uri, writer=GONE, keep=True)
    journal = journal_of(tmp_path / "k.jsonl", a_run(), head)
    for _ in range(2):
        assert done("sync", journal)[0] == 0
    assert journal.exists()
    assert "delivered" in done("status", journal)[1]
    assert_one_whole_run(sqlite_uri)


def test_a_file_that_is_no_journal_is_named_and_the_rest_is_delivered(
    spool: Path, sqlite_uri: str
) -> None:
    (spool / "0.jsonl").write_text("not a journal\n")
    code, out = done("sync", spool)
    assert code == 1
    assert "0.jsonl: not delivered" in out
    assert "is no journal" in out
    assert_one_whole_run(sqlite_uri)
    assert "unreadable" in done("status", spool)[1]


def test_a_missing_path_gives_one_line_and_exit_code_2(tmp_path: Path) -> None:
    process = command("sync", tmp_path / "nowhere")
    _, out = process.communicate(timeout=60)
    assert process.returncode == 2
    assert out.count("\n") == 1
    assert "there is no such journal or folder" in out


def test_a_run_of_an_mlflow_client_is_shown_by_name_and_experiment(
    tmp_path: Path, sqlite_uri: str
) -> None:
    folder = tmp_path / "spool"
    folder.mkdir()
    experiment = MlflowClient(sqlite_uri).create_experiment("clients")
    head = replace(
        HEAD,
        tracking_uri=sqlite_uri,
        writer=GONE,
        experiment=None,
        experiment_id=experiment,
        run_name="bold-owl-42",
        as_written=True,
    )
    journal = journal_of(folder / "a.jsonl", [Metrics(0, HEAD.start_time, {"a": 1.0})], head)
    write_ack(journal, Ack(creating=True))
    joined = replace(head, uid="1" * 32, run_name=None, run_uid=head.uid)
    last: list[Record] = [
        Metrics(1, HEAD.start_time + 5, {"a": 2.0, "b": 3.0}),
        Update("FINISHED", HEAD.start_time + 9),
        Close(),
    ]
    journal_of(folder / "b.jsonl", last, joined)
    code, out = done("status", folder)
    assert code == 0
    assert "bold-ow\N{HORIZONTAL ELLIPSIS}" in out
    assert [line.split()[3] for line in out.splitlines() if ".jsonl" in line] == ["1", "2"]
    code, out = done("sync", folder, "--tracking-uri", sqlite_uri)
    assert code == 0, out
    (run,) = MlflowClient(sqlite_uri).search_runs([experiment])
    id_and_where = f"run {run.info.run_id} ('bold-owl-42', experiment {experiment})"
    assert f"a.jsonl: delivered, {id_and_where}\n" in out
    assert f"b.jsonl: delivered, run {run.info.run_id}\n" in out
    assert run.data.metrics == {"a": 2.0, "b": 3.0}
    assert list(folder.iterdir()) == []
