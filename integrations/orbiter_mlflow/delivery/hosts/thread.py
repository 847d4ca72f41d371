"""Deliver in a thread of the training process: one thread for all of its trainers."""

import threading
from pathlib import Path

from orbiter_mlflow.delivery import retry
from orbiter_mlflow.delivery.hosts.base import Host
from orbiter_mlflow.delivery.hosts.drain_loop import DrainLoop, open_mlflow
from orbiter_mlflow.delivery.hosts.environment import Environment


class DeliveryThread(Host):
    """Delivers while the process lives; the rest then waits for `orbiter-mlflow sync`."""

    def __init__(self) -> None:
        self._loop = DrainLoop(open_mlflow)
        self._wake = threading.Event()
        self._awaited = False
        self._environment = Environment()
        self._flush_timeout = 0.0
        super().__init__()
        threading.Thread(target=self._run, name="orbiter-delivery", daemon=True).start()

    def wake(self) -> None:
        self._awaited = True
        self._wake.set()

    def look(self) -> None:
        self._wake.set()

    def forget(self) -> None:
        self._loop.forget()

    def _start(self, journal: Path, tracking_uri: str, flush_timeout: float) -> None:
        self._flush_timeout = max(self._flush_timeout, flush_timeout)
        self._syncer.watch(journal)
        self._loop.add(journal, tracking_uri)
        self._wake.set()

    def _clears_up(self) -> bool:
        return self._loop.clears_up()

    def _exit_wait(self) -> float:
        return self._flush_timeout

    def _run(self) -> None:
        while True:
            if self._wake.wait(retry.IDLE):
                self._wake.clear()
                if self._awaited:
                    self._awaited = False
                    self._loop.wake()
            if self._environment.changed():
                self._loop.reopen_stores()
            self._loop.turn()
