"""The end of a run whose process died without ending it: when, in which phase, and its tags.

All of it is read from the journal, so `sync` gives the same answer days later.
"""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from orbiter_mlflow import names
from orbiter_mlflow.delivery.journal_reader import last_lines, read_entries, read_head
from orbiter_mlflow.delivery.records import (
    Head,
    Metrics,
    Record,
    RunStatus,
    Status,
    Tags,
    Update,
    decode,
)
from orbiter_mlflow.delivery.resumption.rewriting import Resumption
from orbiter_mlflow.delivery.sink import Sink
from orbiter_mlflow.errors import DamagedLineError
from orbiter_mlflow.text.clock import utc


def left_running(head: Head, status: RunStatus | None) -> bool:
    """Whether the death of a writer ends its run.

    Args:
        head: of the writer's journal.
        status: the last status that the journal holds; None where it holds none.
    """
    if status is None:  # other processes may write to a run that an MLflow client only attached to
        return head.makes_run or not head.as_written
    return status == "RUNNING"


def report(sink: Sink, run_id: str, journal: Path, resumption: Resumption) -> bool:
    """Tell the store that a writer has died; False where its run has ended in another way.

    Raises:
        DeliveryError: the store is in trouble.
    """
    died = last_time(journal)
    if read_head(journal).as_written:
        # Another process may have ended the run, which this one had created for it.
        if sink.read_run(run_id).status in ("FINISHED", "FAILED"):
            return False
        sink.update_run(run_id, Update("KILLED", died))
        return True
    tags = death_tags(died, phase(entry.record for entry in read_entries(journal)))
    sink.log_batch(run_id, (), {}, resumption.rename_tags(tags))
    sink.set_status(run_id, Status("KILLED", died))
    return True


def retract(sink: Sink, run_id: str, head: Head, resumption: Resumption) -> None:
    """Undo `report`, as the writer lives after all.

    Raises:
        DeliveryError: the store is in trouble.
    """
    if head.as_written:
        sink.update_run(run_id, Update("RUNNING"))
        return
    untrue = dict.fromkeys((*names.ERROR, names.state_at("failed")), "")
    sink.delete_tags(run_id, resumption.rename_tags(untrue))
    sink.set_status(run_id, Status("RUNNING"))


def last_time(path: Path) -> int:
    """The last time the writer is known to have lived, in milliseconds since the epoch.

    It is the time of the last record that has one. Where the end of the journal has none, it is the
    file's own time, which is wrong for a copy. The times in a journal of MLflow's clients are their
    users', so they count only between the start and the file's own time.

    Raises:
        OSError: the file cannot be read.
    """
    head = read_head(path)
    last = int(path.stat().st_mtime * 1000)
    for line in reversed(last_lines(path)):
        with suppress(DamagedLineError):
            record = decode(line)
            if isinstance(record, Metrics):
                if not head.as_written or head.start_time <= record.time <= last:
                    return record.time
            elif isinstance(record, Head) and not head.as_written:
                return record.start_time
    return max(last, head.start_time) if head.as_written else last


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
