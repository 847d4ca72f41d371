"""Undo the late effects of requests that were given up, and were carried out after all.

A proxy, or MLflow's own client, may also have repeated a request that had succeeded.
"""

from collections.abc import Iterator
from pathlib import Path

from orbiter_mlflow import names
from orbiter_mlflow.delivery.journal_reader import read_entries
from orbiter_mlflow.delivery.records import Head, Tags, split
from orbiter_mlflow.delivery.resumption.rewriting import Resumption, RunContents
from orbiter_mlflow.delivery.sink import Sink


def delete_twins(sink: Sink, head: Head, run_id: str) -> None:
    """Delete the empty runs that repeated requests created beside the run of a head.

    Raises:
        DeliveryError: the store is in trouble.
    """
    for twin in sink.find_runs(head):
        if twin != run_id and is_empty(sink.read_run(twin)):
            sink.delete_run(twin)


def is_empty(run: RunContents) -> bool:
    """Whether nothing was logged to a run, so that a repeated request created it. A twin with
    contents comes from a copy of this journal, delivered elsewhere."""
    return not run.has_metrics and not run.params and names.DELIVERED not in run.tags


def latest_tags(
    journal: Path, end: int, resumption: Resumption, present: RunContents | None
) -> Iterator[dict[str, str]]:
    """The tags that a journal holds before the offset `end`, with their latest values, in parts
    that each fit into one batch.

    Args:
        present: a run to which others may write too. Only tags which have an earlier value of this
            journal there are returned: another value was set by somebody else, and stays.
    """
    values: dict[str, list[str]] = {}
    for entry in read_entries(journal):
        if entry.end <= end and isinstance(entry.record, Tags):
            for key, text in resumption.rename_tags(entry.record.values).items():
                values.setdefault(key, []).append(text)
    tags = {key: texts[-1] for key, texts in values.items()}
    if present is not None:
        there = present.tags
        tags = {
            key: text
            for key, text in tags.items()
            if there.get(key) != text and there.get(key) in values[key]
        }
    for part in split(Tags(tags)):
        assert isinstance(part, Tags)  # noqa: S101  as `split` keeps the kind
        yield part.values
