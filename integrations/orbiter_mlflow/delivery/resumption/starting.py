"""Start resuming a run, after the earlier journals of that run in the same spool are delivered.

The resumption is written to the run before any of its records. A drain that dies at any point is
followed by one that finds the same resumption, or starts it in the same way.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from orbiter_mlflow import names
from orbiter_mlflow.delivery import spool, writer_lock
from orbiter_mlflow.delivery.ack import Ack, read_ack
from orbiter_mlflow.delivery.journal_reader import read_entries, read_head
from orbiter_mlflow.delivery.records import Head, Params, Status
from orbiter_mlflow.delivery.resumption import rewriting
from orbiter_mlflow.delivery.resumption.rewriting import Resumption, RunContents
from orbiter_mlflow.delivery.sink import Sink
from orbiter_mlflow.errors import TransientError


def find(journal: Path, head: Head, run: RunContents) -> Resumption | None:
    """The resumption that a journal has started already, as far as its records determine it."""
    resumption = rewriting.find_resumption(run, head.uid)
    if resumption is None:
        return None
    for entry in read_entries(journal):
        resumption = resumption.advanced_by(entry.record)
        if resumption.shift is not None:
            break
    return resumption


def start(sink: Sink, run_id: str, head: Head, run: RunContents) -> Resumption:
    """Start the next resumption of a run; `find` finds it from then on.

    Raises:
        DeliveryError: the store is in trouble.
    """
    resumption = rewriting.next_resumption(run)
    sink.set_status(run_id, Status("RUNNING"))
    past = rewriting.past_errors(run, resumption.number - 1)
    if past:  # a search for failed runs must not find one that then ends well
        sink.log_batch(run_id, (), {}, past)
        sink.delete_tags(run_id, names.ERROR)
    sink.log_batch(run_id, (), {}, resumption.tag(head.uid))
    return resumption


def params_before(journal: Path, end: int) -> dict[str, str]:
    """The params that a journal holds before the offset `end`."""
    params: dict[str, str] = {}
    for entry in read_entries(journal):
        if entry.end > end:
            break
        if isinstance(entry.record, Params):
            params |= entry.record.values
    return params


class EarlierJournals:
    """The journals of the same run that lie beside a journal and are older.

    Delivered after it, their points would land among its own, and their end undo its state and
    status.
    """

    def __init__(self, journal: Path) -> None:
        self._folder = journal.parent
        self._sizes: dict[Path, int] = {}

    def creating(self, uid: str) -> Path | None:
        """The journal `uid` that lies beside this one; None where it does not."""
        for journal in filter(spool.is_ours, spool.journals(self._folder, uid)):
            with contextlib.suppress(OSError, ValueError):  # delivered and removed; no journal
                if read_head(journal).uid == uid:
                    return journal
        return None

    def run_of(self, uid: str, sink: Sink, deliver: Callable[[Path], Ack]) -> str:
        """The id of the run that the journal `uid` creates.

        Args:
            uid: of the journal.
            sink: is asked if the journal does not lie beside this one.
            deliver: delivers a journal that does, if its run is not made yet.

        Raises:
            TransientError: the run does not exist yet.
            DeliveryError: the store is in trouble.
        """
        journal = self.creating(uid)
        if journal is None:
            found = sink.find_runs_anywhere(uid)
            if not found:
                raise TransientError(f"the run {uid} is not created yet, and its journal not here")
            return found[0]
        run_id = read_ack(journal).run_id
        if run_id is None:
            try:
                run_id = deliver(journal).run_id
            except TransientError:  # the run may exist, and only the rest of its journal wait
                run_id = read_ack(journal).run_id
                if run_id is None:
                    raise
        if run_id is None:  # removed while we looked
            raise TransientError(f"the run {uid} is being created", soon=True)
        return run_id

    def undelivered(self, head: Head, run_id: str, run: RunContents) -> Iterator[tuple[Path, bool]]:
        """Those that are not all in the store, oldest first, and whether their writer is gone.

        From a writer that goes on, only the records that it had written at the first look count.
        """
        uids = rewriting.journal_uids(run)
        for journal in filter(spool.is_ours, spool.journals(self._folder)):
            with contextlib.suppress(OSError, ValueError):  # delivered and removed; no journal
                theirs, ack = read_head(journal), read_ack(journal)
                of_this_run = not uids.isdisjoint((theirs.uid, theirs.run_uid)) or run_id in (
                    theirs.run_id,
                    ack.run_id,
                )
                older = (theirs.start_time, theirs.uid) < (head.start_time, head.uid)
                if not of_this_run or not older or ack.closed:
                    continue
                gone = writer_lock.is_dead(journal, theirs.writer)
                size = self._sizes.setdefault(journal, journal.stat().st_size)
                if gone or ack.offset < size:
                    yield journal, gone
