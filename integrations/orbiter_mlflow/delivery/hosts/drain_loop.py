"""Drains many journals in turn: what every host of delivery runs, in a thread or a process."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from orbiter_mlflow.delivery import spool
from orbiter_mlflow.delivery.drain import Drain
from orbiter_mlflow.delivery.journal import read_head
from orbiter_mlflow.delivery.side_lane import SideLane, side_lanes
from orbiter_mlflow.delivery.sink import Sink

_logger = logging.getLogger(__name__)

IDLE = 1.0
"""Seconds between looks at the journals, where nobody waits for them: what has come together by
then goes out in one request, which leaves more of a shared core to the training than five do."""


def open_mlflow(tracking_uri: str) -> Sink:
    """The store behind a tracking URI of MLflow's."""
    # Here, where delivery runs and not where it is set up: importing mlflow takes seconds.
    from orbiter_mlflow.delivery.mlflow_sink import MLflowSink

    return MLflowSink(tracking_uri)


@dataclass(slots=True)
class _Job:
    journal: Path
    tracking_uri: str
    orphaned: bool
    fd: int | None = None
    drain: Drain | None = None
    lanes: list[SideLane] = field(default_factory=list)
    busy: dict[str, threading.Lock] = field(
        default_factory=lambda: {lane: threading.Lock() for lane in spool.LANES}
    )
    """Held while a lane is worked on: the journal is not to be given back meanwhile."""
    delivered: int = -1
    """Size of the journal when all of it was last in the store."""

    def lanes_finished(self, size: int) -> bool:
        """Whether all datasets and artifacts of a journal of `size` bytes are dealt with."""
        return all(lane.finished(size) for lane in self.lanes)


class DrainLoop:
    """The journals under delivery: a thread for datasets and one for artifacts, beside the caller's
    own. A large upload, or a store that hangs, holds up its own kind only.

    Args:
        open_sink: makes the sink of a tracking URI; called once for each by each thread.
    """

    def __init__(self, open_sink: Callable[[str], Sink]) -> None:
        self._open_sink = open_sink
        self._sinks: dict[tuple[int, str], Sink] = {}
        self._jobs: dict[Path, _Job] = {}
        self._wake: dict[str, threading.Event] = {}

    def add(self, journal: Path, tracking_uri: str, *, orphaned: bool = False) -> None:
        """Deliver a journal from now on, until it is closed.

        Args:
            journal: the file.
            tracking_uri: where to; with credentials, where the store wants some.
            orphaned: its writer is gone, so that a run without an end was killed.
        """
        if journal not in self._jobs:
            self._jobs[journal] = _Job(journal, tracking_uri, orphaned)

    def orphan_all(self) -> None:
        """The writer of all journals is gone."""
        for job in self._jobs.values():
            job.orphaned = True
        self.wake()

    def turn(self) -> None:
        """Give each journal that has something to deliver one run."""
        for job in list(self._jobs.values()):
            try:
                self._serve(job)
            except FileNotFoundError:  # `sync` has delivered and removed it
                self._drop(job)
            except Exception:  # one journal must not stop the delivery of others
                _logger.exception("delivery of %s has stopped", job.journal)
                self._drop(job)

    def wake(self) -> None:
        """Somebody waits: what is in trouble is tried again soon."""
        for job in list(self._jobs.values()):
            if job.drain is not None:
                job.drain.wake()
            for lane in job.lanes:
                lane.wake()
        self._wake_lanes()

    def renew(self) -> None:
        """Credentials may have changed: open the stores anew, and try soon what is in trouble."""
        self._sinks.clear()
        self.wake()

    def knows(self, journal: Path) -> bool:
        """Whether a journal is under delivery here."""
        return journal in self._jobs

    def open(self) -> list[Path]:
        """The journals that are not delivered to their end, but those a person must see to."""
        return [job.journal for job in list(self._jobs.values()) if not _is_stuck(job)]

    def clears_up(self) -> bool:
        """Whether a journal is delivered to its end, and about to be removed."""
        return any(
            job.drain is not None and job.drain.ack.settled and job.lanes_finished(job.delivered)
            for job in list(self._jobs.values())
        )

    def let_go(self) -> None:
        """Give all journals back, in a forked child: it has none of the threads that deliver."""
        for job in self._jobs.values():
            if job.fd is not None:
                spool.give_back(job.fd)
        self._jobs.clear()

    def _serve(self, job: _Job) -> None:
        size = job.journal.stat().st_size
        if job.fd is None and not (_is_due(job) and self._take(job)):
            return  # `sync` has it, or may have it: only a person can help
        self._advance(job, size)
        if _is_stuck(job) and not _is_due(job):
            _give_back(job)

    def _take(self, job: _Job) -> bool:
        """Take the journal into our hands, where nobody else has it at the moment."""
        fd = spool.take(job.journal)
        if fd is None:
            return False
        if job.drain is None or _has_changed(job):  # somebody else had it, and got further
            job.drain = Drain(job.journal, lambda _: self._sink(job.tracking_uri))
            job.lanes = side_lanes(job.journal, lambda _: self._sink(job.tracking_uri))
            job.delivered = -1
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
        if size == job.delivered and waits_for_writer and drain.next_trial() != 0.0:
            return
        if time.monotonic() < drain.not_before:
            return
        if drain.abandon() if job.orphaned else drain.run():
            job.delivered = size
        self._wake_lanes()

    def _clear_up(self, job: _Job) -> None:
        head = read_head(job.journal)
        with _at_rest(job) as at_rest:
            if not at_rest:  # a lane that looks at the journal now would make its ack again
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

    def _wake_lanes(self) -> None:
        for lane in spool.LANES:
            if lane not in self._wake:
                self._wake[lane] = threading.Event()
                threading.Thread(
                    target=self._serve_lane, args=(lane,), name=f"orbiter-{lane}", daemon=True
                ).start()
            self._wake[lane].set()

    def _serve_lane(self, name: str) -> None:
        """The loop of the thread of one lane."""
        while True:
            self._wake[name].wait(IDLE)
            self._wake[name].clear()
            for job in list(self._jobs.values()):
                with job.busy[name]:
                    for lane in job.lanes:
                        if lane.name == name and job.fd is not None:
                            _run_lane(lane)
                if job.journal not in self._jobs:
                    _give_back(job)

    def _drop(self, job: _Job) -> None:
        self._jobs.pop(job.journal, None)
        _give_back(job)


