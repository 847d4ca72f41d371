"""Run a function at the end of a `multiprocessing` worker.

Workers, also those of `concurrent.futures` and joblib, leave by `os._exit`: `atexit` and
`weakref.finalize` do not run in them, but `multiprocessing`'s own finalizers do.
"""

import logging
import os
import sys
import weakref
from collections.abc import Callable
from typing import TypeVar

_logger = logging.getLogger(__name__)

T = TypeVar("T")

RUNS, DELIVERY = 20, 10
"""Priorities: the runs are closed first, then delivery gets a moment."""


def at_worker_exit(owner: T, end: Callable[[T], None], priority: int) -> None:
    """Call `end(owner)` at the end of this process, if `owner` still exists then.

    Does nothing outside `multiprocessing` workers, where `weakref.finalize` does the same.
    """
    process = sys.modules.get("multiprocessing.process")
    util = sys.modules.get("multiprocessing.util")
    if process is None or util is None or process.parent_process() is None:
        return
    reference, pid = weakref.ref(owner), os.getpid()

    def run() -> None:
        found = reference()
        if found is None or os.getpid() != pid:
            return
        try:
            end(found)
        except Exception:  # it would be printed as if it were the program's
            _logger.exception("tracking failed at the end of the process")

    util.Finalize(None, run, exitpriority=priority)
