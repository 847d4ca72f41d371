"""Deliver in a process of its own, seen from the training process: start it and send it orders.

The child (`child.py`) outlives this process, delivers the rest and records how the run ended. It is
started with the first journal, and again if it was killed; if none can be started, a thread takes
its place.
"""

import json
import logging
import os
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path
from typing import IO

from orbiter_mlflow.delivery import retry
from orbiter_mlflow.delivery.files.descriptors import Descriptor
from orbiter_mlflow.delivery.hosts.base import Host, host_of
from orbiter_mlflow.delivery.hosts.environment import Environment, for_delivery
from orbiter_mlflow.delivery.hosts.thread import DeliveryThread
from orbiter_mlflow.delivery.process_identity import this_process

_logger = logging.getLogger(__name__)


class DeliveryProcess(Host):
    """One child delivers all journals of this process."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._pipe: Descriptor | None = None
        self._starts = 0
        self._orders: dict[Path, bytes] = {}
        self._queue: deque[bytes] = deque()
        self._unsent = b""
        self._environment: Environment | None = None
        self._folder: str | None = None
        self._fallback: Host | None = None

    def wake(self) -> None:
        if self._fallback is not None:
            self._fallback.wake()
        elif self._orders:
            self._send(self._changes() + b"\n")

    def appended(self) -> None:
        if self._fallback is None and (changes := self._changes()):
            self._send(changes)

    def look(self) -> None:
        if self._fallback is not None:
            self._fallback.look()
        elif not self._unsent:
            self._send(b"{}\n")  # an order to do nothing but what is done after each order

    def forget(self) -> None:
        self._close()

    def _start(self, journal: Path, tracking_uri: str, flush_timeout: float) -> None:
        if self._fallback is not None:
            self._fallback.deliver(journal, tracking_uri, flush_timeout)
            return
        if self._folder is None:
            self._folder = _working_folder()
        order = json.dumps({"journal": str(journal), "tracking_uri": tracking_uri})
        self._orders[journal] = order.encode() + b"\n"
        self._send(self._orders[journal])

    def _exit_wait(self) -> float:
        return retry.EXIT_WAIT

    def _goes_on_without_us(self) -> bool:
        return self._fallback is None

    def _changes(self) -> bytes:
        """The order with the changes in our environment; empty where there are none. It may contain
        credentials, which go through the pipe and into no file."""
        changes = self._environment.changes() if self._environment is not None else None
        return json.dumps({"environment": changes}).encode() + b"\n" if changes else b""

    def _send(self, order: bytes) -> None:
        """Write to the child's pipe without ever waiting, for the child or for another caller.

        Who holds the lock writes for all: a garbage collection in the middle of it may end the run
        of another trainer, and come back here in the same thread.
        """
        self._queue.append(order)
        while self._queue and self._lock.acquire(blocking=False):
            try:
                self._write_queue()
            finally:
                self._lock.release()

    def _write_queue(self) -> None:
        while self._queue:
            order = self._queue.popleft()
            if order.strip() or not self._unsent:
                self._unsent += order
        if self._pipe is None or not self._pipe.is_ours():
            self._close()
            self._launch()
        while self._unsent and self._pipe is not None:
            try:
                self._unsent = self._unsent[os.write(self._pipe.number, self._unsent) :]
            except BlockingIOError:  # the child is busy and its pipe full: later
                return
            except OSError:  # it was killed
                self._close()
                self._launch()

    def _launch(self) -> None:
        """Start a child and give it all orders, or fall back to the thread."""
        self._starts += 1
        journals = [journal for journal in self._orders if journal.exists()]
        try:
            if self._starts > retry.MAX_STARTS:
                raise OSError("it has died repeatedly")
            self._environment = Environment()
            spool = journals[0].parent if journals else None
            self._pipe = Descriptor(_start_child(spool, self._folder or os.sep))
        except OSError as error:
            _logger.warning(
                "no delivery process can be started (%s): a thread delivers instead", error
            )
            self._unsent = b""
            self._fallback = host_of(DeliveryThread)
            for journal in journals:
                order = json.loads(self._orders[journal])
                self._fallback.deliver(journal, order["tracking_uri"], retry.EXIT_WAIT)
            return
        self._unsent = b"".join(self._orders[journal] for journal in journals)

    def _close(self) -> None:
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None


def _working_folder() -> str:
    """The working folder for the child, as MLflow resolves relative paths against it."""
    try:
        return str(Path.cwd())
    except OSError:  # it has been removed
        return os.sep


def _start_child(spool: Path | None, folder: str) -> int:
    """Start the child; return the writing end of the pipe for its orders.

    Args:
        spool: the folder of its log; None for no log.
        folder: its working folder.

    Raises:
        OSError: it cannot be started.
    """
    if not hasattr(os, "fork"):
        raise OSError("this system has no fork")
    if not sys.executable:
        raise OSError("this Python does not know its own interpreter")
    me = this_process()
    paths = (os.path.abspath(path) for path in sys.path if path)  # noqa: PTH100  entries are text
    modules = os.pathsep.join(paths)
    orders, pipe = os.pipe()
    try:
        with _log(spool) as log:
            process = subprocess.Popen(  # noqa: S603  our own module
                [
                    *(sys.executable, "-P", "-m", "orbiter_mlflow.delivery.hosts.child"),
                    *(str(me.pid), me.started or "-"),
                ],
                stdin=orders,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=for_delivery() | {"PYTHONPATH": modules},
                cwd=folder if os.access(folder, os.X_OK) else os.sep,
                start_new_session=True,  # Ctrl-C in the terminal is not meant for it
            )
    except BaseException:
        os.close(pipe)
        raise
    finally:
        os.close(orders)
    os.set_blocking(pipe, False)
    # It forks at once, so that the delivery process is no child of ours and never a zombie.
    threading.Thread(target=process.wait, name="orbiter-launch", daemon=True).start()
    return pipe


def _log(folder: Path | None) -> IO[bytes]:
    """Open the file beside the journals that takes the child's error output."""
    path = Path(os.devnull) if folder is None else folder / "delivery.log"
    return open(path, "ab", opener=lambda name, flags: os.open(name, flags, 0o600))
