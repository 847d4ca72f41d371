"""Drains many journals in turn: what every host of delivery runs, in a thread or a process."""

import logging
import os
import time
from collections.abc import Callable, Set
from dataclasses import dataclass
from pathlib import Path

from orbiter_mlflow.delivery import spool
from orbiter_mlflow.delivery.drain import Drain, Sink

_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Job:
    journal: Path
    tracking_uri: str
    fd: int | None = None
    drain: Drain | None = None
    delivered: int = -1
    """Size of the journal when all of it was last in the store."""


class Worker:
    """The journals under delivery.

    Args:
        open_sink: makes the sink of a tracking URI; called once for each.
    """

    def __init__(self, open_sink: Callable[[str], Sink]) -> None:
        self._open_sink = open_sink
        self._sinks: dict[str, Sink] = {}
        self._jobs: dict[Path, _Job] = {}

    def add(self, journal: Path, tracking_uri: str) -> None:
        """Deliver a journal from now on, until it is closed; `tracking_uri` with credentials."""
        self._jobs[journal] = _Job(journal, tracking_uri)

    def turn(self) -> None:
        """Give each journal that has something to deliver one run."""
        for job in list(self._jobs.values()):
            try:
                self._serve(job)
            except Exception:
                # A journal that is gone, say. One of them must not stop the delivery of others.
                _logger.exception("delivery of %s has stopped", job.journal)
                self._drop(job)

    def busy(self, told: Set[Path] = frozenset()) -> bool:
        """Whether a journal waits whose delivery has met no trouble, those in `told` aside."""
        return any(not problem for journal, problem in self.waiting() if journal not in told)

    def waiting(self) -> list[tuple[Path, str]]:
        """The journals that hold something undelivered, and what the trouble is, if any."""
        return [
            (job.journal, job.drain.ack.problem if job.drain else "")
            for job in list(self._jobs.values())
        ]

    def let_go(self) -> None:
        """Give the journals back undelivered."""
        for job in list(self._jobs.values()):
            self._drop(job)

    def _serve(self, job: _Job) -> None:
        size = job.journal.stat().st_size
        if size == job.delivered:
            return
        if job.drain is None:
            job.fd = spool.take(job.journal)
            if job.fd is None:
                return  # `sync` has it at the moment
            job.drain = Drain(job.journal, lambda _: self._sink(job.tracking_uri))
        if time.monotonic() >= job.drain.not_before and job.drain.run():
            job.delivered = size
            if job.drain.ack.closed:
                spool.remove(job.journal)
                self._drop(job)

    def _sink(self, tracking_uri: str) -> Sink:
        if tracking_uri not in self._sinks:
            self._sinks[tracking_uri] = self._open_sink(tracking_uri)
        return self._sinks[tracking_uri]

    def _drop(self, job: _Job) -> None:
        self._jobs.pop(job.journal, None)
        if job.fd is not None:
            os.close(job.fd)
            job.fd = None
