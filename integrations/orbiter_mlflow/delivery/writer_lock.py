"""The lock that the writer of a journal holds while it lives, on a file beside the journal.

A pid reveals a death at once, but only inside the writer's container. The lock is seen by everybody
who sees the disk: while it is held the writer lives, and its journal is neither ended nor removed.
"""

import contextlib
import json
import os
import socket
import time
from pathlib import Path

from orbiter_mlflow.delivery import retry
from orbiter_mlflow.delivery.files import locks
from orbiter_mlflow.delivery.files.descriptors import Descriptor
from orbiter_mlflow.delivery.process_identity import ProcessIdentity, is_gone, runs_elsewhere
from orbiter_mlflow.delivery.store_environment import digest, present

_NOTE = 128
"""Bytes at the start of the file for the note that says whether the lock can be relied on."""


class WriterLock:
    """The lock of a journal that this process writes. Never raises: on a disk that takes no file or
    has no locks, only the pid reveals a death.

    Args:
        journal: the journal.
    """

    def __init__(self, journal: Path) -> None:
        self._path = path_of(journal)
        self._stores = digest(present())
        self._file: Descriptor | None = None
        self._next = time.monotonic() + retry.WRITER_LOCK_CHECK
        with contextlib.suppress(OSError):
            self._file = Descriptor(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            self._lock()

    def check(self) -> None:
        """Lock the file again if another part of the program has closed its descriptor."""
        now = time.monotonic()
        if now < self._next or self._file is None:
            return
        self._next = now + retry.WRITER_LOCK_CHECK
        with contextlib.suppress(OSError):
            if not self._file.is_ours() and self._file.renew(os.open(self._path, os.O_RDWR)):
                self._lock()

    def reserve(self, size: int) -> None:
        """Occupy `size` bytes of the disk until `free_reserve`."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.lseek(self._file.number, _NOTE, os.SEEK_SET)
                os.write(self._file.number, bytes(size))

    def free_reserve(self) -> None:
        """Free the bytes that `reserve` occupied."""
        if self._file is not None and self._file.is_ours():
            with contextlib.suppress(OSError):
                os.ftruncate(self._file.number, _NOTE)

    def close(self, *, remove: bool) -> None:
        """Release the lock. Without `remove` the file stays beside the journal, to show later that
        the writer is gone, and with which credentials it wrote."""
        if self._file is None:
            return
        if remove:
            with contextlib.suppress(OSError):
                self._path.unlink()
        else:
            self.free_reserve()
        self._file.close()
        self._file = None

    def _lock(self) -> None:
        assert self._file is not None  # noqa: S101  as both callers see to
        fd = self._file.number
        note = {"locked": locks.hold(fd), "inode": os.fstat(fd).st_ino, "stores": self._stores}
        os.lseek(fd, 0, os.SEEK_SET)
        os.write(fd, json.dumps(note).encode().ljust(_NOTE))


def path_of(journal: Path) -> Path:
    """The file that the writer of a journal locks."""
    return journal.with_suffix(".writer")


def is_dead(journal: Path, writer: ProcessIdentity) -> bool:
    """Whether the writer of a journal is certainly gone."""
    if not runs_elsewhere(writer):
        return is_gone(writer)
    # Another machine's locks may not be visible on this disk.
    return writer.host == socket.gethostname() and _was_left(path_of(journal))


def is_alive(journal: Path, writer: ProcessIdentity) -> bool:
    """Whether the writer of a journal is known to live, so that nobody can declare it ended."""
    if not runs_elsewhere(writer):
        return not is_gone(writer)
    try:
        return locks.is_held(path_of(journal)) is True
    except OSError:
        return False


def had_credentials(journal: Path, stores: str) -> bool:
    """Whether the writer of a journal had the credentials with the digest `stores`; see
    `store_environment`. True for one whose writer noted none, as earlier versions did."""
    try:
        with path_of(journal).open("rb") as file:
            return bool(json.loads(file.read(_NOTE)).get("stores", stores) == stores)
    except (OSError, ValueError, AttributeError):
        return True


def _was_left(path: Path) -> bool:
    """Whether a lock was held and no longer is; a copy of the file proves nothing."""
    try:
        with path.open("rb") as file:
            note, inode = json.loads(file.read(_NOTE)), os.fstat(file.fileno()).st_ino
        ours = note["locked"] is True and note["inode"] == inode
        return ours and locks.is_held(path) is False
    except (OSError, ValueError, LookupError, TypeError):
        return False
