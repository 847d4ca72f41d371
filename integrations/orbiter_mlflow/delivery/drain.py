"""Delivers one journal into the tracking store, exactly once, whoever hosts it.

The same drain serves the live thread or process, `sync`, and the recovery after a crash. It does
not wait: `run` delivers what is there, or notes what stopped it and when to come back.
"""

import contextlib
import logging
import os
import random
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from orbiter_mlflow import names
from orbiter_mlflow.delivery import backoff, described, lives, resume, spool
from orbiter_mlflow.delivery.batches import Batch, pack
from orbiter_mlflow.delivery.errors import DeliveryError, HeldError, RejectedError, TransientError
from orbiter_mlflow.delivery.journal import Entry, last_time, read, read_head
from orbiter_mlflow.delivery.protocol import Sink
from orbiter_mlflow.delivery.records import (
    Artifact,
    Close,
    Dataset,
    Head,
    Status,
    Tags,
    split,
)

_logger = logging.getLogger(__name__)

PERMANENT_AFTER = 5
"""Answers of 5xx to one batch, in a row, after which its content may be the cause."""

HELD_RETRY = 60.0
"""Seconds between attempts while a person has to act: a password may be put right any time."""

HURRIED_RETRY = 1.0
"""Seconds between attempts, at most, while somebody waits for the delivery."""


