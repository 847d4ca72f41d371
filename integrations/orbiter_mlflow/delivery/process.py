"""Delivery in a process of its own, as the training process sees it: start it, tell it what to do.

The child (`child.py`) outlives this process, delivers the rest and tells how the run has ended. It
is started with the first journal, and anew where it was killed; where none can be started, a thread
takes its place.
"""

import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

from orbiter_mlflow.delivery.host import Host, host_of
from orbiter_mlflow.delivery.thread import DeliveryThread
from orbiter_mlflow.delivery.worker import BOUNDED_REQUESTS
from orbiter_mlflow.delivery.writer import this_process

_logger = logging.getLogger(__name__)

_EXIT_WAIT = 5.0
"""Seconds: the child goes on by itself, this is for people who look at the run at once."""
_MAX_STARTS = 5
"""A child that has died as often will die again."""

_NOT_FOR_CHILD = ("MLFLOW_RUN_ID", "PYTHONSTARTUP", "PYTHONINSPECT")


class DeliveryProcess(Host):
    """One child delivers all journals of this process."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._pipe = -1
        self._starts = 0
        self._orders: dict[Path, bytes] = {}
        self._unsent = b""
        self._fallback: Host | None = None

    def hurry(self) -> None:
        if self._fallback is not None:
            self._fallback.hurry()
        elif self._orders:
            self._send(b"\n")

    def forget(self) -> None:
        self._close()

    def _start(self, journal: Path, tracking_uri: str, patience: float) -> None:
        if self._fallback is not None:
            self._fallback.deliver(journal, tracking_uri, patience)
            return
        order = json.dumps({"journal": str(journal), "tracking_uri": tracking_uri})
        self._orders[journal] = order.encode() + b"\n"
        self._send(self._orders[journal])

    def _exit_wait(self) -> float:
        return _EXIT_WAIT

    def _goes_on_without_us(self) -> bool:
        return self._fallback is None

    def _send(self, order: bytes) -> None:
        """Write to the child's pipe, without ever waiting for the child."""
        with self._lock:
            if order.strip() or not self._unsent:
                self._unsent += order
            if self._pipe < 0:
                self._launch()
            while self._unsent and self._pipe >= 0:
                try:
                    self._unsent = self._unsent[os.write(self._pipe, self._unsent) :]
                except BlockingIOError:  # the child is busy and its pipe full: later
                    return
                except OSError:  # it was killed
                    self._close()
                    self._launch()

    def _launch(self) -> None:
        """Start a child and give it all orders; or go over to the thread."""
        self._starts += 1
        journals = [journal for journal in self._orders if journal.exists()]
        try:
            if self._starts > _MAX_STARTS:
                raise OSError("it has died again and again")
            self._pipe = _start_child(journals[0].parent if journals else None)
        except OSError as error:
            _logger.warning(
                "no delivery process can be started (%s): a thread delivers instead", error
            )
            self._unsent = b""
            self._fallback = host_of(DeliveryThread)
            for journal in journals:
                order = json.loads(self._orders[journal])
                self._fallback.deliver(journal, order["tracking_uri"], _EXIT_WAIT)
            return
        self._unsent = b"".join(self._orders[journal] for journal in journals)

    def _close(self) -> None:
        pipe, self._pipe = self._pipe, -1
        if pipe >= 0:
            os.close(pipe)


def _start_child(folder: Path | None) -> int:
    """Start the child; gives the end of the pipe that it reads its orders from.

    Raises:
        OSError: it cannot be started.
    """
    if not sys.executable:
        raise OSError("this Python does not know its own interpreter")
    me = this_process()
    environment = BOUNDED_REQUESTS | {
        name: value for name, value in os.environ.items() if name not in _NOT_FOR_CHILD
    }
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    orders, pipe = os.pipe()
    try:
        with _log(folder) as log:
            process = subprocess.Popen(  # noqa: S603  our own module
                [
                    *(sys.executable, "-P", "-m", "orbiter_mlflow.delivery.child"),
                    *(str(me.pid), me.started or "-"),
                ],
                stdin=orders,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=environment,
                cwd="/",  # it must not keep a folder busy that is to be unmounted
                start_new_session=True,  # Ctrl-C in the terminal is not meant for it
            )
    except BaseException:
        os.close(pipe)
        raise
    finally:
        os.close(orders)
    os.set_blocking(pipe, False)
    # It forks at once, so that what delivers is no child of ours and nobody's zombie.
    threading.Thread(target=process.wait, name="orbiter-launch", daemon=True).start()
    return pipe


def _log(folder: Path | None) -> IO[bytes]:
    """Where the child says what went wrong with it: a file beside the journals."""
    path = Path(os.devnull) if folder is None else folder / "delivery.log"
    return open(path, "ab", opener=lambda name, flags: os.open(name, flags, 0o600))
