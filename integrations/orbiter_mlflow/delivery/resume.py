"""Begins a life of a run that exists, once those before it that lie in the same spool are told.

Which life it is gets written before anything else of it. A drain that dies at any point here is
followed by one that finds the same life, or begins it in the same way.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from orbiter_mlflow import names
from orbiter_mlflow.delivery import presence, resumption, spool
from orbiter_mlflow.delivery.journal import read, read_head
from orbiter_mlflow.delivery.records import Head, Params, Status
from orbiter_mlflow.delivery.resumption import Changes, Earlier, Life
from orbiter_mlflow.delivery.sink import Sink
from orbiter_mlflow.delivery.trust import is_ours


def begun(journal: Path, head: Head, earlier: Earlier) -> Life | None:
    """The life that a journal has begun in its run already, as far as it has got."""
    life = resumption.begun(earlier, head.uid)
    if life is None:
        return None
    for entry in read(journal):
        life = life.reaching(entry.record)
        if life.shift is not None:
            break
    return life


def begin(sink: Sink, run_id: str, head: Head, earlier: Earlier) -> Life:
    """Begin the next life of a run; `begun` finds it from then on."""
    life = resumption.following(earlier)
    sink.set_status(run_id, Status("RUNNING"))
    past = resumption.past_errors(earlier, life.number - 1)
    if past:  # who looks for runs that failed must not find one that then ends well
        sink.log_batch(run_id, (), {}, past)
        sink.delete_tags(run_id, names.ERROR)
    sink.log_batch(run_id, (), {}, life.tag(head.uid))
    return life


def config_changes(run: Earlier, journal: Path, end: int) -> Changes:
    """What differs between the config of a run and the one that a journal holds before `end`."""
    params: dict[str, str] = {}
    for entry in read(journal):
        if entry.end > end:
            break
        if isinstance(entry.record, Params):
            params |= entry.record.values
    return resumption.config_changes(run, params)


class Predecessors:
    """The journals of earlier lives that lie beside a journal.

    Delivered after it, their points would stand in the middle of its own, and their end undo its
    state and status.
    """

    def __init__(self, journal: Path) -> None:
        self._folder = journal.parent
        self._sizes: dict[Path, int] = {}

    def unfinished(self, head: Head, run_id: str, earlier: Earlier) -> Iterator[tuple[Path, bool]]:
        """Those that are not all in the store, oldest first, and whether their writer is gone.

        Of a writer that goes on only what it had written at the first look is waited for.
        """
        uids = resumption.uids(earlier)
        for journal in filter(is_ours, spool.journals(self._folder)):
            with contextlib.suppress(OSError, ValueError):  # delivered and removed; no journal
                theirs, ack = read_head(journal), spool.read_ack(journal)
                of_this_run = theirs.uid in uids or run_id in (theirs.run_id, ack.run_id)
                older = (theirs.start_time, theirs.uid) < (head.start_time, head.uid)
                if not of_this_run or not older or ack.closed:
                    continue
                gone = presence.is_over(journal, theirs.writer)
                size = self._sizes.setdefault(journal, journal.stat().st_size)
                if gone or ack.offset < size:
                    yield journal, gone
