"""Keeps a failure that repeats at every step from filling the log: it is told once a minute."""

import logging
import time
from collections.abc import Callable

_INTERVAL = 60.0
"""Seconds between two records of the same text."""
_MOST = 1000
"""Texts that are remembered; beyond it all are forgotten, and told again."""


class OncePerMinute(logging.Filter):
    """Lets a record through if none of the same text and level passed in the last minute.

    The next one of the text that passes says how many were kept back.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._seen: dict[tuple[int, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is to be shown."""
        text = record.getMessage()
        # No lock: a process forked while it is held would hang. At worst a text is told twice.
        now = self._clock()
        told, kept_back = self._seen.get((record.levelno, text), (now - _INTERVAL, 0))
        if now - told < _INTERVAL:
            self._seen[record.levelno, text] = told, kept_back + 1
            return False
        if len(self._seen) >= _MOST:
            self._seen.clear()
        self._seen[record.levelno, text] = now, 0
        if kept_back:
            record.msg, record.args = f"{text} ({kept_back} more since it was last told)", ()
        return True


def quiet_logger(name: str) -> logging.Logger:
    """The logger of a module whose failures may repeat at every step."""
    logger = logging.getLogger(name)
    if not any(isinstance(one, OncePerMinute) for one in logger.filters):
        logger.addFilter(OncePerMinute())
    return logger
