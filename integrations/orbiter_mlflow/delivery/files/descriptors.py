"""File descriptors that stay open for hours in a user's process.

Programs close numbers that they take for their own (a daemon's `os.closerange(3, 256)`), and the
next file that they open gets the number. So ours have high numbers, and each is checked before it
is written to or closed. A forked child closes its copies.
"""

import contextlib
import os
import weakref
from importlib import import_module
from typing import Any


def module_if_any(name: str) -> Any:
    """A module of the standard library that not every system has; None if it is missing."""
    try:
        return import_module(name)
    except ImportError:
        return None


fcntl, resource = module_if_any("fcntl"), module_if_any("resource")  # not on Windows

_FLOOR = 512
"""The lowest number, if the limit on open files allows it; beyond those that programs close
blindly."""


class Descriptor:
    """A descriptor of ours, moved to a high number.

    Args:
        fd: an open descriptor, which this object takes over.

    Attributes:
        number: the number for `os.write` and others; -1 once it is closed.
    """

    def __init__(self, fd: int) -> None:
        status = os.fstat(fd)
        self._identity = status.st_dev, status.st_ino
        self.number = moved_up(fd)
        _ours.add(self)

    def is_ours(self) -> bool:
        """Whether the number still refers to our file; False once it is closed."""
        return self.number >= 0 and identity(self.number) == self._identity

    def has_name(self) -> bool:
        """Whether the number refers to our file and the file has a name, so that writes are not
        lost."""
        try:
            status = os.fstat(self.number)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._identity and status.st_nlink > 0

    def renew(self, fd: int) -> bool:
        """Replace the number by a newly opened descriptor; one of another file is closed, and the
        result is False."""
        if identity(fd) != self._identity:
            os.close(fd)
            return False
        self.number = moved_up(fd)
        return True

    def close(self) -> None:
        """Close it, unless the number belongs to another file by now."""
        if self.is_ours():
            os.close(self.number)
        self.number = -1


def identity(fd: int) -> tuple[int, int] | None:
    """The device and inode of a descriptor's file; None if it is not open."""
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def moved_up(fd: int) -> int:
    """Move a descriptor to a high number that child programs do not inherit; `fd` is closed."""
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
    """Close our descriptors in a forked child, which would otherwise keep the parent's locks."""
    for one in list(_ours):
        with contextlib.suppress(OSError):
            one.close()
    _ours.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_after_fork)
