"""Delivery in a thread of the training process: one thread for all of its trainers."""

import threading
from pathlib import Path

from orbiter_mlflow.delivery.hosts.base import Host
from orbiter_mlflow.delivery.hosts.drain_loop import IDLE, DrainLoop, open_mlflow
from orbiter_mlflow.delivery.hosts.environment import Environment


class DeliveryThread(Host):
    """Delivers while the process lives; what is left then waits for `orbiter-mlflow sync`."""

    def __init__(self) -> None:
        self._worker = DrainLoop(open_mlflow)
        self._wake = threading.Event()
        self._environment = Environment()
        self._patience = 0.0
        super().__init__()
        threading.Thread(target=self._loop, name="orbiter-delivery", daemon=True).start()

    def wake(self) -> None:
        self._wake.set()

    def forget(self) -> None:
        self._worker.let_go()

    def _start(self, journal: Path, tracking_uri: str, patience: float) -> None:
        self._patience = max(self._patience, patience)
        self._worker.add(journal, tracking_uri)
        self._wake.set()

    def _clears_up(self) -> bool:
        return self._worker.clears_up()

    def _exit_wait(self) -> float:
        return self._patience

    def _loop(self) -> None:
        while True:
            if self._wake.wait(IDLE):
                self._wake.clear()
                self._worker.wake()
            if self._environment.changes():
                self._worker.renew()
            self._worker.turn()
