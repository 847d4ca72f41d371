"""Deliver one journal into the tracking store, exactly once, whichever host runs it.

The same drain serves live delivery in a thread or process, `sync`, and recovery after a crash. It
does not wait: `run` delivers what is there, or notes what stopped it and when to try again.
Datasets and artifacts have lanes of their own (`side_lane.py`), so nothing here waits for them.
"""

import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from orbiter_mlflow import names
from orbiter_mlflow.delivery import description_guard, killed_run, late_effects, retry, spool
from orbiter_mlflow.delivery.ack import (
    Ack,
    LaneAck,
    RefusedEntry,
    ack_path,
    mark,
    marked,
    read_ack,
    write_ack,
    write_lane_ack,
)
from orbiter_mlflow.delivery.batches import Batch, pack
from orbiter_mlflow.delivery.files import disk_sync
from orbiter_mlflow.delivery.journal_reader import Entry, read_entries, read_head
from orbiter_mlflow.delivery.lane import Lane
from orbiter_mlflow.delivery.records import (
    ENDED,
    SIDE_LANES,
    Close,
    Head,
    Status,
    Tags,
    Update,
)
from orbiter_mlflow.delivery.resumption import config_changes, starting
from orbiter_mlflow.delivery.side_lane import nothing_waits
from orbiter_mlflow.delivery.sink import Sink
from orbiter_mlflow.delivery.sweep_children import name_best
from orbiter_mlflow.errors import DeliveryError, HeldError, RejectedError, TransientError

_logger = logging.getLogger(__name__)


