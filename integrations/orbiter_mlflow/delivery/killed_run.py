"""The end of a run whose process died without ending it: when, in which phase, and its tags.

All of it is read from the journal, so `sync` gives the same answer days later.
"""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from orbiter_mlflow import names
from orbiter_mlflow.delivery.journal_reader import last_lines
from orbiter_mlflow.delivery.records import Head, Metrics, Record, Tags, decode
from orbiter_mlflow.errors import DamagedLineError
from orbiter_mlflow.text.clock import utc


def last_time(path: Path) -> int:
    """The last time the writer is known to have lived, in milliseconds since the epoch.

    It is the time of the last record that has one. Where the end of the journal has none, it is the
    file's own time, which is wrong for a copy.

    Raises:
        OSError: the file cannot be read.
    """
    for line in reversed(last_lines(path)):
        with suppress(DamagedLineError):
            record = decode(line)
            if isinstance(record, Metrics):
                return record.time
            if isinstance(record, Head):
                return record.start_time
    return int(path.stat().st_mtime * 1000)


def phase(records: Iterable[Record | None]) -> str | None:
    """The phase in which the trainer died, `train` or `evaluate`; None between them."""
    validated = evaluated = False
    for record in records:
        if isinstance(record, Tags):
            state = record.values.get(names.STATE)
            if state == "training":
                return "train"
            validated = validated or state == "validated"
        elif isinstance(record, Metrics):
            evaluated = evaluated or any(map(names.is_eval_key, record.values))
    # A trainer that neither validated nor trained has a run because it began to evaluate.
    return "evaluate" if evaluated or not validated else None


def death_tags(died: int, phase: str | None) -> dict[str, str]:
    """The tags of a run whose process died at `died`, in milliseconds since the epoch."""
    return {
        names.STATE: "failed",
        names.state_at("failed"): utc(died),
        names.ERROR_TYPE: "ProcessDied",
        names.ERROR_MESSAGE: "the process ended without a word: killed or out of memory",
        **({} if phase is None else {names.ERROR_PHASE: phase}),
    }
