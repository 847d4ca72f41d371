"""The delivery process: drains the journals of one training process, and outlives it.

    python -m orbiter_mlflow.delivery.hosts.child PID STARTED

Orders arrive on standard input, one JSON line each: a journal to deliver, or changes in the
environment of the training. An empty object says that a journal has grown, an empty line that
somebody waits. The death of the training process is seen by a pidfd, not by the end of the input,
which forked loops may keep open for minutes. Once it is dead its runs are ended, and this process
ends when they are delivered, or after `retry.LINGER` seconds; the rest then waits for
`orbiter-mlflow sync`.
"""

import contextlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from orbiter_mlflow.delivery import retry, spool
from orbiter_mlflow.delivery.hosts.drain_loop import DrainLoop, open_mlflow
from orbiter_mlflow.delivery.hosts.environment import apply
from orbiter_mlflow.delivery.journal_reader import read_head
from orbiter_mlflow.delivery.process_identity import is_gone, this_process
from orbiter_mlflow.delivery.store_uri import same_store
from orbiter_mlflow.delivery.writer_lock import is_dead


class Orders:
    """The orders on a pipe, read without blocking.

    Attributes:
        fd: the pipe; None once its other end is closed.
        wake_requested: somebody waits for delivery, as of the last `read_new`.
    """

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self.fd: int | None = fd
        self.wake_requested = False
        self._rest = b""

    def read_new(self) -> list[dict[str, Any]]:
        """Read the orders that have arrived since the last call."""
        while self.fd is not None:
            try:
                block = os.read(self.fd, 65536)
            except BlockingIOError:
                break
            if not block:
                self.fd = None
            self._rest += block
        *lines, self._rest = self._rest.split(b"\n")
        self.wake_requested = b"" in lines
        return [json.loads(line) for line in lines if line]


class Parent:
    """The training process, seen from outside.

    Attributes:
        pidfd: becomes readable when the process dies; None where there is no such thing.
    """

    def __init__(self, pid: int, started: str) -> None:
        self._process = replace(this_process(), pid=pid, started=started)
        self.pidfd: int | None = None
        with contextlib.suppress(OSError, AttributeError):  # not Linux, or already dead
            self.pidfd = os.pidfd_open(pid)

    def gone(self) -> bool:
        """Whether the process is dead."""
        return is_gone(self._process)


def serve(orders: Orders, parent: Parent, linger: float) -> None:
    """Deliver until the parent is dead and its journals are in the store, or `linger` seconds have
    passed since its death."""
    loop = DrainLoop(open_mlflow)
    uris: dict[Path, list[str]] = {}
    deadline: float | None = None
    while True:
        # The pidfd of a dead parent stays readable, so it is not waited on any more.
        watched: list[int | None] = [orders.fd, parent.pidfd] if deadline is None else []
        pause = retry.IDLE if deadline is None else retry.LINGER_POLL
        select.select([fd for fd in watched if fd is not None], [], [], pause)
        # Before the input is read: orders sent before the death must be seen after it.
        gone = parent.gone()
        for order in orders.read_new():
            if "environment" in order:
                _apply_environment(loop, order["environment"])
            elif "journal" in order:
                journal = Path(order["journal"])
                uris.setdefault(journal.parent, []).append(order["tracking_uri"])
                loop.add(journal, order["tracking_uri"])
        if orders.wake_requested:
            loop.wake()
        if gone and deadline is None:
            deadline = time.monotonic() + linger
            loop.orphan_all()
            for folder, ordered in uris.items():
                _adopt_orphans(loop, folder, ordered)
        loop.turn()
        if deadline is not None and (not loop.open() or time.monotonic() > deadline):
            return


def _adopt_orphans(loop: DrainLoop, folder: Path, uris: Sequence[str]) -> None:
    """Take over journals that earlier processes of this machine left behind, except offline ones.

    Only journals that nobody else can have written, and only those for the stores that our parent
    delivers to: its credentials go nowhere else.
    """
    for journal in spool.journals(folder):
        if loop.knows(journal) or not spool.is_ours(journal):
            continue
        with contextlib.suppress(OSError, ValueError):
            head = read_head(journal)
            uri = next((uri for uri in uris if same_store(uri, head.tracking_uri)), None)
            if head.live and uri is not None and is_dead(journal, head.writer):
                loop.add(journal, uri, orphaned=True)


def _apply_environment(loop: DrainLoop, changes: Mapping[str, str | None]) -> None:
    """Apply changes in the environment of the training, whose credentials may be new."""
    from orbiter_mlflow.delivery.mlflow_client.opening import forget_clients

    apply(changes)
    forget_clients()
    loop.reopen_stores()


def main() -> None:
    """Detach from the training process, then serve."""
    pid, started = int(sys.argv[1]), sys.argv[2].removeprefix("-")
    if os.fork():
        os._exit(0)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    linger = float(os.environ.get("ORBITER_MLFLOW_LINGER", retry.LINGER))
    serve(Orders(0), Parent(pid, started), linger)


if __name__ == "__main__":
    main()
