"""Who drains the journals of a training process, as that process sees it."""

import contextlib
import logging
import os
import threading
import time
import weakref
from abc import ABC, abstractmethod
from pathlib import Path

from orbiter_mlflow.delivery.hosts.exits import DELIVERY, at_worker_exit
from orbiter_mlflow.delivery.journal import read_head
from orbiter_mlflow.delivery.spool import is_waiting, problem_of
from orbiter_mlflow.delivery.store_uri import is_local

_logger = logging.getLogger(__name__)

_POLL = 0.02
"""Seconds between looks at the acks while the process waits to exit."""


class Host(ABC):
    """Delivers journals in the background.

    At exit it waits a little for what is under way, but for nothing that is in trouble.
    """

    waits = True
    """Whether waiting for delivery makes sense."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._journals: set[Path] = set()
        self._told: set[Path] = set()
        at_worker_exit(self, Host._finish, DELIVERY)

    def deliver(self, journal: Path, tracking_uri: str, patience: float) -> None:
        """Deliver a journal from now on.

        Args:
            journal: the file.
            tracking_uri: with credentials, if it has any.
            patience: seconds that the user is willing to wait for delivery.
        """
        self._journals.add(journal)
        self._start(journal, tracking_uri, patience)

    @abstractmethod
    def wake(self) -> None:
        """Somebody waits: look at the journals now."""

    def appended(self) -> None:  # noqa: B027  most hosts have nothing to do then
        """A record has been appended; must not take longer than a look at the clock."""

    @abstractmethod
    def forget(self) -> None:
        """Give back, in a forked child, what belongs to the parent's delivery."""

    @abstractmethod
    def _start(self, journal: Path, tracking_uri: str, patience: float) -> None: ...

    @abstractmethod
    def _exit_wait(self) -> float:
        """Seconds that the exit of the process may take, at most."""

    def tell(self, journal: Path, problem: str) -> None:
        """Warn, once for each journal, that it could not be delivered in time."""
        if journal in self._told:
            return
        self._told.add(journal)
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
            time.sleep(_POLL)
        for journal in self._waiting():
            problem = problem_of(journal)
            if problem or not self._goes_on_without_us():
                self.tell(journal, problem)

    def _clears_up(self) -> bool:
        """Whether journals that are delivered to their end are about to be removed here."""
        return False

    def _goes_on_without_us(self) -> bool:
        """Whether delivery outlives this process."""
        return False

    def _waiting(self) -> list[Path]:
        self._journals = {journal for journal in self._journals if is_waiting(journal)}
        return sorted(self._journals - self._told)

    def _under_way(self) -> bool:
        return any(not problem_of(journal) for journal in self._waiting())


class OfflineHost(Host):
    """Delivers nothing: the journals wait for `orbiter-mlflow sync`."""

    waits = False

    def wake(self) -> None:
        """Nobody is there to wake."""

    def forget(self) -> None:
        """Nothing is held."""

    def _start(self, journal: Path, tracking_uri: str, patience: float) -> None:
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
    except OSError:  # it cannot be told
        return False
    return False


def sync_command(journal: Path) -> str:
    """What delivers a journal of this process by hand, whatever the shell has in its environment:
    only who wrote the journal knows that a server named in it can be trusted."""
    flag = ""
    with contextlib.suppress(OSError, ValueError):
        flag = "" if is_local(read_head(journal).tracking_uri) else "--trust-uri "
    return f"orbiter-mlflow sync {flag}{journal}"


_hosts: dict[type[Host], Host] = {}
_lock = threading.Lock()


def host_of(kind: type[Host]) -> Host:
    """The host of a kind in this process, started at the first call."""
    with _lock:
        if kind not in _hosts:
            _hosts[kind] = kind()
        return _hosts[kind]


def _finish_all() -> None:
    for host in list(_hosts.values()):
        host._finish()


# At exit, finalizers run last made, first run. This one is made before any trainer can be: the end
# of each run has been written when delivery gets its moment.
weakref.finalize(Host, _finish_all)


def _forget_after_fork() -> None:
    """A forked child has none of its parent's threads, and must not keep its parent's journals."""
    global _lock
    _lock = threading.Lock()
    for host in _hosts.values():
        host.forget()
    _hosts.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
