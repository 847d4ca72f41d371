"""How many rollouts become traces, so that short steps do not keep a store busy.

A trace takes a store some 10 ms of CPU time, which is next to nothing for steps of some seconds,
and half a core for eight traces in each step of 0.2 s.
"""

import time
from collections.abc import Callable

__all__ = ["AT_ONCE", "TraceBudget"]

AT_ONCE = 64
"""Traces that may follow one another at once: short trainings have all."""


class TraceBudget:
    """The traces that a run may have by now: some at once, and so many a minute.

    Args:
        per_minute: traces on average.
        per_step: of one report; a report of so many is never too large.
        clock: seconds, monotonic.
    """

    def __init__(
        self, per_minute: float, per_step: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_second = per_minute / 60
        self._most = max(AT_ONCE, per_step)
        self._clock = clock
        self._left: float = self._most
        self._at = clock()

    def take(self, wanted: int) -> int:
        """How many of the wanted traces a report may have now."""
        now = self._clock()
        self._left = min(self._most, self._left + (now - self._at) * self._per_second)
        self._at = now
        granted = min(wanted, int(self._left))
        self._left -= granted
        return granted
