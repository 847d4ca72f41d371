"""The threads of a delivery process: some for each store, so that none waits for another.

A store that hangs holds up only its own journals. A server gets several threads, among which its
journals are divided: one request after the other would take a second for each sixty trainers and
some 15 ms on the way. A file takes one writer at a time anyway.
"""

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from orbiter_mlflow.delivery import retry
from orbiter_mlflow.delivery.durability import Syncer
from orbiter_mlflow.delivery.hosts.drain_loop import DrainLoop, open_mlflow

_logger = logging.getLogger(__name__)


class StoreThreads:
    """The journals under delivery, each with the thread that delivers it."""

    def __init__(self) -> None:
        self._threads: dict[str, list[_StoreThread]] = {}
        self._by_journal: dict[Path, _StoreThread] = {}
        self._syncer = Syncer()

    def add(self, journal: Path, tracking_uri: str, *, orphaned: bool = False) -> None:
        """Deliver a journal from now on, until it is closed; see `DrainLoop.add`."""
        self._syncer.watch(journal)
        if not self.knows(journal):
            self._by_journal[journal] = self._least_busy(tracking_uri)
        thread = self._by_journal[journal]
        thread.do(partial(thread.loop.add, journal, tracking_uri, orphaned=orphaned))

    def knows(self, journal: Path) -> bool:
        """Whether a journal is under delivery here."""
        return journal in self._by_journal and self._by_journal[journal].knows(journal)

    def orphan(self, journals: Iterable[Path]) -> None:
        """Note that the writer of some journals is gone, and deliver them soon."""
        for journal in filter(self.knows, journals):
            thread = self._by_journal[journal]
            thread.do(partial(thread.loop.orphan, journal))
            thread.look(hurry=True)

    def release(self, journals: Iterable[Path]) -> None:
        """Leave some journals to another process."""
        for journal in filter(self.knows, journals):
            thread = self._by_journal[journal]
            thread.do(partial(thread.loop.release, journal))

    def look(self, tracking_uris: Iterable[str], *, hurry: bool) -> None:
        """Look at the journals for some stores now.

        Args:
            tracking_uris: the stores.
            hurry: somebody waits, so journals in trouble are tried again soon.
        """
        for tracking_uri in set(tracking_uris):
            for thread in self._threads.get(tracking_uri, ()):
                thread.look(hurry=hurry)

    def open(self) -> bool:
        """Whether a journal is not completely delivered, except those that a person must fix."""
        return any(thread.is_open() for threads in self._threads.values() for thread in threads)

    def sync(self) -> None:
        """Sync the journals to the disk once more, because this process ends."""
        self._syncer.sync()

    def tidy(self) -> None:
        """Forget journals that are done, and end threads that have none any more."""
        for journal in [one for one, thread in self._by_journal.items() if not thread.knows(one)]:
            del self._by_journal[journal]
            self._syncer.unwatch(journal)
        used = set(self._by_journal.values())
        for uri, threads in list(self._threads.items()):
            for thread in threads:
                if thread not in used:
                    thread.end()
            self._threads[uri] = [thread for thread in threads if thread in used]
            if not self._threads[uri]:
                del self._threads[uri]

    def _least_busy(self, tracking_uri: str) -> "_StoreThread":
        threads = self._threads.setdefault(tracking_uri, [])
        most = retry.SERVER_THREADS if tracking_uri.startswith(("http:", "https:")) else 1
        loads = Counter(self._by_journal.values())
        if len(threads) < most and all(loads[thread] for thread in threads):
            threads.append(_StoreThread(tracking_uri))
        return min(threads, key=lambda thread: loads[thread])


class _StoreThread:
    """A thread that delivers journals to one store. It alone works on its loop: others leave tasks.

    Args:
        tracking_uri: the store.

    Attributes:
        loop: the journals.
    """

    def __init__(self, tracking_uri: str) -> None:
        self.loop = DrainLoop(open_mlflow)
        self._tracking_uri = tracking_uri
        self._event = threading.Event()
        self._tasks: deque[Callable[[], None]] = deque()
        self._hurry = self._ended = False
        threading.Thread(target=self._run, name="orbiter-delivery", daemon=True).start()

    def do(self, task: Callable[[], None]) -> None:
        """Do a task before the next look at the journals, which comes now."""
        self._tasks.append(task)
        self._event.set()

    def look(self, *, hurry: bool) -> None:
        """Look at the journals now; in a hurry also at those in trouble."""
        self._hurry |= hurry
        self._event.set()

    def knows(self, journal: Path) -> bool:
        """Whether a journal is, or may be about to be, among those of the loop."""
        return bool(self._tasks) or self.loop.knows(journal)

    def end(self) -> None:
        """End the thread. It has no journals, and gets no more."""
        self._ended = True
        self._event.set()

    def is_open(self) -> bool:
        """Whether something is to be done, except what a person must fix."""
        return bool(self._tasks) or bool(self.loop.open())

    def _run(self) -> None:
        while not self._ended:
            # The end of an orphan takes several looks, and nobody asks for them any more.
            self._event.wait(retry.LINGER_POLL if self.loop.has_orphans() else retry.IDLE)
            self._event.clear()
            try:
                self._turn()
            except Exception:  # the next journals must not wait forever
                _logger.exception("a thread of delivery has failed")
        self.loop.end()

    def _turn(self) -> None:
        while self._tasks:
            self._tasks[0]()
            self._tasks.popleft()  # now: until it is done it counts
        if self._hurry:
            self._hurry = False
            self.loop.wake()
        had_some = bool(self.loop.journals())
        self.loop.turn()
        if had_some and not self.loop.journals():
            # The file of a store may be removed, and made anew before the next journal.
            from orbiter_mlflow.delivery.mlflow_client.opening import close

            self.loop.close_stores()
            close(self._tracking_uri)
