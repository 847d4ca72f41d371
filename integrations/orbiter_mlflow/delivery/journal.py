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
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from orbiter_mlflow import names
from orbiter_mlflow.delivery.files.descriptors import Descriptor
from orbiter_mlflow.delivery.files.room import DISK_FULL, RESERVE, Room, give_back
from orbiter_mlflow.delivery.last_words import Unkept, is_last_word
from orbiter_mlflow.delivery.presence import Presence
from orbiter_mlflow.delivery.records import (
    Close,
    Head,
    Metrics,
    Params,
    Record,
    Tags,
    decode,
    encode,
    split,
)
from orbiter_mlflow.errors import DamagedLineError

_logger = logging.getLogger(__name__)

_BLOCK = 1 << 22
"""Bytes read at a time: some 10,000 records, so that memory stays flat in a journal of any size."""
_END = 1 << 16
"""Bytes at the end of a journal that are looked through for the last time."""
_LAST_TRIES, _LAST_PAUSE = 10, 0.02
"""Tries, and seconds between them, to write last words on a disk that has not kept the room for
them: others may take the room that we have given back for them."""
_SECOND_RESERVE = 1 << 12
"""Bytes that are given back for the last words where a disk allocates ahead, and does not keep to
it."""


class Journal:
    """The writing end. Appends from any thread; silent in a forked child, which is not the writer.

    On a full disk points are counted in `lost`, and the latest of each param and tag is kept in
    memory for later. For how the run ends there is room: see `Room`.

    Args:
        path: the file to make; it must not exist. Only its owner may read it.
        head: the first record.

    Raises:
        OSError: the file cannot be made or the head not be written.
    """

    def __init__(self, path: Path, head: Head) -> None:
        self.path = path
        self.lost = 0
        self._told_lost = 0
        self._warned = False
        self._later = Unkept()
        self._numbers = itertools.count(1)
        self._pid = os.getpid()
        self._torn = False
        self._ended = False
        self._closed = False
        self._size = 0
        # Reentrant: a garbage collection in the middle of it may close the run of another trainer.
        self._lock = threading.RLock()
        self._file = Descriptor(
            os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        )
        self._room = Room()
        self._presence = Presence(path)
        try:
            self._begin(encode(head, 0))
        except OSError:
            self._file.close()
            self._presence.close(remove=True)
            path.unlink()
            raise
        self._presence.reserve(_SECOND_RESERVE if self._room.supported else RESERVE)

    @property
    def size(self) -> int:
        """Bytes up to the end of the last whole record: the offset at which all is delivered."""
        return self._size

    def append(self, record: Record) -> None:
        """Keep a record; counted in `lost`, with one warning, where the disk does not take it."""
        if os.getpid() != self._pid:
            return
        last = is_last_word(record)
        if last:
            self._catch_up(last=True)
            self._tell_lost()
        for part in split(record):
            self._keep(part, last=last)
        if self._later and isinstance(record, Params | Tags):
            self._catch_up(last=False)  # there may be room again

    def close(self) -> None:
        """Give the journal's file back. Appends after it are counted as lost."""
        if os.getpid() != self._pid or self._closed:
            return
        self._closed = True
        if self._file.is_ours():
            give_back(self._file.number)
        self._file.close()
        self._presence.close(remove=self._ended)

    def _begin(self, line: bytes) -> None:
        try:
            self._write(line, last=False)
        except OSError:  # no room for a reserve
            self._write(line, last=True)

    def _keep(self, part: Record, *, last: bool) -> bool:
        try:
            self._write(encode(part, next(self._numbers)), last=last)
        except OSError as error:
            self._refused(part, error)
            return False
        self._later.forget(part)
        self._ended = isinstance(part, Close)
        return True

    def _refused(self, part: Record, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            _logger.warning(
                "the journal %s takes no more records (%s): training goes on, and what "
                "could not be kept is counted in the run's tags",
                self.path,
                error.strerror,
            )
        if not self._later.takes(part):
            self._lose(1)

    def _lose(self, count: int) -> None:
        self.lost += count
        # Now and then, for a kill must not leave it untold; but not in the room of the last words.
        if self._room.supported and self.lost >= 2 * self._told_lost:
            self._tell_lost()

    def _tell_lost(self) -> None:
        if self.lost > self._told_lost:
            told = self.lost
            with suppress(OSError):
                told_record = Tags({names.LOST: str(told)})
                self._write(encode(told_record, next(self._numbers)), last=True)
                self._told_lost = told

    def _catch_up(self, *, last: bool) -> None:
        """Keep what the disk did not take before; what it does not take as last words is lost."""
        for record in self._later.records():
            for part in split(record):
                try:
                    self._write(encode(part, next(self._numbers)), last=last)
                except OSError:
                    if last:
                        self._lose(1)
                        self._later.forget(part)
                else:
                    self._later.forget(part)

    def _write(self, line: bytes, *, last: bool) -> None:
        try:
            self._write_once(line, last=last)
        except OSError as error:
            if not last or error.errno not in DISK_FULL:
                raise
        else:
            return
        self._presence.spend()
        for tries_left in reversed(range(_LAST_TRIES)):
            try:
                self._write_once(line, last=last)
            except OSError:
                if not tries_left:
                    raise
                time.sleep(_LAST_PAUSE)
            else:
                return

    def _write_once(self, line: bytes, *, last: bool) -> None:
        fd = self._descriptor()
        was_torn = self._torn
        if was_torn:  # end the line that the disk cut short, or this one would be lost with it
            line = b"\n" + line
        self._room.ensure(fd, self._size + len(line), last=last)
        written = os.write(fd, line)
        self._torn = written < len(line)
        if self._torn:
            raise OSError(errno.ENOSPC, f"only {written} of {len(line)} bytes were written")
        with self._lock:
            self._size = os.fstat(fd).st_size if was_torn else self._size + written

    def _descriptor(self) -> int:
        """The journal's, opened anew where another part of this program has closed it.

        Raises:
            OSError: the journal is closed, or its file was removed or replaced.
        """
        if self._closed:
            raise OSError(errno.EBADF, "it is closed")
        self._presence.check()
        if not self._file.stands():
            with self._lock:
                if not self._file.stands() and not self._file.renew(
                    os.open(self.path, os.O_WRONLY | os.O_APPEND)
                ):
                    raise OSError(errno.ESTALE, "another file is in its place")
        return self._file.number


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


def whole_size(path: Path) -> int:
    """Bytes of a journal up to the end of its last whole line: all that can ever be delivered.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - _END)
            file.seek(start)
            if (newline := file.read(end - start).rfind(b"\n")) >= 0:
                return start + newline + 1
            end = start
    return 0


def is_closed(path: Path) -> bool:
    """Whether the last whole line of a journal is a `Close`: its writer is done with it.

    Raises:
        OSError: the file cannot be read.
    """
    end = whole_size(path)
    with path.open("rb") as file:
        file.seek(max(0, end - 1024))
        *_, line, _ = b"\n", *file.read(min(end, 1024)).split(b"\n")
    with suppress(ValueError):
        return isinstance(decode(line), Close)
    return False


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