@contextlib.contextmanager
def _at_rest(job: _Job) -> Iterator[bool]:
    """Whether no lane is at work on the journal; none begins within the `with` block then."""
    with contextlib.ExitStack() as held:
        for busy in job.busy.values():
            if not busy.acquire(blocking=False):
                yield False
                return
            held.callback(busy.release)
        yield True


def _give_back(job: _Job) -> None:
    """Let others have the journal; where a lane is still at work, its thread does so afterwards."""
    with _at_rest(job) as at_rest:
        if at_rest:
            _close(job)


def _close(job: _Job) -> None:
    if job.fd is not None:
        spool.give_back(job.fd)
        job.fd = None


def _run_lane(lane: SideLane) -> None:
    try:
        if time.monotonic() >= lane.not_before:
            lane.run()
    except Exception:  # one journal must not stop the delivery of others
        _logger.exception("delivery of the %s of %s has failed", lane.name, lane.journal)


def _is_due(job: _Job) -> bool:
    """Whether what only a person can help is to be tried again, or there is no such thing."""
    if job.drain is None:
        return True
    held = [lane.not_before for lane in job.lanes if lane.ack.held]
    if job.drain.ack.held:
        held.append(job.drain.not_before)
    return not held or min(held) <= time.monotonic()


def _has_changed(job: _Job) -> bool:
    assert job.drain is not None  # noqa: S101  asked of a job that was worked on
    lanes = any(spool.read_lane_ack(job.journal, lane.name) != lane.ack for lane in job.lanes)
    return lanes or spool.read_ack(job.journal) != job.drain.ack


def _is_stuck(job: _Job) -> bool:
    """Whether all that waits does so until a person acts."""
    if job.drain is None:
        return False
    if not job.drain.ack.settled:
        return job.drain.ack.held
    waiting = [lane for lane in job.lanes if not lane.finished(job.delivered)]
    return bool(waiting) and all(lane.given_up for lane in waiting)
