"""Sample the system on a thread of its own, and append the readings to the run's journal.

Nothing here raises into the training, holds it up, or keeps its process alive.
"""

import threading
from typing import TYPE_CHECKING

from orbiter.train.hooks import quiet_logger
from orbiter_mlflow import names
from orbiter_mlflow.delivery.records import Metrics
from orbiter_mlflow.delivery.run_writer import RunWriter
from orbiter_mlflow.text.clock import now
from orbiter_mlflow.tracking.system_metrics.extra import missing_packages

if TYPE_CHECKING:
    from orbiter_mlflow.tracking.system_metrics.sources import Sources

__all__ = ["Sampler"]

_logger = quiet_logger(__name__)

_INTERVAL = 10.0
"""Seconds between two samples by default, as in MLflow."""
_FIRST = 1.0
"""Seconds until the first sample, at most: a short run has one too. MLflow's first is at once, with
a CPU load that means nothing."""
_DIGITS = 3
"""Decimal places: watts to the milliwatt, traffic to the kilobyte."""


class Sampler:
    """The samples of one run, whose steps count from 0. Starts and stops once.

    Args:
        setting: seconds between two samples; True for the default, False for none.
    """

    def __init__(self, setting: bool | float) -> None:
        self._interval = _INTERVAL if setting is True else float(setting)
        self._ended = threading.Event()
        # Reentrant: a garbage collection while it is held may bring the end of the run.
        self._lock = threading.RLock()

    def start(self, writer: RunWriter) -> None:
        """Sample from now on, if the setting says so."""
        if not self._interval:
            return
        problem = missing_packages()  # of a trainer whose construction could not be refused
        if problem is not None:
            _logger.warning("no system metrics: %s", problem)
            return
        # Not on the thread: see `missing_packages`.
        from orbiter_mlflow.tracking.system_metrics.sources import Sources

        thread = threading.Thread(
            target=self._run, args=(writer, Sources), name="orbiter-system-metrics", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:  # no more threads, or the interpreter is ending
            _logger.warning("no system metrics: %s", error)

    def stop(self) -> None:
        """Append no more samples. Does not wait for a reading that is under way."""
        with self._lock:
            self._ended.set()

    def _run(self, writer: RunWriter, kind: "type[Sources]") -> None:
        try:
            sources = kind()
            try:
                self._sample(writer, sources)
            finally:
                sources.close()
        except Exception:
            _logger.exception("system metrics failed; the run goes on without them")

    def _sample(self, writer: RunWriter, sources: "Sources") -> None:
        sources.read()  # what the first sample is taken against
        step, wait = 0, min(_FIRST, self._interval)
        while not self._ended.wait(wait):
            values = {
                names.system_metric(name): round(float(value), _DIGITS)
                for name, value in sources.read().items()
            }
            with self._lock:
                if values and not self._ended.is_set():
                    writer.append(Metrics(step, now(), values))
            step, wait = step + 1, self._interval
