"""Deliver in a process of its own, seen from the training process: find it and send it orders.

The delivery process (`child.py`) serves all training processes that may share one, outlives them,
delivers the rest and records how each run ended. It is started with the first trainer, and again if
it was killed. Where the spool can have no named pipe, this process starts one for itself alone; if
none can be started at all, a thread takes its place.
"""

import json
import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from orbiter_mlflow.delivery import retry
from orbiter_mlflow.delivery.files.descriptors import Descriptor
from orbiter_mlflow.delivery.hosts import launch, rendezvous, sharing
from orbiter_mlflow.delivery.hosts.base import Host, host_of
from orbiter_mlflow.delivery.hosts.environment import Environment
from orbiter_mlflow.delivery.hosts.thread import DeliveryThread
from orbiter_mlflow.delivery.process_identity import this_process
from orbiter_mlflow.delivery.store_environment import present

_logger = logging.getLogger(__name__)


class DeliveryProcess(Host):
    """One delivery process delivers all journals of this process, and those of others."""

    def __init__(self) -> None:
        super().__init__()
        me = this_process()
        self._me = {"client": me.pid, "started": me.started}
        self._lock = threading.Lock()
        self._pipe: Descriptor | None = None
        self._starts, self._started = 0, 0.0
        self._orders: dict[Path, bytes] = {}
        self._queue: deque[bytes] = deque()
        self._nudge = b""
        self._unsent = b""
        self._environment = Environment()
        self._folder = _working_folder()
        self._spool: Path | None = None
        self._shared = False
        self._moves = self._leaves = False
        self._next_move = self._next_check = self._next_wake = 0.0
        self._fallback: Host | None = None

    def prepare(self, spool: Path) -> None:
        if self._fallback is None and self._pipe is None:
            self._spool = spool
            self._send(nudge=self._order())

    def wake(self) -> None:
        if self._fallback is not None:
            self._fallback.wake()
        elif self._orders and time.monotonic() >= self._next_wake:
            self._next_wake = time.monotonic() + retry.WAKE
            self._watch_environment()
            self._send(nudge=self._order(wake=True))

    def appended(self) -> None:
        now = time.monotonic()
        self._next_wake = 0.0
        if now < self._next_check or self._fallback is not None:
            return
        self._next_check = now + retry.ENVIRONMENT_POLL
        self._watch_environment()
        if self._moves or self._queue or self._unsent or self._read_pipe() is None:
            self._send(nudge=self._order())

    def _watch_environment(self) -> None:
        if self._environment.changed():
            self._moves = True

    def look(self) -> None:
        if self._fallback is not None:
            self._fallback.look()
        else:
            self._send(nudge=self._nudge or self._order())

    def forget(self) -> None:
        self._close()

    def _start(self, journal: Path, tracking_uri: str, flush_timeout: float) -> None:
        if self._fallback is None:
            self._spool = journal.parent
            order = self._order(journal=str(journal), tracking_uri=tracking_uri)
            self._orders[journal] = order  # first: a new pipe gets what is here
            self._queue.append(order)
            self._send()
        if self._fallback is not None:  # by now; what it has already it takes no second time
            self._fallback.deliver(journal, tracking_uri, flush_timeout)

    def _exit_wait(self) -> float:
        return retry.EXIT_WAIT

    def _goes_on_without_us(self) -> bool:
        return self._fallback is None

    def _order(self, **order: object) -> bytes:
        return json.dumps(self._me | order).encode() + b"\n"

    def _send(self, *, nudge: bytes = b"") -> None:
        """Write what waits to the pipe without ever waiting, for its reader or another caller.

        Who holds the lock writes for all: a garbage collection in the middle of it may end the run
        of another trainer, and come back here in the same thread.

        Args:
            nudge: an order that only hurries delivery, so that the last one is enough.
        """
        self._nudge = nudge or self._nudge
        while (self._queue or self._nudge) and self._lock.acquire(blocking=False):
            try:
                if not self._write():
                    return  # the pipe is full: later
            finally:
                self._lock.release()

    def _write(self) -> bool:
        """Write all orders; False if the pipe is full."""
        while self._fallback is None:
            pipe = self._read_pipe()
            if pipe is None:
                self._connect()
                continue
            if not self._unsent:
                self._leaves = self._moves and time.monotonic() >= self._next_move
                if self._leaves:
                    self._unsent = self._order(leaves=True)
                elif self._queue:
                    self._unsent = self._queue.popleft()
                else:
                    self._unsent, self._nudge = self._nudge, b""
            if not self._unsent:
                return True
            if self._shared and len(self._unsent) > select.PIPE_BUF:
                self._close()  # another's order may come between the parts of one as long as this
                continue
            try:
                self._unsent = self._unsent[os.write(pipe.number, self._unsent) :]
            except BlockingIOError:
                return False
            except OSError:  # its reader was killed this moment
                self._close()
                continue
            if self._leaves and not self._unsent:
                self._next_move = time.monotonic() + retry.MOVE
                self._starts = 0
                self._close()
        self._queue.clear()
        self._nudge = b""
        return True

    def _read_pipe(self) -> Descriptor | None:
        """The pipe, if it is open here and a delivery process reads it. For any thread, while
        another may be closing it."""
        pipe = self._pipe
        number = -1 if pipe is None else pipe.number
        if pipe is None or number < 0 or not pipe.is_ours():
            return None
        poll = select.poll()
        poll.register(number, 0)
        return None if poll.poll(0) else pipe  # nobody asked for an event: an error, or the end

    def _connect(self) -> None:
        """Find or start a delivery process and give it all orders, or fall back to the thread."""
        self._close()
        self._moves = False
        for journal in list(self._orders):
            if not journal.exists():
                self._orders.pop(journal, None)
        try:
            self._pipe = self._meet()
        except OSError as error:
            _logger.warning(
                "no delivery process can be started (%s): a thread delivers instead", error
            )
            self._fallback = host_of(DeliveryThread)
            for journal, order in list(self._orders.items()):
                uri = json.loads(order)["tracking_uri"]
                self._fallback.deliver(journal, uri, retry.EXIT_WAIT)
            return
        # Only now: a journal that came meanwhile is in `_orders`, and then in the queue or not yet.
        self._queue.clear()
        self._queue.extend(list(self._orders.values()))

    def _meet(self) -> Descriptor:
        """Connect to the delivery process that is shared, or else to one of our own.

        Raises:
            OSError: none can be started.
        """
        self._shared = False
        spool, environ = self._spool, present()
        if not hasattr(os, "fork"):
            raise OSError("this system has no fork")
        longest = max(map(len, list(self._orders.values())), default=0)
        if spool is not None and longest <= select.PIPE_BUF:
            try:
                pipe = sharing.pipe_of(spool, self._folder, environ)
                start = partial(self._launch, pipe, environ)
                writing = rendezvous.connect(pipe, spool / launch.LOG, start)
            except OSError as error:
                _logger.info("this process has a delivery process of its own: %s", error)
            else:
                self._shared = True
                return writing
        reading, writing = map(Descriptor, os.pipe())
        try:
            self._launch(None, environ, reading.number)
        except BaseException:
            writing.close()
            raise
        finally:
            reading.close()
        os.set_blocking(writing.number, False)
        return writing

    def _launch(self, pipe: Path | None, environ: Mapping[str, str], reading: int) -> None:
        now = time.monotonic()
        if now - self._started > retry.LIVED_LONG:
            self._starts = 0
        self._starts, self._started = self._starts + 1, now
        if self._starts > retry.MAX_STARTS:
            raise OSError("it has died repeatedly")
        launch.start(reading, pipe, self._spool, self._folder, environ)

    def _close(self) -> None:
        self._unsent = b""
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None


def _working_folder() -> str:
    """The working folder for the child, as MLflow resolves relative paths against it."""
    try:
        return str(Path.cwd())
    except OSError:  # it has been removed
        return os.sep
