"""The files of a checkpoint until they are uploaded: hard links beside the journal, or where they
lie if there can be no link.

A file is known by its inode, size and time of change, as hashing gigabytes would hold up the
training. Delivery refuses one that is not the same any more.
"""

import errno
import json
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter

from orbiter_mlflow.delivery import kept_files
from orbiter_mlflow.delivery.journal_reader import read_head
from orbiter_mlflow.delivery.process_identity import this_process
from orbiter_mlflow.delivery.records import Checkpoint
from orbiter_mlflow.delivery.spool import is_ours
from orbiter_mlflow.errors import HeldError, RejectedError

_SECOND = 10**9
_ANOTHER = {errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.ENOTDIR, errno.EISDIR, errno.ESTALE}
"""A link, a device or a folder lies there now, or the file was replaced on its server."""


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A file of a checkpoint, as it was reported.

    Attributes:
        name: its path in the checkpoint, parted by `/`.
        path: where it lies; None if that holds a secret.
        size: bytes.
        changed: time of its last change, in nanoseconds since the epoch.
        inode: of the file.
        link: name of the hard link beside the journal; None without one.
    """

    name: str
    path: str | None
    size: int
    changed: int
    inode: int
    link: str | None = None

    @classmethod
    def of(cls, name: str, path: str, status: os.stat_result) -> "ListedFile":
        """The file at a path."""
        return cls(name, path, status.st_size, status.st_mtime_ns, status.st_ino)

    def is_same(self, status: os.stat_result, *, moved: bool = False) -> bool:
        """Whether a file has the size and time that were reported.

        Args:
            status: of the file.
            moved: the spool was carried to another machine, perhaps with times in whole seconds.
        """
        changed = {self.changed, self.changed // _SECOND * _SECOND} if moved else {self.changed}
        same = status.st_size == self.size and status.st_mtime_ns in changed
        return same and (moved or status.st_ino == self.inode)


def link(journal: Path, file: ListedFile) -> ListedFile:
    """Link a file beside the journal, so that it outlives its removal.

    Raises:
        OSError: there can be no link, or the file is gone.
    """
    assert file.path is not None  # noqa: S101  it has just been found there
    folder = kept_files.folder_of(journal)
    folder.mkdir(mode=0o700, exist_ok=True)
    name = os.urandom(8).hex()
    follow = os.link not in os.supports_follow_symlinks  # Windows has no choice
    os.link(file.path, folder / name, follow_symlinks=follow)
    return replace(ListedFile.of(file.name, file.path, (folder / name).lstat()), link=name)


def unlink(journal: Path, files: Sequence[ListedFile]) -> None:
    """Remove the links of files.

    Raises:
        OSError: one cannot be removed.
    """
    for file in files:
        if file.link is not None and kept_files.is_plain_name(file.link):
            (kept_files.folder_of(journal) / file.link).unlink(missing_ok=True)


def encoded(files: Sequence[ListedFile]) -> bytes:
    """The list of a checkpoint's files as JSON."""
    return json.dumps([asdict(file) for file in files]).encode()


def read(journal: Path, record: Checkpoint) -> list[ListedFile]:
    """Read the list of a checkpoint's files.

    Raises:
        RejectedError: it is gone, damaged or forged.
        OSError: it cannot be read just now.
    """
    content = kept_files.verified(journal, record.listing).read_bytes()
    try:
        return _adapter().validate_python(json.loads(content))
    except ValueError as error:
        raise RejectedError(f"the list of files of {record.title!r}: {error}", definite=True) from (
            error
        )


def discard(journal: Path, record: Checkpoint) -> None:
    """Remove the list of a checkpoint's files, and their links.

    Raises:
        OSError: one cannot be removed.
    """
    with suppress(RejectedError):
        unlink(journal, read(journal, record))
    kept_files.discard(journal, record.listing)


def is_there(journal: Path, record: Checkpoint) -> bool:
    """Whether all files of a checkpoint are there as they were reported."""
    try:
        for file in read(journal, record):
            with opened(journal, file):
                pass
    except (OSError, RejectedError, HeldError):
        return False
    return True


@contextmanager
def opened(journal: Path, file: ListedFile) -> Iterator[tuple[Path, int]]:
    """Open a file: its link, or the file itself; yields the path and a descriptor.

    Raises:
        RejectedError: it is gone or was changed.
        HeldError: it lies on another machine, or only its owner may say that it be read.
        OSError: it cannot be read just now.
    """
    path, moved = _path(journal, file)
    try:
        fd = os.open(path, kept_files.READ)
    except FileNotFoundError:
        raise _gone(journal, file) from None
    except PermissionError as error:
        raise HeldError(f"the file {file.name!r} of a checkpoint cannot be read: {error}") from None
    except OSError as error:
        if error.errno in _ANOTHER:
            raise changed(file) from None
        raise
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or not file.is_same(status, moved=moved):
            raise changed(file)
        yield path, fd
    finally:
        os.close(fd)


def require_same(journal: Path, file: ListedFile) -> None:
    """Require that a file is as it was reported; to be called once it has been read.

    Raises:
        RejectedError: it is not, or is gone.
    """
    with opened(journal, file):
        pass


def changed(file: ListedFile) -> RejectedError:
    """The refusal of a file that is not what was reported."""
    return RejectedError(
        f"the file {file.name!r} has changed since the checkpoint was reported, or is another one",
        definite=True,
    )


def _path(journal: Path, file: ListedFile) -> tuple[Path, bool]:
    """Where to read a file, and whether it was carried there from another machine."""
    if file.link is not None:
        kept = kept_files.inside(journal, file.link)
        if kept.exists():
            return kept, kept.lstat().st_ino != file.inode and _is_elsewhere(journal)
    if file.path is None:
        raise _gone(journal, file)
    if not is_ours(journal):  # it could name any file of the user who delivers
        raise HeldError(
            f"the file {file.name!r} is not beside the journal, and the journal is not closed to "
            "other users: deliver it as the user who wrote it, where it was written"
        )
    return Path(file.path), False


def _gone(journal: Path, file: ListedFile) -> RejectedError | HeldError:
    if _is_elsewhere(journal):
        host = read_head(journal).writer.host
        return HeldError(
            f"the file {file.name!r} of a checkpoint is not here: run orbiter-mlflow sync on {host}"
        )
    return RejectedError(
        f"the file {file.name!r} was removed before it was uploaded", definite=True
    )


def _is_elsewhere(journal: Path) -> bool:
    return read_head(journal).writer.host != this_process().host


@cache
def _adapter() -> TypeAdapter[list[ListedFile]]:
    return TypeAdapter(list[ListedFile])
