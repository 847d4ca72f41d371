"""What a journal says of its checkpoints: their metrics, and whether later ones replace them."""

from collections.abc import Iterator
from pathlib import Path

from orbiter_mlflow import names
from orbiter_mlflow.delivery.checkpoints import listing
from orbiter_mlflow.delivery.checkpoints.manifest import is_better, is_value
from orbiter_mlflow.delivery.journal_reader import Entry, read_entries
from orbiter_mlflow.delivery.records import Checkpoint, Close, Metrics, Record, Status


def metrics_at(journal: Path, step: int) -> Iterator[Metrics]:
    """The metrics of a training and its evaluations that were reported for a step."""
    holding = b'"step":%d,' % step  # as `encode` writes it
    for entry in read_entries(journal, kind=Metrics, holding=holding):
        if isinstance(entry.record, Metrics) and _is_of_training(entry.record):
            yield entry.record


def value_of(journal: Path, record: Checkpoint) -> float | None:
    """The latest value of a checkpoint's metric at its step; None without one."""
    value = None
    if record.metric is not None:
        for metrics in metrics_at(journal, record.step):
            value = metrics.values.get(record.metric, value)
    return value if is_value(value) else None


def is_step_over(journal: Path, entry: Entry, record: Checkpoint) -> bool:
    """Whether no more metrics of a checkpoint's step are expected: something later came."""
    return any(_is_later(one.record, record.step) for one in read_entries(journal, entry.end))


def replaced(journal: Path, record: Checkpoint, value: float | None) -> bool:
    """Whether a later checkpoint of the journal is kept in the place of this one."""
    if record.keep == "all":
        return False
    for entry in read_entries(journal, kind=Checkpoint):
        later = entry.record
        if not isinstance(later, Checkpoint) or later.time <= record.time:
            continue
        better = record.keep == "last" or is_better(value_of(journal, later), value, record.higher)
        if better and listing.is_there(journal, later):
            return True
    return False


def _is_later(record: Record | None, step: int) -> bool:
    if isinstance(record, Metrics):
        return record.step != step and _is_of_training(record)
    ended = isinstance(record, Status) and record.end_time is not None
    return ended or isinstance(record, Checkpoint | Close)


def _is_of_training(metrics: Metrics) -> bool:
    return any(names.is_train_key(key) or names.is_eval_key(key) for key in metrics.values)
