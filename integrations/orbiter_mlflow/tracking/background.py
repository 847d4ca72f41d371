"""Run work that must not hold up a training on one thread of the process, in order.

A process that exits waits for its work, as long as the callers allow.
"""

import atexit
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue

__all__ = ["Background", "background"]

_POLL = 0.01
"""Seconds between looks at whether all is done."""


class Background:
    """The background thread, which starts with the first work.

    Attributes:
        exiting: the process is ending.
        late: the process has waited long enough: work must be quick, or give up.
    """

    def __init__(self) -> None:
        self.exiting = self.late = False
        self._queue: SimpleQueue[Callable[[], None]] = SimpleQueue()  # its `put` is reentrant
        self._left = 0
        self._patience = 0.0
        self._lock = threading.RLock()  # a garbage collection while it is held may hand in more
        self._thread: threading.Thread | None = None
        self._known_to_the_exit = False

    def do(self, work: Callable[[], None], patience: float) -> None:
        """Do `work` after all earlier work; at once if no thread can be started.

        Args:
            work: the work; it must not raise.
            patience: seconds that the exit of the process may wait for it.
        """
        with self._lock:
            self._left += 1
            self._patience = max(self._patience, patience)
            self._queue.put(work)
            if not self.exiting and self._thread is None:
                self._start()
        if self.exiting or self._thread is None:
            self._do_here()

    def finish(self) -> None:
        """Wait for the remaining work as long as is allowed, then do the rest here."""
        self.exiting = True
        deadline = time.monotonic() + self._patience
        try:
            while self._left and time.monotonic() < deadline:
                time.sleep(_POLL)
        finally:  # also where Ctrl-C ends the waiting
            self.late = True
            self._do_here()

    def _start(self) -> None:
        if not self._known_to_the_exit:
            self._known_to_the_exit = True
            # Exit functions run last made, first run. The trainers have made theirs before, so
            # that they end their runs after this one has waited.
            atexit.register(self.finish)
            if "multiprocessing.util" in sys.modules:  # its children leave by `os._exit`
                from multiprocessing.util import Finalize

                Finalize(None, self.finish, exitpriority=1000)
        thread = threading.Thread(target=self._run, name="orbiter-artifacts", daemon=True)
        with suppress(RuntimeError):  # no more threads, or the interpreter is ending
            thread.start()
            self._thread = thread

    def _run(self) -> None:
        while True:
            self._do(self._queue.get())

    def _do_here(self) -> None:
        with suppress(Empty):
            while True:
                self._do(self._queue.get_nowait())

    def _do(self, work: Callable[[], None]) -> None:
        work()
        with self._lock:
            self._left -= 1


_background = Background()


def background() -> Background:
    """The background thread of this process."""
    return _background


def _forget_after_fork() -> None:
    """A forked child has none of its parent's threads, and the parent does its work itself."""
    global _background
    _background = Background()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
