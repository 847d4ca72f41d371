"""The delivery process: drains the journals of training processes, and outlives them.

    python -m orbiter_mlflow.delivery.hosts.child PID STARTED PIPE

PID and STARTED are those of the process that starts it, PIPE is the named pipe at which others find
it, or `-`. Orders arrive on standard input, one JSON line each, with the `client` that gives it: a
journal to deliver, or that somebody waits (`wake`), or that the client has gone to another delivery
process (`leaves`). One without any of these says that a journal has grown.

The death of a training process is seen by a pidfd, not by the end of the input, which forked loops
may keep open for minutes. Its runs are ended then. Once all are dead, this process goes on until
all is delivered, but for `retry.LINGER` seconds at most, after which the rest waits for
`orbiter-mlflow sync`; then it stays for `retry.REUSE` seconds, for a training that comes next.
"""

import contextlib
import gc
import json
import logging
import os
import select
import signal
import sys
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from orbiter_mlflow.delivery import retry, spool
from orbiter_mlflow.delivery.files.descriptors import Descriptor, resource
from orbiter_mlflow.delivery.hosts import rendezvous
from orbiter_mlflow.delivery.hosts.store_threads import StoreThreads
from orbiter_mlflow.delivery.journal_reader import read_head
from orbiter_mlflow.delivery.process_identity import is_gone, this_process
from orbiter_mlflow.delivery.store_environment import digest
from orbiter_mlflow.delivery.store_uri import same_store
from orbiter_mlflow.delivery.writer_lock import had_credentials, is_dead

_logger = logging.getLogger(__name__)


class Orders:
    """The orders on a pipe, read without blocking.

    Attributes:
        fd: the pipe.
        ended: nobody has the pipe open for writing, as of the last `read_new`.
    """

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self.ended = False
        self._rest = b""

    def read_new(self) -> list[bytes]:
        """Read the orders that have arrived since the last call."""
        self.ended = False
        while not self.ended:
            try:
                block = os.read(self.fd, 65536)
            except BlockingIOError:
                break
            self.ended = not block
            self._rest += block
        *lines, self._rest = self._rest.split(b"\n")
        return [line for line in lines if line]


@dataclass(slots=True)
class Client:
    """A training process, seen from outside.

    Attributes:
        pid: its number.
        started: when it was started, as /proc says; empty where that is unknown.
        journals: those that it gave here and that are not done.
        uris: the stores that it delivers to.
        folders: its spools.
        pidfd: becomes readable when the process dies; None where there is no such thing.
    """

    pid: int
    started: str
    journals: set[Path] = field(default_factory=set)
    uris: set[str] = field(default_factory=set)
    folders: set[Path] = field(default_factory=set)
    pidfd: int | None = None

    def __post_init__(self) -> None:
        with contextlib.suppress(OSError, AttributeError):  # not Linux, or already dead
            self.pidfd = os.pidfd_open(self.pid)
        if self.is_gone():  # the number may be another's already
            self.close()

    def is_gone(self) -> bool:
        """Whether the process is dead, by its number and start; a look at `pidfd` takes less."""
        return is_gone(replace(this_process(), pid=self.pid, started=self.started))

    def close(self) -> None:
        """Release the pidfd."""
        if self.pidfd is not None:
            os.close(self.pidfd)
            self.pidfd = None


