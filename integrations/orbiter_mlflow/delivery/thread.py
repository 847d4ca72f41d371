"""Delivery in a thread of the training process: one thread for all of its trainers."""

import logging
import os
import threading
import time
import weakref
from pathlib import Path

from orbiter_mlflow.delivery.drain import Sink
from orbiter_mlflow.delivery.worker import Worker

_logger = logging.getLogger(__name__)

_IDLE = 0.2
"""Seconds between looks at the journals, where nobody waits for them."""
_POLL = 0.02
"""Seconds between looks at the exit of the process."""


class DeliveryThread:
    """Delivers journals in the background, for as long as the process lives."""

    def __init__(self) -> None:
        self.worker = Worker(_open_sink)
        self._told: set[Path] = set()
        self._wake = threading.Event()
        self._linger = 0.0
        threading.Thread(target=self._loop, name="orbiter-delivery", daemon=True).start()
        # At exit, finalizers run last made, first run: those of the trainers come before this one.
        weakref.finalize(DeliveryThread, self._finish)

    def deliver(self, journal: Path, tracking_uri: str, linger: float) -> None:
        """Deliver a journal; at exit, wait up to `linger` seconds for the rest of it."""
        self._linger = max(self._linger, linger)
        self.worker.add(journal, tracking_uri)
        self._wake.set()

    def hurry(self) -> None:
        """Somebody waits: look at the journals now."""
        self._wake.set()

    def tell(self, journal: Path, problem: str) -> None:
        """Warn, once for each journal, that it could not be delivered in time."""
        if journal not in self._told:
            self._told.add(journal)
            _logger.warning(
                "not everything has reached MLflow yet (%s); nothing is lost, it waits in %s; "
                "deliver it later with: orbiter-mlflow sync %s",
                problem or "delivery has not finished",
                journal,
                journal,
            )

    def _loop(self) -> None:
        while True:
            self._wake.wait(_IDLE)
            self._wake.clear()
            self.worker.turn()

    def _finish(self) -> None:
        deadline = time.monotonic() + self._linger
        while self.worker.busy(self._told) and time.monotonic() < deadline:
            self._wake.set()
            time.sleep(_POLL)
        for journal, problem in self.worker.waiting():
            self.tell(journal, problem)


def _open_sink(tracking_uri: str) -> Sink:
    # Here, on the delivery thread: importing mlflow takes seconds.
    from orbiter_mlflow.delivery.sink import MLflowSink

    return MLflowSink(tracking_uri)


_host: DeliveryThread | None = None
_host_lock = threading.Lock()


def delivery_thread() -> DeliveryThread:
    """The delivery thread of this process, started at the first call."""
    global _host
    with _host_lock:
        if _host is None:
            _host = DeliveryThread()
        return _host


def _forget_after_fork() -> None:
    """A forked child has none of its parent's threads, and must not keep its parent's journals."""
    global _host, _host_lock
    _host_lock = threading.Lock()
    if _host is not None:
        _host.worker.let_go()
    _host = None


os.register_at_fork(after_in_child=_forget_after_fork)
