"""Journals written by hand, for tests of their readers."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from click.testing import CliRunner

from orbiter_mlflow.cli.main import commands
from orbiter_mlflow.delivery.ack import read_ack
from orbiter_mlflow.delivery.journal import Journal
from orbiter_mlflow.delivery.journal_reader import read_entries
from orbiter_mlflow.delivery.process_identity import this_process
from orbiter_mlflow.delivery.records import Head, Record
from orbiter_mlflow.delivery.side_lane import SideLane

HEAD = Head(
    uid="3f2a9c1e" * 4,
    tracking_uri="sqlite:///nowhere.db",
    start_time=1_700_000_000_000,
    writer=this_process(),
    experiment="journals",
)
GONE = replace(HEAD.writer, pid=2**22 + 1, started="1")  # past the largest pid of Linux


def journal_of(path: Path, records: Iterable[Record], head: Head = HEAD) -> Path:
    """Write a journal with these records, and close it."""
    journal = Journal(path, head)
    for record in records:
        journal.append(record)
    journal.close()
    return path


def entries(path: Path) -> list[Record | None]:
    """All records of a journal; None for a damaged line."""
    return [entry.record for entry in read_entries(path)]


def done(*arguments: object) -> tuple[int, str]:
    """Run a command and return its exit code and output.

    It runs in this process, as a new one spends seconds importing mlflow.
    """
    result = CliRunner(env={"COLUMNS": "200"}).invoke(commands, [str(part) for part in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result.exit_code, result.output


def run_lane(lane: SideLane) -> bool:
    """Run a side lane of a journal whose main lane has come as far as its ack says."""
    return lane.run(read_ack(lane.journal))
