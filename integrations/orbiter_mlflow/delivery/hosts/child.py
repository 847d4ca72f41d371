"""The delivery process: drains the journals of one training process, and outlives it.

    python -m orbiter_mlflow.delivery.hosts.child PID STARTED

Orders come on standard input, a JSON line each: a journal to deliver, or what has changed in the
environment of the training; an empty line says that somebody waits. The death
of the training process is seen by a pidfd, not by the end of the input: forked workers keep that
open for minutes. Once it is dead its runs are brought to an end, then the process ends, at the
latest after `LINGER` seconds; what is left then waits for `orbiter-mlflow sync`.
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

from orbiter_mlflow.delivery import spool
from orbiter_mlflow.delivery.hosts.drain_loop import IDLE, DrainLoop, open_mlflow
from orbiter_mlflow.delivery.hosts.environment import apply
from orbiter_mlflow.delivery.journal import read_head
from orbiter_mlflow.delivery.presence import is_over
from orbiter_mlflow.delivery.process_identity import is_gone, this_process
from orbiter_mlflow.delivery.store_uri import same_store
from orbiter_mlflow.delivery.trust import is_ours

LINGER = 600.0
"""Seconds that it goes on trying after the death of the training process."""

_LAST = 0.1
"""Seconds between looks at the journals after that."""


class Orders:
    """Standard input, read without waiting."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self.fd: int | None = fd
        self.hurried = False
        self._rest = b""

    def read(self) -> list[dict[str, Any]]:
        """The orders that have come since; `hurried` then tells whether somebody waits."""
        while self.fd is not None:
            try:
                block = os.read(self.fd, 65536)
            except BlockingIOError:
                break
            if not block:
                self.fd = None
            self._rest += block
        *lines, self._rest = self._rest.split(b"\n")
        self.hurried = b"" in lines
        return [json.loads(line) for line in lines if line]


class Parent:
    """The training process, watched from outside."""

    def __init__(self, pid: int, started: str) -> None:
        self._writer = replace(this_process(), pid=pid, started=started)
        self.pidfd: int | None = None
        with contextlib.suppress(OSError, AttributeError):  # not Linux, or already dead
            self.pidfd = os.pidfd_open(pid)

    def gone(self) -> bool:
        """Whether it is dead."""
        return is_gone(self._writer)


def serve(orders: Orders, parent: Parent, linger: float) -> None:
    """Deliver until the parent is dead and its journals are in the store, or the time is up."""
    worker = DrainLoop(open_mlflow)
    uris: dict[Path, list[str]] = {}
    deadline: float | None = None
    while True:
        # Once the parent is dead, its pidfd stays readable: no more waiting on it then.
        watched, pause = ([orders.fd, parent.pidfd], IDLE) if deadline is None else ([], _LAST)
        select.select([fd for fd in watched if fd is not None], [], [], pause)
        # Before the look at the input: what was ordered before the death must be seen after it.
        gone = parent.gone()
        for order in orders.read():
            if "environment" in order:
                _renew(worker, order["environment"])
                continue
            journal = Path(order["journal"])
            uris.setdefault(journal.parent, []).append(order["tracking_uri"])
            worker.add(journal, order["tracking_uri"])
        if orders.hurried:
            worker.wake()
        if gone and deadline is None:
            deadline = time.monotonic() + linger
            worker.orphan_all()
            for folder, ordered in uris.items():
                _adopt_orphans(worker, folder, ordered)
        worker.turn()
        if deadline is not None and (not worker.open() or time.monotonic() > deadline):
            return


def _adopt_orphans(worker: DrainLoop, folder: Path, uris: Sequence[str]) -> None:
    """Take over what earlier processes of this machine left behind, unless it waits for `sync`.

    Only journals that nobody else can have put there, and only for the stores that our own process
    delivers to: its credentials go nowhere else.
    """
    for journal in spool.journals(folder):
        if worker.knows(journal) or not is_ours(journal):
            continue
        with contextlib.suppress(OSError, ValueError):
            head = read_head(journal)
            uri = next((uri for uri in uris if same_store(uri, head.tracking_uri)), None)
            if head.live and uri is not None and is_over(journal, head.writer):
                worker.add(journal, uri, orphaned=True)


def _renew(worker: DrainLoop, changes: Mapping[str, str | None]) -> None:
    """Go on with the changed environment of the training; its credentials may be new."""
    from orbiter_mlflow.delivery.mlflow_client.opening import forget_clients

    apply(changes)
    forget_clients()
    worker.renew()


def main() -> None:
    """Leave the training process' family, then serve."""
    pid, started = int(sys.argv[1]), sys.argv[2].removeprefix("-")
    if os.fork():
        os._exit(0)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    linger = float(os.environ.get("ORBITER_MLFLOW_LINGER", LINGER))
    serve(Orders(0), Parent(pid, started), linger)


if __name__ == "__main__":
    main()
