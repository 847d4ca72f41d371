"""Meet the delivery process at its named pipe, or start one there.

A pipe with a reader can be opened for writing; without one, its delivery process is gone. Orders go
through the kernel and into no file, as they may contain credentials. A new delivery process gets a
new pipe, so that those who wrote into the pipe of the last one notice.
"""

import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

from orbiter_mlflow.delivery import retry
from orbiter_mlflow.delivery.files import locks
from orbiter_mlflow.delivery.files.descriptors import Descriptor


def connect(pipe: Path, lock: Path, start: Callable[[int], None]) -> Descriptor:
    """Open the pipe of the delivery process; start one if none reads it.

    Args:
        pipe: the named pipe.
        lock: a file that is locked while a delivery process is started.
        start: starts a delivery process with a descriptor for its orders.

    Returns:
        A descriptor for writing, which never waits.

    Raises:
        OSError: there can be no such pipe here, or no process; or somebody else holds the lock.
    """
    _require_private(pipe.parent)
    deadline = time.monotonic() + retry.CONNECT
    while True:
        writing = _opened(pipe)
        if writing is not None:
            return writing
        os.close(os.open(lock, os.O_RDWR | os.O_CREAT, 0o600))
        taken = locks.take(lock)
        if taken is not None:
            try:
                writing = _opened(pipe)
                return _made(pipe, start) if writing is None else writing
            finally:
                locks.release(taken)
        if time.monotonic() > deadline:
            raise OSError(errno.EBUSY, "another process starts delivery, and does not end", lock)
        time.sleep(retry.LOCK_POLL)


def withdraw(pipe: Path, reading: int) -> None:
    """Remove the pipe that a delivery process reads, so that nobody finds it any more."""
    with contextlib.suppress(OSError):
        if os.path.samestat(pipe.lstat(), os.fstat(reading)):
            pipe.unlink()


def _opened(pipe: Path) -> Descriptor | None:
    """A descriptor for writing to a pipe; None if nobody reads it, or there is none.

    Raises:
        OSError: it is no pipe of this user alone.
    """
    try:
        fd = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENOENT):
            return None
        raise
    status = os.fstat(fd)
    if stat.S_ISFIFO(status.st_mode) and _is_private(status, 0o077):
        return Descriptor(fd)
    os.close(fd)
    raise PermissionError(errno.EPERM, "not a pipe of this user alone", pipe)


def _made(pipe: Path, start: Callable[[int], None]) -> Descriptor:
    _remove_unread(pipe.parent)
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe, 0o600)
    try:
        reading = Descriptor(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW))
        try:
            writing = Descriptor(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW))
            try:
                start(reading.number)
            except BaseException:
                writing.close()
                raise
        finally:
            reading.close()
    except BaseException:
        pipe.unlink(missing_ok=True)
        raise
    return writing


def _remove_unread(folder: Path) -> None:
    """Remove the pipes of delivery processes that were killed; whoever makes one holds the lock."""
    for pipe in folder.glob("*.delivery"):
        with contextlib.suppress(OSError):  # another user's, or of another kind
            writing = _opened(pipe)
            if writing is None:
                pipe.unlink()
            else:
                writing.close()


def _require_private(folder: Path) -> None:
    if not _is_private(folder.stat(), 0o022):
        raise PermissionError(errno.EPERM, "others may write to the folder", folder)


def _is_private(status: os.stat_result, closed: int) -> bool:
    return status.st_uid == os.geteuid() and not status.st_mode & closed