class Drain:
    """The delivery of one journal.

    Args:
        journal: the file; its ack is read, so a drain goes on where an earlier one stopped.
        open_sink: gives the store for a head; may be slow, may raise a `DeliveryError`.
        clock: seconds, monotonic.
        rng: the jitter of the waits.
        told: hears of each step.

    Attributes:
        ack: how far it is delivered, as last written.
        not_before: the clock's time before which another `run` would be too early.
    """

    def __init__(
        self,
        journal: Path,
        open_sink: Callable[[Head], Sink],
        *,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        told: Callable[[spool.Ack], None] = lambda ack: None,
    ) -> None:
        self.journal = journal
        self._written = spool.read_ack(journal)
        self.ack = replace(self._written, drainer=_me())
        self.not_before = 0.0
        self._open_sink = open_sink
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311  jitter, no secret
        self._told = told
        self._before = resume.Predecessors(journal)
        self._failures = 0
        self._failed_at = 0.0
        self._refusals = 0
        # A batch may have been committed whose ack was not written: ask the store first.
        self._unsure = self.ack.run_id is not None

    def run(self) -> bool:
        """Deliver what the journal holds now; True where all of that is in the store.

        Never raises: what stopped it stands in `ack.problem`.
        """
        return self._attempt(self._deliver)

    def abandon(self) -> bool:
        """End a run whose writer died without a word, once all of its journal is delivered."""
        return self._attempt(self._deliver) and self._attempt(self._end)

    def hurry(self) -> None:
        """Somebody waits: try again soon, however long the store has been in trouble."""
        self.not_before = min(self.not_before, self._failed_at + HURRIED_RETRY)

    def _attempt(self, action: Callable[[], None]) -> bool:
        try:
            action()
            if self.ack.problem:
                self._write(problem="", held=False)
        except (DeliveryError, OSError, ValueError) as error:
            held = not isinstance(error, TransientError)
            self._unsure = self.ack.run_id is not None
            self._failures += 1
            self._failed_at = self._clock()
            wait = HELD_RETRY if held else backoff.delay(self._failures, self._rng)
            self.not_before = self._failed_at + wait
            with contextlib.suppress(OSError):  # the disk of the spool may be what is full
                self._write(problem=str(error) or type(error).__name__, held=held)
            return False
        self._failures = 0
        return True

    # -- one delivery --------------------------------------------------------------------------

    def _deliver(self) -> None:
        head = read_head(self.journal)
        if self.ack.offset >= self.journal.stat().st_size and self.ack.run_id is not None:
            return
        sink = self._open_sink(head)
        run_id = self.ack.run_id or self._make_run(sink, head)
        if self._unsure:
            self._ask_how_far(sink, head, run_id)
        for item in pack(self._entries(sink, run_id)):
            if isinstance(item, Batch):
                self._send(sink, head, run_id, item)
            else:
                self._act(sink, head, run_id, item)
                self._write(offset=item.end)

    def _make_run(self, sink: Sink, head: Head) -> str:
        if head.run_id is not None:
            return self._resume(sink, head, head.run_id)
        self._unsure = self.ack.creating  # a run that is found may hold some of the journal
        found: Sequence[str] = ()
        if self.ack.creating:
            found = sink.find_runs(head)
            self._write(twins=self.ack.twins or len(found) != 1)
        else:
            self._write(creating=True)
        run_id = found[0] if found else sink.create_run(head)
        self._write(run_id=run_id, creating=False)
        return run_id

    def _resume(self, sink: Sink, head: Head, run_id: str) -> str:
        earlier = sink.read_run(run_id)
        life = resume.begun(self.journal, head, earlier)
        self._unsure = life is not None
        if life is None:
            for journal, orphaned in self._before.unfinished(head, run_id, earlier):
                self._deliver_first(sink, journal, orphaned)
                earlier = sink.read_run(run_id)
            life = resume.begin(sink, run_id, head, earlier)
        self._write(run_id=run_id, life=life)
        return run_id

    def _deliver_first(self, sink: Sink, journal: Path, orphaned: bool) -> None:
        fd = spool.take(journal)
        if fd is None:
            raise TransientError(f"an earlier part of this run is being delivered: {journal}")
        try:
            drain = Drain(journal, lambda _: sink)
            if not (drain.abandon() if orphaned else drain.run()):
                kind = HeldError if drain.ack.held else TransientError
                raise kind(f"{drain.ack.problem} (an earlier part of this run: {journal})")
            if drain.ack.closed and not read_head(journal).keep:
                spool.remove(journal)
        finally:
            os.close(fd)

    def _entries(self, sink: Sink, run_id: str) -> Iterator[Entry]:
        """What is not delivered, as it is told in this life of the run."""
        entries = read(self.journal, self.ack.offset)
        if self.ack.life.is_plain:
            yield from entries
            return
        for entry in entries:
            life = self.ack.life.reaching(entry.record)
            # Kept before a point is sent, so that whoever sends it again moves it as far.
            if life is not self.ack.life:
                self._write(life=life)
            record = life.told(entry.record)
            if isinstance(record, Tags) and life.tells_config(entry.record):
                changes = resume.config_changes(sink.read_run(run_id), self.journal, entry.end)
                self._write(kept=lives.changes_text(changes, life.number))
                record = Tags(record.values | lives.changes_tag(changes, life.number))
            yield replace(entry, record=record)

    def _ask_how_far(self, sink: Sink, head: Head, run_id: str) -> None:
        uid, _, told = sink.delivered(run_id).partition(":")
        offset = int(told) if uid == head.uid and told.isdecimal() else 0
        self._write(offset=max(offset, self.ack.offset), overdue=True)
        self._unsure = False

    def _send(self, sink: Sink, head: Head, run_id: str, batch: Batch) -> None:
        described.fill_in(sink, run_id, batch.tags)
        try:
            sink.log_batch(run_id, batch.points, batch.params, batch.tags | _mark(head, batch.end))
        except (RejectedError, TransientError) as error:
            self._require_refusal(sink, head, run_id, error, after=PERMANENT_AFTER)
            self._isolate(sink, head, run_id, batch, error)
        self._refusals = 0
        self._unsure = False
        self._failures = 0
        self._write(offset=batch.end, problem="", held=False)

    def _require_refusal(
        self, sink: Sink, head: Head, run_id: str, error: DeliveryError, *, after: int = 0
    ) -> None:
        """Return where the store will never take this content; raise `error` where it may.

        A 5xx is the content's fault only if it has come `after` times in a row, and the store takes
        a harmless write in between: a database that is read-only for a while answers reads.
        """
        if isinstance(error, TransientError):
            self._unsure = True
            self._refusals += error.answered
            if not error.answered or self._refusals < after:
                raise error
            sink.log_batch(run_id, (), {}, _mark(head, self.ack.offset))

    def _isolate(
        self, sink: Sink, head: Head, run_id: str, batch: Batch, error: DeliveryError
    ) -> None:
        """Deliver all of a refused batch but the entries that are to blame."""
        bad = list(self._culprits(sink, head, run_id, batch, error))
        self._quarantine(sink, run_id, bad)
        sink.log_batch(run_id, (), {}, _mark(head, batch.end))

    def _culprits(
        self, sink: Sink, head: Head, run_id: str, batch: Batch, error: DeliveryError
    ) -> Iterator[tuple[dict[str, object], DeliveryError]]:
        """Deliver a refused batch in ever smaller parts; gives the single entries refused."""
        if len(batch) <= 1:
            points = [point._asdict() for point in batch.points]
            yield {"metrics": points, "params": batch.params, "tags": batch.tags}, error
            return
        for part in batch.parts():
            try:
                sink.log_batch(run_id, part.points, part.params, part.tags)
            except (RejectedError, TransientError) as again:
                self._require_refusal(sink, head, run_id, again)
                yield from self._culprits(sink, head, run_id, part, again)

    def _quarantine(
        self, sink: Sink, run_id: str, bad: Sequence[tuple[dict[str, object], DeliveryError]]
    ) -> None:
        if not bad:
            return
        count = self.ack.quarantined + len(bad)
        for entry, reason in bad:
            spool.quarantine(self.journal, entry, str(reason))
        _logger.warning(
            "MLflow refused %d entries of run %s for good (%s): kept in %s",
            len(bad),
            run_id,
            bad[0][1],
            self.journal.with_suffix(".quarantine"),
        )
        sink.log_batch(run_id, (), {}, {names.QUARANTINED: str(count)})
        self._write(quarantined=count)

    def _act(self, sink: Sink, head: Head, run_id: str, entry: Entry) -> None:
        try:
            self._perform(sink, head, run_id, entry)
        except (RejectedError, TransientError) as error:
            self._require_refusal(sink, head, run_id, error, after=PERMANENT_AFTER)
            record: dict[str, object] = asdict(entry.record) if entry.record else {}
            self._quarantine(sink, run_id, [(record, error)])
        self._refusals = 0

    def _perform(self, sink: Sink, head: Head, run_id: str, entry: Entry) -> None:
        record = entry.record
        if isinstance(record, Dataset):
            sink.log_dataset(run_id, record)
        elif isinstance(record, Artifact):
            file = spool.artifact_path(self.journal, record)
            sink.log_artifact(run_id, file, record)
            file.unlink(missing_ok=True)
        elif isinstance(record, Status):
            self._set_status(sink, head, run_id, record)
        elif isinstance(record, Close):
            self._settle(sink, head, run_id)
            self._write(closed=True)
        elif record is None:
            count = self.ack.damaged + 1
            sink.log_batch(run_id, (), {}, {names.DAMAGED: str(count)})
            spool.quarantine(self.journal, {"end": entry.end}, f"damaged line: {entry.damage}")
            self._write(damaged=count)

    def _set_status(self, sink: Sink, head: Head, run_id: str, status: Status) -> None:
        if status.end_time is not None:
            self._settle(sink, head, run_id)
        sink.set_status(run_id, status)
        self._write(status=status.status)

    def _settle(self, sink: Sink, head: Head, run_id: str) -> None:
        """Put right what requests may have done since that were given up, but carried out late."""
        if self.ack.twins:
            for twin in sink.find_runs(head):
                if twin != run_id:
                    sink.delete_run(twin)
        if self.ack.overdue:  # its tags may stand where later ones should
            tags: dict[str, str] = {}
            for entry in read(self.journal):
                if entry.end <= self.ack.offset and isinstance(entry.record, Tags):
                    tags |= self.ack.life.tags(entry.record.values)
            for part in split(Tags(tags)):
                assert isinstance(part, Tags)  # noqa: S101  as `split` keeps the kind
                batch = Batch(tags=part.values, end=self.ack.offset)
                self._send(sink, head, run_id, batch)

    def _end(self) -> None:
        if self.ack.closed:
            return
        if self.ack.status in (None, "RUNNING"):
            self._tell_death()
        self._write(closed=True)

    def _tell_death(self) -> None:
        head = read_head(self.journal)
        sink, run_id = self._open_sink(head), self.ack.run_id
        assert run_id is not None  # noqa: S101  `run` has made it
        # The last record is as near to the death as can be known, also for a `sync` days later.
        died = last_time(self.journal)
        self._settle(sink, head, run_id)
        sink.log_batch(run_id, (), {}, self.ack.life.tags(lives.death_tags(died)))
        sink.set_status(run_id, Status("KILLED", died))
        self._write(status="KILLED")

    def _write(self, **changes: object) -> None:
        fresh = replace(self.ack, **changes)  # type: ignore[arg-type]  # names checked by tests
        if fresh != self._written:
            spool.write_ack(self.journal, fresh)
            self.ack = self._written = fresh
            self._told(fresh)


def _mark(head: Head, offset: int) -> dict[str, str]:
    """The tag that tells how far a journal is delivered; `_ask_how_far` reads it."""
    return {names.DELIVERED: f"{head.uid}:{offset}"}


def _me() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"
