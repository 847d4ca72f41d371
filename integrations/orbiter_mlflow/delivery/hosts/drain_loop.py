"""Drain many journals in turn: the loop that every host runs, in a thread or a process."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from orbiter_mlflow.delivery import retry, spool
from orbiter_mlflow.delivery.ack import Ack, read_ack, read_lane_ack
from orbiter_mlflow.delivery.drain import Drain
from orbiter_mlflow.delivery.journal_reader import read_head
from orbiter_mlflow.delivery.records import SIDE_LANES
from orbiter_mlflow.delivery.side_lane import SideLane, side_lanes
from orbiter_mlflow.delivery.sink import Sink

_logger = logging.getLogger(__name__)


def open_mlflow(tracking_uri: str) -> Sink:
    """Open the store behind a tracking URI of MLflow."""
    # Imported where delivery runs, not where it is set up: importing mlflow takes seconds.
    from orbiter_mlflow.delivery.mlflow_sink import MLflowSink

    return MLflowSink(tracking_uri)


@dataclass(slots=True)
class _Job:
    """The delivery of one journal."""

    journal: Path
    tracking_uri: str
    orphaned: bool
    begin: float = 0.0
    """Not before this time, by `time.monotonic`."""
    fd: int | None = None
    drain: Drain | None = None
    lanes: list[SideLane] = field(default_factory=list)
    busy: dict[str, threading.Lock] = field(
        default_factory=lambda: {lane: threading.Lock() for lane in SIDE_LANES}
    )
    """Held while a lane is worked on, so that the journal is not given back meanwhile."""
    delivered: int = -1
    """Size of the journal when all of it was last in the store."""

    def lanes_finished(self, size: int) -> bool:
        """Whether the side lanes have finished with a journal of `size` bytes."""
        return all(lane.finished(size) for lane in self.lanes)


class DrainLoop:
    """The journals under delivery.

    The caller's thread delivers the main lane; datasets and artifacts have a thread each, so that a
    large upload, or a store that hangs, holds up only its own lane.

    Args:
        open_sink: makes the sink of a tracking URI; each thread calls it once for each URI.
    """

    def __init__(self, open_sink: Callable[[str], Sink]) -> None:
        self._open_sink = open_sink
        self._sinks: dict[tuple[int, str], Sink] = {}
        self._jobs: dict[Path, _Job] = {}
        self._wake: dict[str, threading.Event] = {}
        self._called: dict[str, dict[Path, _Job]] = {}
        self._ended = False

    def add(self, journal: Path, tracking_uri: str, *, orphaned: bool = False) -> None:
        """Deliver a journal from now on, until it is closed.

        Args:
            journal: the file.
            tracking_uri: the store, with credentials if it needs them.
            orphaned: the writer is gone, so a run without an end was killed.
        """
        if journal not in self._jobs:
            self._jobs[journal] = _Job(journal, tracking_uri, orphaned)

    def orphan(self, journal: Path) -> None:
        """Note that the writer of a journal is gone."""
        if (job := self._jobs.get(journal)) is not None:
            job.orphaned = True

    def release(self, journal: Path) -> None:
        """Leave a journal to another process."""
        if (job := self._jobs.get(journal)) is not None:
            self._drop(job)

    def turn(self) -> None:
        """Run each journal that has something to deliver once."""
        for job in list(self._jobs.values()):
            try:
                self._serve(job)
            except FileNotFoundError:  # `sync` has delivered and removed it
                self._drop(job)
            except OSError as error:  # trouble of this machine: no descriptor is free, say
                _logger.warning("delivery of %s pauses: %s", job.journal, error)
                self._drop(job)
                begin = time.monotonic() + retry.PAUSE
                self._jobs[job.journal] = replace(job, fd=None, drain=None, lanes=[], begin=begin)
            except Exception:  # one journal must not stop the delivery of others
                _logger.exception("delivery of %s has stopped", job.journal)
                self._drop(job)

    def wake(self) -> None:
        """Retry journals in trouble soon, because somebody waits."""
        for job in list(self._jobs.values()):
            if job.drain is not None:
                job.drain.wake()
            for lane in job.lanes:
                lane.wake()
            self._call_lanes(job)

    def reopen_stores(self) -> None:
        """Open the stores anew and retry soon, because credentials may have changed."""
        self.close_stores()
        self.wake()

    def knows(self, journal: Path) -> bool:
        """Whether a journal is under delivery here."""
        return journal in self._jobs

    def journals(self) -> list[Path]:
        """The journals under delivery."""
        return list(self._jobs)

    def has_orphans(self) -> bool:
        """Whether the writer of a journal is known to be gone, and no person must fix anything."""
        return any(job.orphaned and not _is_stuck(job) for job in list(self._jobs.values()))

    def close_stores(self) -> None:
        """Let go of the stores; the next journal opens its own anew."""
        self._sinks.clear()

    def end(self) -> None:
        """End the threads of the lanes. There are no journals, and none will come."""
        self._ended = True
        for wake in self._wake.values():
            wake.set()

    def open(self) -> list[Path]:
        """The journals that are not completely delivered, except those that a person must fix."""
        return [job.journal for job in list(self._jobs.values()) if not _is_stuck(job)]

    def clears_up(self) -> bool:
        """Whether a completely delivered journal is about to be removed."""
        return any(
            job.drain is not None and job.drain.ack.settled and job.lanes_finished(job.delivered)
            for job in list(self._jobs.values())
        )

    def forget(self) -> None:
        """Give all journals back in a forked child, which has none of the delivering threads."""
        for job in self._jobs.values():
            if job.fd is not None:
                spool.give_back(job.fd)
        self._jobs.clear()

    def _serve(self, job: _Job) -> None:
        if time.monotonic() < job.begin:
            return
        size = job.journal.stat().st_size
        if job.fd is None and not (_is_due(job) and self._take(job)):
            return  # `sync` has it, or may take it: only a person can help
        self._advance(job, size)
        if _is_stuck(job) and not _is_due(job):
            _give_back(job)

    def _take(self, job: _Job) -> bool:
        """Take the journal, unless somebody else has it at the moment."""
        fd = spool.take(job.journal)
        if fd is None:
            return False
        try:
            if job.drain is None or _has_changed(job):  # somebody else had it, and got further
                job.drain = Drain(job.journal, lambda _: self._sink(job.tracking_uri))
                job.lanes = side_lanes(job.journal, lambda _: self._sink(job.tracking_uri))
                job.delivered = -1
        except BaseException:
            spool.give_back(fd)
            raise
        job.fd = fd  # from here on the threads of the lanes work on it
        return True

    def _advance(self, job: _Job, size: int) -> None:
        drain = job.drain
        assert drain is not None  # noqa: S101  as `_take` has made it
        if size == job.delivered and drain.ack.settled:
            if job.lanes_finished(size):
                self._clear_up(job)
            return
        waits_for_writer = not job.orphaned or drain.ack.closed
        if size == job.delivered and waits_for_writer and drain.next_retry() != 0.0:
            return
        if time.monotonic() < drain.not_before:
            return
        if drain.abandon() if job.orphaned else drain.run():
            job.delivered = size
        self._call_lanes(job)

    def _clear_up(self, job: _Job) -> None:
        head = read_head(job.journal)
        with _at_rest(job) as at_rest:
            if not at_rest:  # a lane at work on the journal would write its ack again
                return
            if not head.keep and spool.may_be_removed(job.journal, head.writer):
                spool.remove(job.journal)
            self._jobs.pop(job.journal, None)
            _close(job)

    def _sink(self, tracking_uri: str) -> Sink:
        key = (threading.get_ident(), tracking_uri)
        sink = self._sinks.get(key)
        if sink is None:
            sink = self._sinks[key] = self._open_sink(tracking_uri)
        return sink

    def _call_lanes(self, job: _Job) -> None:
        """Have the lanes look at a journal now, not with all others a little later."""
        for lane in SIDE_LANES:
            if lane not in self._wake:
                self._called[lane], self._wake[lane] = {}, threading.Event()
                threading.Thread(
                    target=self._serve_lane, args=(lane,), name=f"orbiter-{lane}", daemon=True
                ).start()
            self._called[lane][job.journal] = job
            self._wake[lane].set()

    def _serve_lane(self, name: str) -> None:
        """The loop of the thread of one lane."""
        called, wake, next_round = self._called[name], self._wake[name], 0.0
        while not self._ended:
            wake.wait(retry.IDLE)
            wake.clear()
            if time.monotonic() >= next_round:  # what failed may be tried again
                called.update(self._jobs.copy())
                next_round = time.monotonic() + retry.IDLE
            for job in list(called.values()):
                called.pop(job.journal, None)  # first: it may be called again meanwhile
                self._run_lane(name, job)

    def _run_lane(self, name: str, job: _Job) -> None:
        with job.busy[name]:
            for lane in job.lanes:
                if lane.name == name and job.fd is not None and job.drain is not None:
                    _run(lane, job.drain.ack)
        if self._jobs.get(job.journal) is not job:
            _give_back(job)

    def _drop(self, job: _Job) -> None:
        self._jobs.pop(job.journal, None)
        _give_back(job)


@contextlib.contextmanager
def _at_rest(job: _Job) -> Iterator[bool]:
    """Whether no lane is at work on the journal; if so, none begins inside the `with` block."""
    with contextlib.ExitStack() as held:
        for busy in job.busy.values():
            if not busy.acquire(blocking=False):
                yield False
                return
            held.callback(busy.release)
        yield True


def _give_back(job: _Job) -> None:
    """Give the journal back; if a lane is still at work, its thread does so afterwards."""
    with _at_rest(job) as at_rest:
        if at_rest:
            _close(job)


def _close(job: _Job) -> None:
    if job.fd is not None:
        spool.give_back(job.fd)
        job.fd = None


def _run(lane: SideLane, main: Ack) -> None:
    try:
        if time.monotonic() >= lane.not_before:
            lane.run(main)
    except Exception:  # one journal must not stop the delivery of others
        _logger.exception("delivery of the %s of %s has failed", lane.name, lane.journal)


def _is_due(job: _Job) -> bool:
    """Whether a held journal should be tried again; True also for one that is not held."""
    if job.drain is None:
        return True
    held = [lane.not_before for lane in job.lanes if lane.ack.held]
    if job.drain.ack.held:
        held.append(job.drain.not_before)
    return not held or min(held) <= time.monotonic()


def _has_changed(job: _Job) -> bool:
    assert job.drain is not None  # noqa: S101  asked of a job that was worked on
    lanes = any(read_lane_ack(job.journal, lane.name) != lane.ack for lane in job.lanes)
    return lanes or read_ack(job.journal) != job.drain.ack


def _is_stuck(job: _Job) -> bool:
    """Whether everything that waits does so until a person acts."""
    if job.drain is None:
        return False
    if not job.drain.ack.settled:
        return job.drain.ack.held
    waiting = [lane for lane in job.lanes if not lane.finished(job.delivered)]
    return bool(waiting) and all(lane.given_up for lane in waiting)
