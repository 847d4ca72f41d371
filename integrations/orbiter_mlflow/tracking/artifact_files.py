"""The files that a call of `log_artifact` means, and holding on to them until they are copied.

Only regular files are taken: a device or a FIFO never ends. A link inside a folder counts where it
leads to a file of that folder; what an agent puts into its own folder must not reach beyond it.
"""

import errno
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from orbiter_mlflow.delivery.kept_files import READ

__all__ = ["Found", "LeftOut", "folder_text", "found_at", "path_text", "reason_of"]

SMALL = 1 << 20
"""Bytes up to which a file is read at once, so that what is done to it later does not matter."""
_IN_MEMORY = 64 << 20
"""Bytes of such files that wait for their copy, at most, in the whole process."""
_FILE = 4096
"""Bytes that such a file costs at least."""
_OPEN = 128
"""Files that are kept open for their copy, at most, in the whole process."""


@dataclass(slots=True)
class Found:
    """A file to be copied.

    Attributes:
        path: where it lies.
        name: its path among the artifacts, as given.
        status: as it was when it was found.
        content: all of it, where it is small and has been read.
        fd: a descriptor, where it is open: what is removed meanwhile can be copied yet.
        changed: it was another file, or a changed one, by the time it was read.
    """

    path: str
    name: str
    status: os.stat_result
    content: bytes | None = None
    fd: int | None = None
    changed: bool = False
    _allowed: "tuple[_Allowance, int] | None" = None

    def hold(self) -> None:
        """Read it, if it is small, or keep it open, as far as memory and descriptors allow.

        Raises:
            OSError: it cannot be read.
        """
        size = self.status.st_size
        for allowance, amount in ((_memory, size + _FILE), (_open_files, 1)):
            if (allowance is _open_files or size <= SMALL) and allowance.take(amount):
                self._allowed = allowance, amount
                try:
                    self.open()
                except OSError as error:
                    self.release()
                    if error.errno not in (errno.EMFILE, errno.ENFILE):  # the training's go first
                        raise
                return

    def open(self) -> None:
        """Open it, or read it if it is small, unless that has been done.

        Raises:
            OSError: it cannot be read.
        """
        if self.content is not None or self.fd is not None:
            return
        self.fd = os.open(self.path, READ)
        if not stat.S_ISREG(os.fstat(self.fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file any more")
        if self.status.st_size <= SMALL:  # some of /proc say 0, and hold something
            with open(self.fd, "rb", closefd=False) as file:
                content = file.read(SMALL + 1)
            if len(content) <= SMALL:
                self.look()
                self.content = content
                self._close()

    def look(self) -> None:
        """Note whether it has changed since it was found; call it after reading."""
        assert self.fd is not None  # noqa: S101  it is open
        now = os.fstat(self.fd)
        self.changed = _identity(now) != _identity(self.status)

    def release(self) -> None:
        """Give back what it holds."""
        self.content = None
        self._close()
        if self._allowed is not None:
            allowance, amount = self._allowed
            self._allowed = None
            allowance.give_back(amount)

    def _close(self) -> None:
        fd, self.fd = self.fd, None
        if fd is not None:
            os.close(fd)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file or folder that is not taken, and why."""

    name: str
    reason: str


def path_text(given: Any) -> str:
    """The text of a path.

    Raises:
        Exception: it is none, or cannot say.
    """
    return os.fsdecode(given)


def folder_text(given: Any) -> str:
    """The text of a folder among the artifacts, as users give it: a number of an epoch, too.

    Raises:
        Exception: it cannot say.
    """
    if isinstance(given, PurePath):
        return given.as_posix()
    return os.fsdecode(given) if isinstance(given, bytes | os.PathLike) else str(given)


def found_at(path: str, folder: str, spool: Path) -> Iterator[Found | LeftOut]:
    """The files that a path means: itself, or all in it where it is a folder.

    Args:
        path: of a file or folder; where it is a link, what it leads to.
        folder: where to put it among the artifacts.
        spool: the folder of the journals, which is left out: its files grow as they are copied.
    """
    name = f"{folder}/{os.path.basename(os.path.abspath(path))}"  # noqa: PTH100,PTH119  texts
    try:
        status = os.stat(path)  # noqa: PTH116  a text
    except (OSError, ValueError) as error:  # a ValueError: no such name can exist
        yield LeftOut(name, reason_of(error))
        return
    if stat.S_ISREG(status.st_mode):
        yield Found(os.path.realpath(path), name, status)
    elif stat.S_ISDIR(status.st_mode):
        yield from _inside(os.path.realpath(path), name, spool)
    else:
        yield LeftOut(name, "neither a regular file nor a folder")


def _inside(root: str, name: str, spool: Path) -> Iterator[Found | LeftOut]:
    folders = [(root, name)]  # no recursion: folders may nest deeper than Python's stack
    while folders:
        folder, inside = folders.pop()
        try:
            with suppress(OSError):
                if os.path.samefile(folder, spool):  # noqa: PTH121  texts
                    yield LeftOut(inside, "the journals of running trainers")
                    continue
            with os.scandir(folder) as entries:
                for entry in entries:
                    below = f"{inside}/{entry.name}"
                    if entry.is_dir(follow_symlinks=False):
                        folders.append((entry.path, below))
                    elif entry.is_symlink():
                        yield _linked(root, entry.path, below)
                    elif entry.is_file(follow_symlinks=False):
                        yield _plain(entry, below)
                    else:
                        yield LeftOut(below, "neither a regular file nor a folder")
        except OSError as error:
            yield LeftOut(inside, reason_of(error))


def _plain(entry: "os.DirEntry[str]", name: str) -> Found | LeftOut:
    try:
        return Found(entry.path, name, entry.stat(follow_symlinks=False))
    except OSError as error:
        return LeftOut(name, reason_of(error))


def _linked(root: str, path: str, name: str) -> Found | LeftOut:
    try:
        real = os.path.realpath(path, strict=True)
        status = os.lstat(real)
    except OSError as error:
        return LeftOut(name, f"a link to nowhere ({reason_of(error)})")
    if os.path.commonpath([real, root]) != root:
        return LeftOut(name, "a link out of the folder: log what it leads to by itself")
    if not stat.S_ISREG(status.st_mode):
        return LeftOut(name, "a link to something that is no regular file")
    return Found(real, name, status)


def reason_of(error: Exception) -> str:
    """Why a file cannot be read, in words."""
    if isinstance(error, FileNotFoundError):
        return "it is not there (any more)"
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


class _Allowance:
    """An amount that all trainers of the process share."""

    def __init__(self, most: int) -> None:
        self._left = most
        # Reentrant: a garbage collection while it is held may end the run of another trainer.
        self._lock = threading.RLock()

    def take(self, amount: int) -> bool:
        """Take an amount; False if there is not so much left."""
        with self._lock:
            if amount > self._left:
                return False
            self._left -= amount
            return True

    def give_back(self, amount: int) -> None:
        with self._lock:
            self._left += amount


_memory = _Allowance(_IN_MEMORY)
_open_files = _Allowance(_OPEN)


def _forget_after_fork() -> None:
    """The parent copies what it holds; a lock that another thread held would never be free."""
    global _memory, _open_files
    _memory, _open_files = _Allowance(_IN_MEMORY), _Allowance(_OPEN)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
