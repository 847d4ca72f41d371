"""The journal of one run: an append-only file, written by the trainer and read by the drain.

An append is one `os.write` to a file opened with O_APPEND. Once it has returned, the record
survives the death of the process. The journal never raises into training: what the disk does not
take is counted.
"""

import errno
import itertools
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from orbiter_mlflow.delivery.records import (
    DamagedLineError,
    Head,
    Metrics,
    Record,
    decode,
    encode,
    split,
)

_logger = logging.getLogger(__name__)

_BLOCK = 1 << 22
"""Bytes read at a time: some 10,000 records, so that memory stays flat in a journal of any size."""
_END = 1 << 16
"""Bytes at the end of a journal that are looked through for the last time."""


class Journal:
    """The writing end. Appends from any thread; silent in a forked child, which is not the writer.

    Args:
        path: the file to make; it must not exist. Only its owner may read it.
        head: the first record.

    Raises:
        OSError: the file cannot be made or the head not be written.
    """

    def __init__(self, path: Path, head: Head) -> None:
        self.path = path
        self.lost = 0
        self._numbers = itertools.count(1)
        self._pid = os.getpid()
        self._torn = False
        self._size = 0
        # Reentrant: a garbage collection in the middle of it may close the run of another trainer.
        self._size_lock = threading.RLock()
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            self._write(encode(head, 0))
        except OSError:
            os.close(self._fd)
            path.unlink()
            raise

    @property
    def size(self) -> int:
        """Bytes up to the end of the last whole record: the offset at which all is delivered."""
        return self._size

    def append(self, record: Record) -> None:
        """Keep a record; counted in `lost`, with one warning, where the disk does not take it."""
        if os.getpid() != self._pid:
            return
        for part in split(record):
            try:
                self._write(encode(part, next(self._numbers)))
            except OSError as error:
                self.lost += 1
                if self.lost == 1:
                    _logger.warning(
                        "the journal %s takes no more records (%s): training goes on, and what "
                        "could not be kept is counted in the run's tags",
                        self.path,
                        error.strerror,
                    )

    def close(self) -> None:
        """Give the file back. Appends after it are counted as lost."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _write(self, line: bytes) -> None:
        was_torn = self._torn
        if was_torn:  # end the line that the disk cut short, or this one would be lost with it
            line = b"\n" + line
        written = os.write(self._fd, line)
        self._torn = written < len(line)
        if self._torn:
            raise OSError(errno.ENOSPC, f"only {written} of {len(line)} bytes were written")
        with self._size_lock:
            self._size = os.fstat(self._fd).st_size if was_torn else self._size + written


@dataclass(frozen=True, slots=True)
class Entry:
    """A record as read, and the offset behind it; `record` is None for a line that is damaged."""

    record: Record | None
    end: int
    damage: str = ""


def read(path: Path, offset: int = 0, *, kind: str | None = None) -> Iterator[Entry]:
    """The entries from `offset` on, or those of one kind, which costs little for the others.

    A last line without its newline is left for the next reading.

    Raises:
        UnknownFormatError: the head is of another format version.
        OSError: the file cannot be read.
    """
    ending = b"" if kind is None else b'"kind":"%s"}}' % kind.encode()  # as `encode` writes it
    with path.open("rb") as file:
        file.seek(offset)
        rest = b""
        while block := file.read(_BLOCK):
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                offset += len(line) + 1
                if not line or not line.endswith(ending):
                    continue
                try:
                    yield Entry(decode(line), offset)
                except DamagedLineError as error:
                    yield Entry(None, offset, str(error))


def last_time(path: Path) -> int:
    """When the writer was last seen to live, in milliseconds since the epoch: the time of the last
    record that has one. The file's own time is that of a copy where the journal was copied; it is
    taken where the end of the journal, some hundred records, holds no time.

    Raises:
        OSError: the file cannot be read.
    """
    status = path.stat()
    with path.open("rb") as file:
        file.seek(max(0, status.st_size - _END))
        lines = file.read().split(b"\n")
    for line in reversed(lines):
        with suppress(DamagedLineError):
            record = decode(line)
            if isinstance(record, Metrics):
                return record.time
            if isinstance(record, Head):
                return record.start_time
    return int(status.st_mtime * 1000)


def read_head(path: Path) -> Head:
    """The first record of a journal.

    Raises:
        ValueError: the file does not begin with a head.
        UnknownFormatError: the head is of another format version.
        OSError: the file cannot be read.
    """
    for entry in read(path):
        if isinstance(entry.record, Head):
            return entry.record
        break
    raise ValueError(f"{path} is no journal: its first line is not a head")
