"""Write the journal of one run: an append-only file that the drain reads.

An append is one `os.write` to a file opened with O_APPEND. Once it has returned, the record
survives the death of the process. The journal never raises into training: records that the disk
refuses are counted. Final records, which say how the run ended, have space reserved for them.
"""

import errno
import itertools
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from orbiter_mlflow import names
from orbiter_mlflow.delivery import retry
from orbiter_mlflow.delivery.files import disk_sync
from orbiter_mlflow.delivery.files.descriptors import Descriptor
from orbiter_mlflow.delivery.files.preallocation import (
    DISK_FULL,
    RESERVE,
    Preallocation,
    free_unused,
)
from orbiter_mlflow.delivery.records import (
    Close,
    Head,
    Params,
    Record,
    Status,
    Tags,
    Update,
    encode,
    entry_size,
    split,
)
from orbiter_mlflow.delivery.writer_lock import WriterLock

_logger = logging.getLogger(__name__)

_SMALL_RESERVE = 1 << 12
"""Bytes of a second reserve, for disks that preallocate but do not keep the space free."""
_MOST_DEFERRED = 1 << 15
"""Bytes of params and tags deferred in memory: half of the space reserved for final records."""


class Journal:
    """The journal of one run, open for appending from any thread.

    In a forked child, which is not the writer, it does nothing. On a full disk, points are counted
    in `lost`, and the latest of each param and tag is deferred until there is space.

    Args:
        path: the file to create; it must not exist. Only its owner may read it.
        head: the first record.

    Attributes:
        path: the file.
        lost: records that the disk refused.

    Raises:
        OSError: the file cannot be created or the head not be written.
    """

    def __init__(self, path: Path, head: Head) -> None:
        self.path = path
        self.lost = 0
        self._reported_lost = 0
        self._warned = False
        self._deferred = _Deferred()
        self._numbers = itertools.count(1)
        self._pid = os.getpid()
        self._torn = False
        self._closed = False
        self._size = 0
        # Reentrant: a garbage collection in the middle of it may close the run of another trainer.
        self._lock = threading.RLock()
        self._file = Descriptor(
            os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        )
        self._space = Preallocation()
        self._writer_lock = WriterLock(path)
        try:
            self._begin(encode(head, 0))
        except OSError:
            self._file.close()
            self._writer_lock.close(remove=True)
            path.unlink()
            raise
        self._writer_lock.reserve(_SMALL_RESERVE if self._space.supported else RESERVE)

    @property
    def size(self) -> int:
        """Bytes up to the end of the last complete record: the ack's offset once it is in the
        store."""
        return self._size

    def append(self, record: Record) -> None:
        """Append a record; one that the disk refuses is counted in `lost`, with one warning."""
        if os.getpid() != self._pid:
            return
        final = is_final(record)
        if final:
            self._write_deferred(final=True)
            self._report_lost()
        for part in split(record):
            self._append_part(part, final=final)
        if self._deferred and isinstance(record, Params | Tags):
            self._write_deferred(final=False)  # there may be space again

    def offer(self, record: Record) -> list[Record]:
        """Append a record, or return the parts of it that the disk refuses, for a caller that can
        send them otherwise; they are not counted."""
        refused: list[Record] = []
        for part in split(record):
            try:
                self._write(encode(part, next(self._numbers)), final=False)
            except OSError:
                refused.append(part)
        return refused

    def sync(self) -> None:
        """Wait until the disk has what was appended.

        Raises:
            OSError: the disk refuses.
        """
        if os.getpid() == self._pid and self._file.is_ours():
            disk_sync.sync(self._file.number)

    def close(self) -> None:
        """Close the file. Later appends are counted as lost."""
        if os.getpid() != self._pid or self._closed:
            return
        self._closed = True
        if self._file.is_ours():
            free_unused(self._file.number)
        self._file.close()
        self._writer_lock.close(remove=False)

    def _begin(self, line: bytes) -> None:
        try:
            self._write(line, final=False)
        except OSError:  # no space for a reserve
            self._write(line, final=True)

    def _append_part(self, part: Record, *, final: bool) -> None:
        try:
            self._write(encode(part, next(self._numbers)), final=final)
        except OSError as error:
            self._refused(part, error)
        else:
            self._deferred.forget(part)

    def _refused(self, part: Record, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            _logger.warning(
                "the journal %s takes no more records (%s): training goes on, and the run's tags "
                "count the records that are lost",
                self.path,
                error.strerror,
            )
        if not self._deferred.takes(part):
            self._lose(1)

    def _lose(self, count: int) -> None:
        self.lost += count
        # Now and then, so that a kill does not hide it; but never in the space of final records.
        if self._space.supported and self.lost >= 2 * self._reported_lost:
            self._report_lost()

    def _report_lost(self) -> None:
        if self.lost > self._reported_lost:
            lost = self.lost
            with suppress(OSError):
                tag = Tags({names.LOST: str(lost)})
                self._write(encode(tag, next(self._numbers)), final=True)
                self._reported_lost = lost

    def _write_deferred(self, *, final: bool) -> None:
        """Write the deferred records; those that the disk refuses at the end are lost."""
        for record in self._deferred.records():
            for part in split(record):
                try:
                    self._write(encode(part, next(self._numbers)), final=final)
                except OSError:
                    if final:
                        self._lose(1)
                        self._deferred.forget(part)
                else:
                    self._deferred.forget(part)

    def _write(self, line: bytes, *, final: bool) -> None:
        try:
            self._write_once(line, final=final)
        except OSError as error:
            if not final or error.errno not in DISK_FULL:
                raise
        else:
            return
        self._writer_lock.free_reserve()
        for tries_left in reversed(range(retry.FINAL_TRIES)):
            try:
                self._write_once(line, final=final)
            except OSError:
                if not tries_left:
                    raise
                time.sleep(retry.FINAL_PAUSE)
            else:
                return

    def _write_once(self, line: bytes, *, final: bool) -> None:
        fd = self._descriptor()
        was_torn = self._torn
        if was_torn:  # end the line that the disk cut short, or this one would be lost with it
            line = b"\n" + line
        self._space.ensure(fd, self._size + len(line), final=final)
        written = os.write(fd, line)
        self._torn = written < len(line)
        if self._torn:
            raise OSError(errno.ENOSPC, f"only {written} of {len(line)} bytes were written")
        with self._lock:
            self._size = os.fstat(fd).st_size if was_torn else self._size + written

    def _descriptor(self) -> int:
        """Return the journal's descriptor, reopened if another part of the program closed it.

        Raises:
            OSError: the journal is closed, or its file was removed or replaced.
        """
        if self._closed:
            raise OSError(errno.EBADF, "it is closed")
        self._writer_lock.check()
        if not self._file.has_name():
            with self._lock:
                if not self._file.has_name() and not self._file.renew(
                    os.open(self.path, os.O_WRONLY | os.O_APPEND)
                ):
                    raise OSError(errno.ESTALE, "another file is in its place")
        return self._file.number


def is_final(record: Record) -> bool:
    """Whether a record says how the run ended."""
    return isinstance(record, Close) or (
        isinstance(record, Status | Update) and record.end_time is not None
    )


class _Deferred:
    """Params and tags that the disk refused: the latest of each, to be written later."""

    def __init__(self) -> None:
        self._params: dict[str, str] = {}
        self._tags: dict[str, str] = {}

    def __bool__(self) -> bool:
        return bool(self._params or self._tags)

    def takes(self, record: Record) -> bool:
        """Defer a record; False where it is of another kind, or too much is deferred already."""
        if not isinstance(record, Params | Tags):
            return False
        size = sum(
            entry_size(key, text)
            for texts in (self._params, self._tags, record.values)
            for key, text in texts.items()
        )
        if size > _MOST_DEFERRED:
            return False
        self._like(record).update(record.values)
        return True

    def forget(self, record: Record) -> None:
        """Drop the params or tags of a record that has been written."""
        if self and isinstance(record, Params | Tags):
            for key in record.values:
                self._like(record).pop(key, None)

    def records(self) -> Iterator[Params | Tags]:
        """The deferred params and tags, a record each."""
        if self._params:
            yield Params(dict(self._params))
        if self._tags:
            yield Tags(dict(self._tags))

    def _like(self, record: Params | Tags) -> dict[str, str]:
        return self._params if isinstance(record, Params) else self._tags
