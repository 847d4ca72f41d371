"""Throttle the log: a failure that repeats at every step is logged once a minute."""

import logging
import time
from collections.abc import Callable

_INTERVAL = 60.0
"""Seconds between two records with the same text."""
_MAX_TEXTS = 1000
"""Texts remembered; when there are more, all are forgotten and may be logged again at once."""


class OncePerMinute(logging.Filter):
    """Passes a record unless one with the same text and level has passed in the last minute.

    The next record that passes says how many were dropped in between.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._seen: dict[tuple[int, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to log the record."""
        text = record.getMessage()
        # No lock: a process forked while it is held would hang. At worst a text is logged twice.
        now = self._clock()
        logged, dropped = self._seen.get((record.levelno, text), (now - _INTERVAL, 0))
        if now - logged < _INTERVAL:
            self._seen[record.levelno, text] = logged, dropped + 1
            return False
        if len(self._seen) >= _MAX_TEXTS:
            self._seen.clear()
        self._seen[record.levelno, text] = now, 0
        if dropped:
            record.msg, record.args = f"{text} ({dropped} more like this since then)", ()
        return True

    def reset(self) -> None:
        """Forget all texts, so that each may be logged at once."""
        self._seen.clear()


def quiet_logger(name: str) -> logging.Logger:
    """The logger `name`, throttled; for modules whose failures may repeat at every step."""
    logger = logging.getLogger(name)
    if not any(isinstance(one, OncePerMinute) for one in logger.filters):
        logger.addFilter(OncePerMinute())
    return logger
