"""The host of delivery as a training process sees it: the interface, and one that does nothing."""

import contextlib
import logging
import os
import threading
import time
import weakref
from abc import ABC, abstractmethod
from pathlib import Path

from orbiter_mlflow.delivery import retry
from orbiter_mlflow.delivery.durability import Syncer
from orbiter_mlflow.delivery.hosts.exits import DELIVERY, at_worker_exit
from orbiter_mlflow.delivery.journal_reader import read_head
from orbiter_mlflow.delivery.spool import is_waiting, problem_of
from orbiter_mlflow.delivery.store_uri import is_local

_logger = logging.getLogger(__name__)


class Host(ABC):
    """Delivers journals in the background. No method waits for the store or raises into training.

    At exit it waits a little for deliveries under way, but for none that is in trouble.
    """

    waits = True
    """Whether waiting for delivery makes sense."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._journals: set[Path] = set()
        self._warned: set[Path] = set()
        self._syncer = Syncer()  # of the journals that no delivery process watches
        at_worker_exit(self, Host._finish, DELIVERY)

    def deliver(self, journal: Path, tracking_uri: str, flush_timeout: float) -> None:
        """Deliver a journal from now on.

        Args:
            journal: the file.
            tracking_uri: the store, with credentials if it has any.
            flush_timeout: seconds that the user is willing to wait for delivery.
        """
        self._journals.add(journal)
        self._start(journal, tracking_uri, flush_timeout)

    def prepare(self, spool: Path) -> None:  # noqa: B027  most hosts need no preparation
        """Get ready to deliver, as a journal in `spool` is likely to come."""

    @abstractmethod
    def wake(self) -> None:
        """Look at the journals now, because somebody waits for delivery."""

    def appended(self) -> None:  # noqa: B027  most hosts have nothing to do then
        """Called after each appended record; must not take longer than reading the clock."""

    def look(self) -> None:  # noqa: B027  nor here
        """Look at the journals now, because one has grown by `retry.FULL` bytes."""

    @abstractmethod
    def forget(self) -> None:
        """Release, in a forked child, everything that belongs to the parent's delivery."""

    @abstractmethod
    def _start(self, journal: Path, tracking_uri: str, flush_timeout: float) -> None: ...

    @abstractmethod
    def _exit_wait(self) -> float:
        """The longest that the exit of the process may take, in seconds."""

    def warn_undelivered(self, journal: Path, problem: str) -> None:
        """Warn, once for each journal, that it could not be delivered in time.

        Args:
            journal: the file.
            problem: why, in words; may be empty.
        """
        if journal in self._warned:
            return
        self._warned.add(journal)
        if _is_removed(journal):
            _logger.warning(
                "the journal %s was removed before it was delivered: what had not reached MLflow "
                "by then is lost",
                journal,
            )
        else:
            _logger.warning(
                "not everything has reached MLflow yet (%s); nothing is lost, it waits in %s; "
                "deliver it later with: %s",
                problem or "delivery has not finished",
                journal,
                sync_command(journal),
            )

    def _finish(self) -> None:
        if os.getpid() != self._pid:
            return
        deadline = time.monotonic() + self._exit_wait()
        while (self._under_way() or self._clears_up()) and time.monotonic() < deadline:
            self.wake()
            time.sleep(retry.ACK_POLL)
        self._syncer.sync()
        for journal in self._waiting():
            problem = problem_of(journal)
            if problem or not self._goes_on_without_us():
                self.warn_undelivered(journal, problem)

    def _clears_up(self) -> bool:
        """Whether completely delivered journals are about to be removed here."""
        return False

    def _goes_on_without_us(self) -> bool:
        """Whether delivery outlives this process."""
        return False

    def _waiting(self) -> list[Path]:
        self._journals = {journal for journal in self._journals if is_waiting(journal)}
        return sorted(self._journals - self._warned)

    def _under_way(self) -> bool:
        return any(not problem_of(journal) for journal in self._waiting())


class OfflineHost(Host):
    """Delivers nothing, but syncs the journals: they wait for `orbiter-mlflow sync`."""

    waits = False

    def wake(self) -> None:
        """Do nothing."""

    def forget(self) -> None:
        """Do nothing."""

    def _start(self, journal: Path, tracking_uri: str, flush_timeout: float) -> None:
        self._syncer.watch(journal)
        _logger.info("offline: deliver it later with: %s", sync_command(journal))

    def _exit_wait(self) -> float:
        return 0.0

    def _goes_on_without_us(self) -> bool:
        return True


def _is_removed(journal: Path) -> bool:
    try:
        journal.stat()
    except FileNotFoundError:
        return True
    except OSError:  # unknown
        return False
    return False


def sync_command(journal: Path) -> str:
    """The command that delivers a journal of this process, whatever the shell's environment: only
    the process that wrote the journal knows that the server named in it can be trusted."""
    flag = ""
    with contextlib.suppress(OSError, ValueError):
        flag = "" if is_local(read_head(journal).tracking_uri) else "--trust-uri "
    return f"orbiter-mlflow sync {flag}{journal}"


_hosts: dict[type[Host], Host] = {}
_lock = threading.Lock()


def host_of(kind: type[Host]) -> Host:
    """The host of a kind in this process, created on the first call."""
    with _lock:
        if kind not in _hosts:
            _hosts[kind] = kind()
        return _hosts[kind]


def _finish_all() -> None:
    for host in list(_hosts.values()):
        host._finish()


# At exit, the finalizer made last runs first. This one is made before any trainer can be, so the
# end of each run has been written when delivery waits for it.
weakref.finalize(Host, _finish_all)


def _forget_after_fork() -> None:
    """Drop the parent's hosts: a forked child has no threads, and must not keep the journals."""
    global _lock
    _lock = threading.Lock()
    for host in _hosts.values():
        host.forget()
    _hosts.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
