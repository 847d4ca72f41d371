"""Journals made by hand, for tests of what reads them."""

from collections.abc import Iterable
from pathlib import Path

from orbiter_mlflow.delivery.journal import Journal, read
from orbiter_mlflow.delivery.records import Head, Record
from orbiter_mlflow.delivery.writer import this_process

HEAD = Head(
    uid="3f2a9c1e" * 4,
    tracking_uri="sqlite:///nowhere.db",
    start_time=1_700_000_000_000,
    writer=this_process(),
    experiment="journals",
)


def journal_of(path: Path, records: Iterable[Record], head: Head = HEAD) -> Path:
    """A journal with these records, given back by its writer."""
    journal = Journal(path, head)
    for record in records:
        journal.append(record)
    journal.close()
    return path


def entries(path: Path) -> list[Record | None]:
    """All records of a journal, None for what is damaged."""
    return [entry.record for entry in read(path)]
