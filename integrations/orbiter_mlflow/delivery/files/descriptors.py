"""Descriptors that stay open for hours in a process that is not ours.

Programs close numbers that they take for their own (`os.closerange(3, 256)` of a daemon), and the
next file that they open is given the number. So ours lie high, and each is asked whether it still
is ours before it is written to or closed. A forked child closes its copies.
"""

import contextlib
import os
import weakref
from importlib import import_module
from typing import Any


def module_if_any(name: str) -> Any:
    """A module of the standard library that not every system has; None where it is missing."""
    try:
        return import_module(name)
    except ImportError:
        return None


fcntl, resource = module_if_any("fcntl"), module_if_any("resource")  # not on Windows

_FLOOR = 512
"""The lowest number, where the limit on open files allows it; beyond what people close blindly."""


class Descriptor:
    """A descriptor of ours, moved to a high number.

    Args:
        fd: taken over; it is closed where this fails.

    Attributes:
        number: what to give to `os.write` and others.
    """

    def __init__(self, fd: int) -> None:
        status = os.fstat(fd)
        self._identity = status.st_dev, status.st_ino
        self.number = moved_up(fd)
        _ours.add(self)

    def is_ours(self) -> bool:
        """Whether the number still means our file; False once it is closed."""
        return self.number >= 0 and identity(self.number) == self._identity

    def stands(self) -> bool:
        """Whether what is written to our file is in a file that has a name."""
        try:
            status = os.fstat(self.number)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._identity and status.st_nlink > 0

    def renew(self, fd: int) -> bool:
        """Go on with a newly opened descriptor; False, and it is closed, where it is of another
        file."""
        if identity(fd) != self._identity:
            os.close(fd)
            return False
        self.number = moved_up(fd)
        return True

    def close(self) -> None:
        """Close it, unless the number belongs to somebody else by now."""
        if self.is_ours():
            os.close(self.number)
        self.number = -1


def identity(fd: int) -> tuple[int, int] | None:
    """Which file a number means; None for none."""
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def moved_up(fd: int) -> int:
    """The same file under a high number that no program started by us inherits; `fd` is closed."""
    if fcntl is None or resource is None:
        return fd
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    floor = _FLOOR if limit == resource.RLIM_INFINITY else min(_FLOOR, limit // 2)
    try:
        high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, floor)
    except OSError:  # none is free up there
        return fd
    os.close(fd)
    return int(high)


_ours: "weakref.WeakSet[Descriptor]" = weakref.WeakSet()


def _close_after_fork() -> None:
    """A child that kept them would hold the locks of its parent, and outlive it with them."""
    for one in list(_ours):
        with contextlib.suppress(OSError):
            one.close()
    _ours.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_after_fork)
