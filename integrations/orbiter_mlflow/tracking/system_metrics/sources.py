"""All readings of the system together: one that fails leaves out its own values, and is told once.

Needs the extra `system`.
"""

from collections.abc import Callable
from typing import TypeVar

from orbiter.train.hooks import quiet_logger
from orbiter_mlflow.tracking.system_metrics.gpus import Gpus
from orbiter_mlflow.tracking.system_metrics.machine import Machine
from orbiter_mlflow.tracking.system_metrics.process_tree import ProcessTree

__all__ = ["Sources"]

_logger = quiet_logger(__name__)
_T = TypeVar("_T")


class Sources:
    """The readings; make and use them on one thread.

    The first `read` says nothing about loads and counts: it is what the next one is taken against.
    """

    def __init__(self) -> None:
        self._told: set[str] = set()
        machine = Machine()
        self._readings: list[tuple[str, Callable[[], dict[str, float]]]] = [
            ("the CPU", machine.cpu),
            ("memory", machine.memory),
            ("the disk", machine.disk),
            ("the network", machine.network),
        ]
        tree = self._guarded("the process tree", ProcessTree)
        if tree is not None:
            self._readings.append(("the process tree", tree.read))
        self._gpus = self._guarded("GPUs", Gpus)
        if self._gpus is not None:
            self._readings += self._gpus.readings()

    def read(self) -> dict[str, float]:
        """Name -> present value, of all that can be read."""
        values: dict[str, float] = {}
        for what, reading in self._readings:
            values |= self._guarded(what, reading) or {}
        return values

    def close(self) -> None:
        """Let go of the GPUs' driver."""
        if self._gpus is not None:
            self._guarded("GPUs", self._gpus.close)

    def _guarded(self, what: str, action: Callable[[], _T]) -> _T | None:
        try:
            return action()
        except Exception as error:
            if what not in self._told:
                self._told.add(what)
                _logger.warning("no system metrics of %s: %s", what, str(error) or repr(error))
            return None