class Drain(Lane[Ack]):
    """The delivery of the metrics, params, tags and statuses of one journal; see `Lane`.

    Args:
        journal: the file; its ack is read, so a drain continues where an earlier one stopped.
        open_sink: opens the store for a head; may be slow, may raise a `DeliveryError`.
        on_progress: called with the new `Ack` after each step.
    """

    def __init__(
        self,
        journal: Path,
        open_sink: Callable[[Head], Sink],
        *,
        on_progress: Callable[[Ack], None] = lambda ack: None,
        **how: Any,
    ) -> None:
        before = read_ack(journal)
        if before.offset and not before.lanes:  # of a version that had one lane for everything
            for lane in SIDE_LANES:
                write_lane_ack(journal, lane, LaneAck(before.offset))
        super().__init__(journal, before, **how)
        self.ack = replace(before, drainer=_me(), lanes=True)
        self._open_sink = open_sink
        self._on_progress = on_progress
        self._earlier = starting.EarlierJournals(journal)
        self._failed_batches = 0
        self._settled = False
        self._is_new = False
        # A batch may have been committed whose ack was not written: ask the store first.
        self._unsure = self.ack.run_id is not None
        self._made_by_client = self.ack.run_id is not None and before.drainer == ""

    def run(self) -> bool:
        """Deliver what the journal holds now; True once all of it is in the store or retried.

        Never raises: the reason for stopping is in `ack.problem`.
        """
        return self._attempt(self._deliver)

    def abandon(self) -> bool:
        """Deliver the journal of a dead writer, and end the run if the writer did not."""
        return self._attempt(self._deliver) and self._attempt(self._end)

    def _attempt(self, action: Callable[[], None]) -> bool:
        done = super()._attempt(action)
        if not done:
            self._unsure = self.ack.run_id is not None
            self._settled = self._is_new = False
        return done

    # -- one delivery --------------------------------------------------------------------------

    def _deliver(self) -> None:
        head = self._head = read_head(self.journal)
        grown = self.ack.offset < self.journal.stat().st_size
        if not grown and not self.ack.aside and self.ack.run_id is not None:
            return
        sink = self._sink = self._open_sink(head)
        run_id = self._run_id = self.ack.run_id or self._make_run(sink, head)
        if head.as_written and self._made_by_client:  # and no drain has sent anything yet
            self._unsure = self._made_by_client = False
        self._write()  # before anything is sent, so that later drains know
        if self._unsure:
            self._read_mark()
        if grown and self.ack.closed:
            self._reopen()
        for item in pack(self._entries(sink, run_id)):
            if isinstance(item, Batch):
                self._send(item)
            else:
                self._apply(item)
                self._write(offset=item.end)
        self._retry_aside()

    def _make_run(self, sink: Sink, head: Head) -> str:
        if head.run_uid is not None:
            return self._attach(sink, head, self._run_of(sink, head.run_uid))
        if head.run_id is not None:
            attach = self._attach if head.as_written else self._resume
            return attach(sink, head, head.run_id)
        if head.parent_uid is not None:
            head = replace(head, parent_run_id=self._run_of(sink, head.parent_uid))
        found: Sequence[str] = ()
        if self.ack.creating:
            found = sink.find_runs(head)
        else:
            self._write(creating=True)
        self._unsure = bool(found)  # such a run may hold some of the journal
        if found:
            self._write(run_id=found[0], creating=False)
            return found[0]
        return self._create(sink, head)

    def _create(self, sink: Sink, head: Head) -> str:
        refused: list[tuple[dict[str, Any], DeliveryError]] = []
        try:
            run_id = sink.create_run(head)
        except RejectedError as error:
            bare, tags = head.without_refusable_tags()
            if not tags:
                raise
            run_id = sink.create_run(bare)  # the others are sent, and perhaps quarantined, alone
            refused = [(Batch(tags={key: text}).entries(), error) for key, text in tags.items()]
        self._put_aside(refused, run_id=run_id, creating=False)
        self._is_new = True
        return run_id

    def _run_of(self, sink: Sink, uid: str) -> str:
        """The id of the run that the journal `uid` creates, which is done first if need be."""
        return self._earlier.run_of(uid, sink, lambda one: self._deliver_first(sink, one, False))

    def _attach(self, sink: Sink, head: Head, run_id: str) -> str:
        """Write to an existing run as it is, after the earlier journals of that run."""
        run = sink.read_run(run_id)
        for journal, orphaned in self._earlier.undelivered(head, run_id, run):
            self._deliver_first(sink, journal, orphaned)
        self._unsure = self.ack.creating  # an ack that was cut short
        self._write(run_id=run_id, creating=False)
        return run_id

    def _resume(self, sink: Sink, head: Head, run_id: str) -> str:
        run = sink.read_run(run_id)
        resumption = starting.find(self.journal, head, run)
        self._unsure = resumption is not None
        if resumption is None:
            for journal, orphaned in self._earlier.undelivered(head, run_id, run):
                self._deliver_first(sink, journal, orphaned)
                run = sink.read_run(run_id)
            resumption = starting.start(sink, run_id, head, run)
        self._write(run_id=run_id, resumption=resumption)
        return run_id

    def _deliver_first(self, sink: Sink, journal: Path, orphaned: bool) -> Ack:
        fd = spool.take(journal)
        if fd is None:
            raise TransientError(
                f"an earlier part of this run is being delivered: {journal}", soon=True
            )
        try:
            drain = Drain(journal, lambda _: sink)
            if not (drain.abandon() if orphaned else drain.run()):
                kind = HeldError if drain.ack.held else TransientError
                raise kind(f"{drain.ack.problem} (an earlier part of this run: {journal})")
            theirs = read_head(journal)
            removable = nothing_waits(journal) and spool.may_be_removed(journal, theirs.writer)
            if drain.ack.settled and removable and not theirs.keep:
                spool.remove(journal)
            return drain.ack
        finally:
            spool.give_back(fd)

    def _entries(self, sink: Sink, run_id: str) -> Iterator[Entry]:
        """The entries that are not delivered yet, rewritten for a resumed run."""
        entries = read_entries(self.journal, self.ack.offset)
        if self.ack.resumption.changes_nothing:
            yield from entries
            return
        for entry in entries:
            resumption = self.ack.resumption.advanced_by(entry.record)
            # Written before a point is sent, so that a second attempt shifts it by as much.
            if resumption is not self.ack.resumption:
                self._write(resumption=resumption)
                sink.log_batch(run_id, (), {}, resumption.tag(self._head.uid))
            record = resumption.rewrite(entry.record)
            if isinstance(record, Tags) and resumption.completes_config(entry.record):
                params = starting.params_before(self.journal, entry.end)
                changes = config_changes.config_changes(sink.read_run(run_id), params)
                number = resumption.number
                self._write(kept=config_changes.changes_text(changes, number))
                record = Tags(record.values | config_changes.changes_tag(changes, number))
            yield replace(entry, record=record)

    def _read_mark(self) -> None:
        """Read from the run how far the journal was delivered."""
        offset = marked(self._sink.read_run(self._run_id).tags, self._head.uid)
        self._write(offset=max(offset, self.ack.offset), overdue=True)
        self._unsure = False

    def _reopen(self) -> None:
        """Continue a run that was declared ended and whose journal has grown since."""
        if self.ack.died:
            killed_run.retract(self._sink, self._run_id, self._head, self.ack.resumption)
            self._write(died=False, status="RUNNING")
        self._write(closed=False)

    def _send(self, batch: Batch) -> None:
        if not batch:
            self._write(offset=batch.end)
            return
        self._settled = False
        if not self._head.as_written:
            description_guard.fill_in(self._sink, self._run_id, batch.tags, is_new=self._is_new)
        name_best(batch.tags, self._sink, self._head, self._earlier, self._run_of)
        refused: list[tuple[dict[str, Any], DeliveryError]] = []
        try:
            self._log(batch, batch.tags | mark(self._head.uid, batch.end))
        except (RejectedError, TransientError) as error:
            self._require_refused_batch(error)
            refused = list(self._split(batch, error))
        self._failed_batches = 0
        self._unsure = self._is_new = False
        self._failures = 0
        self._drop_older_tags(batch.tags)
        self._put_aside(refused, offset=batch.end, problem="", held=False)

    def _log(self, batch: Batch, tags: dict[str, str]) -> None:
        self._sink.log_batch(self._run_id, batch.points, batch.params, tags)

    def _require_refused_batch(self, error: DeliveryError) -> None:
        """Return if the batch should be split; raise `error` if the store is in trouble.

        An HTTP 500 is blamed on the content only after several in a row.
        """
        if isinstance(error, TransientError):
            self._unsure = True
            self._failed_batches += error.answered
            if self._failed_batches < retry.FAILED_BEFORE_SPLIT:
                raise error
        self._require_refusal(error)

    def _split(
        self, batch: Batch, error: DeliveryError
    ) -> Iterator[tuple[dict[str, Any], DeliveryError]]:
        """Deliver a refused batch by bisection; yield the single entries that are refused."""
        if len(batch) <= 1:
            yield batch.entries(), error
            return
        for part in batch.parts():
            try:
                self._log(part, part.tags)
            except (RejectedError, TransientError) as again:
                self._require_refusal(again)
                yield from self._split(part, again)

    def _write_something_harmless(self) -> None:
        self._log(Batch(), mark(self._head.uid, self.ack.offset))

    def _send_again(self, entry: dict[str, Any]) -> None:
        batch = Batch.of_entries(entry)
        self._log(batch, batch.tags)

    def _drop_older_tags(self, tags: Mapping[str, str]) -> None:
        """Drop retried tags that `tags` replaces: a late retry would overwrite the newer value."""
        aside = tuple(one for one in self.ack.aside if not one.entry["tags"].keys() & tags.keys())
        if len(aside) < len(self.ack.aside):
            self._write(aside=aside)

    def _quarantine(self, refused: RefusedEntry, rest: tuple[RefusedEntry, ...]) -> None:
        count = self.ack.quarantined + 1
        spool.quarantine(self.journal, refused.entry, refused.reason)
        _logger.warning(
            "MLflow refused an entry of run %s for good (%s): kept in %s",
            self._run_id,
            refused.reason,
            spool.quarantine_path(self.journal),
        )
        self._log(Batch(), {names.QUARANTINED: str(count)})
        self._write(quarantined=count, aside=rest)

    def _apply(self, entry: Entry) -> None:
        """Apply a record that is not sent in a batch."""
        record = entry.record
        if isinstance(record, Status):
            if record.end_time is not None:
                self._settle()
            self._sink.set_status(self._run_id, record)
            self._write(status=record.status)
        elif isinstance(record, Update):
            self._update(record)
        elif isinstance(record, Close):
            self._settle()
            self._write(closed=True)
        elif record is None:
            self._count_damage(entry)

    def _update(self, update: Update) -> None:
        if update.status in ENDED:
            self._settle()
        try:
            self._sink.update_run(self._run_id, update)
        except RejectedError as error:
            if update.name is None:
                raise
            self._require_refusal(error)
            # The name may be the reason. The tag means the same, and can be quarantined.
            self._sink.update_run(self._run_id, replace(update, name=None))
            name = Batch(tags={names.RUN_NAME: update.name})
            self._put_aside([(name.entries(), error)])
        self._write(status=update.status or self.ack.status)

    def _count_damage(self, entry: Entry) -> None:
        count = self.ack.damaged + 1
        self._log(Batch(), {names.DAMAGED: str(count)})
        spool.quarantine(self.journal, {"end": entry.end}, f"damaged line: {entry.damage}")
        self._write(damaged=count, offset=entry.end)

    def _settle(self) -> None:
        """Undo the late effects of requests that were given up but carried out after all.

        Once for a final status and the end of the journal after it.
        """
        if self._settled:
            return
        if self._head.makes_run:
            # Always: a proxy, or mlflow itself, may have repeated the request that created the run.
            late_effects.delete_twins(self._sink, self._head, self._run_id)
        if self.ack.overdue:  # its tags may have overwritten later ones
            shared = self._head.as_written
            present = self._sink.read_run(self._run_id) if shared else None
            end = self.ack.offset
            for tags in late_effects.latest_tags(self.journal, end, self.ack.resumption, present):
                self._send(Batch(tags=tags, end=end))
        self._settled = True

    def _end(self) -> None:
        if self.ack.closed:
            return
        self._head = read_head(self.journal)
        self._sink = self._open_sink(self._head)
        assert self.ack.run_id is not None  # noqa: S101  `run` has made it
        self._run_id = self.ack.run_id
        size = self.journal.stat().st_size
        if self.ack.offset < size:  # nobody will complete that line
            self._count_damage(Entry(None, size, "cut short by the death of its writer"))
        if killed_run.left_running(self._head, self.ack.status):
            self._settle()
            if killed_run.report(self._sink, self._run_id, self.journal, self.ack.resumption):
                self._write(status="KILLED", died=True)
        self._write(closed=True)

    def _save(self, ack: Ack) -> None:
        write_ack(self.journal, ack)
        creates = ack.creating and not self.ack.creating
        if creates or ack.aside != self.ack.aside:  # the store cannot tell this again
            disk_sync.sync_if_possible(ack_path(self.journal))
        if creates:  # so that a run in the store has a journal that ends it
            disk_sync.sync_if_possible(self.journal)
        self._on_progress(ack)


def _me() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"
