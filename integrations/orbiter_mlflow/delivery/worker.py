"""Drains many journals in turn: what every host of delivery runs, in a thread or a process."""

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from orbiter_mlflow.delivery import spool
from orbiter_mlflow.delivery.drain import Drain
from orbiter_mlflow.delivery.journal import read_head
from orbiter_mlflow.delivery.protocol import Sink

_logger = logging.getLogger(__name__)

IDLE = 1.0
"""Seconds between looks at the journals, where nobody waits for them: what has come together by
then goes out in one request, which leaves more of a shared core to the training than five do."""

BOUNDED_REQUESTS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
"""The environment of a process that does nothing but deliver: one attempt takes seconds, and how
often to try is the drain's business. What the user sets goes before it."""


def open_mlflow(tracking_uri: str) -> Sink:
    """The store behind a tracking URI of MLflow's."""
    # Here, where delivery runs and not where it is set up: importing mlflow takes seconds.
    from orbiter_mlflow.delivery.sink import MLflowSink

    return MLflowSink(tracking_uri)


@dataclass(slots=True)
class _Job:
    journal: Path
    tracking_uri: str
    orphaned: bool
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
        self.hurry()

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

    def hurry(self) -> None:
        """Somebody waits: what is in trouble is tried again soon."""
        for job in list(self._jobs.values()):
            if job.drain is not None:
                job.drain.hurry()

    def knows(self, journal: Path) -> bool:
        """Whether a journal is under delivery here."""
        return journal in self._jobs

    def open(self) -> list[Path]:
        """The journals that are not delivered to their end, but those a person must see to."""
        return [
            job.journal
            for job in list(self._jobs.values())
            if job.drain is None or not job.drain.ack.held
        ]

    def let_go(self) -> None:
        """Give all journals back, delivered or not."""
        for job in list(self._jobs.values()):
            self._drop(job)

    def _serve(self, job: _Job) -> None:
        size = job.journal.stat().st_size
        if size == job.delivered and not job.orphaned:
            return
        if job.drain is None:
            job.fd = spool.take(job.journal)
            if job.fd is None:
                return  # `sync` has it at the moment
            job.drain = Drain(job.journal, lambda _: self._sink(job.tracking_uri))
        if time.monotonic() < job.drain.not_before:
            return
        if job.drain.abandon() if job.orphaned else job.drain.run():
            job.delivered = size
            if job.drain.ack.closed:
                if not read_head(job.journal).keep:
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