class Server:
    """Delivers the journals that its clients name, until nobody needs it any more.

    Args:
        orders: from the clients.
        pipe: the name of their pipe; None if it has none.
        first: the process that has started this one.
        linger: the longest to go on without a client, in seconds.
    """

    def __init__(self, orders: Orders, pipe: Path | None, first: Client, linger: float) -> None:
        self._orders = orders
        self._pipe = pipe
        self._clients = {(first.pid, first.started): first}
        self._stores = StoreThreads()
        self._linger = linger
        self._credentials = digest(os.environ)
        self._left: dict[Path, set[str]] = {}
        self._next_adoption = self._next_tidying = 0.0

    def serve(self) -> None:
        """Deliver until the last client is gone and its journals are in the store."""
        alone_since = done_since = time.monotonic()
        withdrawn: float | None = None
        while True:
            # Before the input is read: orders sent before a death must be seen after it.
            gone = self._await_something()
            for order in self._orders.read_new():
                try:
                    self._obey(**json.loads(order))
                except Exception:  # one order must not end the delivery of others
                    _logger.exception("an order cannot be carried out")
            for client in gone:
                self._bury(client)
            now = time.monotonic()
            if now >= self._next_adoption:
                self._adopt_orphans()
            if now >= self._next_tidying:
                self._tidy()
            if self._clients:
                alone_since = done_since = now
            elif self._left or self._stores.open():
                done_since = now
            done = now - done_since >= min(retry.REUSE, self._linger)
            if self._clients or not (done or now - alone_since > self._linger):
                continue
            if withdrawn is None:  # nobody finds the pipe from now on: look once more
                withdrawn = now
                if self._pipe is not None:
                    rendezvous.withdraw(self._pipe, self._orders.fd)
            # Not before those who have the pipe open. A fork of a dead client may keep it for long.
            elif self._orders.ended or now - withdrawn > retry.STRAY_FORK:
                self._stores.sync()
                return

    def _await_something(self) -> list[Client]:
        """Wait for an order or the death of a client; those that are dead by then."""
        watched = {c.pidfd: c for c in self._clients.values() if c.pidfd is not None}
        poll = select.poll()
        for fd in watched:
            poll.register(fd, select.POLLIN)
        if not self._orders.ended:
            poll.register(self._orders.fd, select.POLLIN)
        # Nothing tells of a new writer of a pipe that had none, nor that all is delivered.
        asleep = self._clients and not self._orders.ended and len(watched) == len(self._clients)
        events = poll.poll(1000 * (retry.IDLE if asleep else retry.LINGER_POLL))
        unwatched = [c for c in self._clients.values() if c.pidfd is None and c.is_gone()]
        return unwatched + [watched[fd] for fd, _ in events if fd in watched]

    def _obey(
        self,
        client: int,
        started: str,
        journal: str = "",
        tracking_uri: str = "",
        *,
        wake: bool = False,
        leaves: bool = False,
    ) -> None:
        who = (client, started)
        if leaves:
            if (left := self._clients.pop(who, None)) is not None:
                left.close()
                self._stores.release(left.journals)
            return
        known = self._clients.get(who)
        if known is None:
            known = self._clients[who] = Client(client, started)
        if journal:
            path = Path(journal)
            known.journals.add(path)
            known.uris.add(tracking_uri)
            known.folders.add(path.parent)
            self._stores.add(path, tracking_uri)
        else:
            self._stores.look(known.uris, hurry=wake)

    def _bury(self, client: Client) -> None:
        """End the runs of a client that is dead, and take over what others left behind."""
        if self._clients.pop((client.pid, client.started), None) is None:
            return  # it has left
        client.close()
        self._stores.orphan(client.journals)
        for folder in client.folders:
            self._left.setdefault(folder, set()).update(client.uris)

    def _adopt_orphans(self) -> None:
        """Take over journals that earlier processes of this machine left behind in the spools of
        dead clients, except offline ones.

        Only journals that nobody else can have written, with the same credentials, and only those
        for the stores that a client delivered to: its credentials go nowhere else.
        """
        for folder, uris in self._left.items():
            for journal in spool.journals(folder):
                if self._stores.knows(journal) or not spool.is_ours(journal):
                    continue
                with contextlib.suppress(OSError, ValueError):
                    head = read_head(journal)
                    uri = next((uri for uri in uris if same_store(uri, head.tracking_uri)), None)
                    left = head.live and is_dead(journal, head.writer)
                    if left and uri is not None and had_credentials(journal, self._credentials):
                        self._stores.add(journal, uri, orphaned=True)
        if self._left:
            self._left.clear()
            self._next_adoption = time.monotonic() + retry.ADOPT

    def _tidy(self) -> None:
        """Forget what is done, as this process may live for days."""
        self._next_tidying = time.monotonic() + retry.IDLE
        self._stores.tidy()
        for client in self._clients.values():
            client.journals = {one for one in client.journals if self._stores.knows(one)}


def _import_mlflow() -> None:
    """Import mlflow while the training is busy with its own start."""
    # What an import makes stays: to look for garbage in it, now and at each full collection, would
    # take a fifth of the import's CPU time.
    gc.disable()
    try:
        import orbiter_mlflow.delivery.mlflow_sink  # noqa: F401  for the time that it takes
    except Exception:  # it will fail again at each journal, and be told there
        _logger.exception("mlflow cannot be imported")
    finally:
        gc.freeze()
        gc.enable()


def _allow_many_files() -> None:
    """Each journal takes a descriptor, and each training another."""
    if resource is not None:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> None:
    """Serve the orders on standard input."""
    pid, started, pipe = int(sys.argv[1]), sys.argv[2].removeprefix("-"), sys.argv[3]
    # Helpers that it starts, such as a login of a cloud, must not read the orders.
    orders = Descriptor(os.dup(0))
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    _allow_many_files()
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    linger = float(os.environ.get("ORBITER_MLFLOW_LINGER", retry.LINGER))
    # Beside the first orders: the journals that they name are synced meanwhile.
    threading.Thread(target=_import_mlflow, name="orbiter-import", daemon=True).start()
    Server(
        Orders(orders.number), None if pipe == "-" else Path(pipe), Client(pid, started), linger
    ).serve()


if __name__ == "__main__":
    main()
