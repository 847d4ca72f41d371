"""Keep copies of a run's artifacts beside its journal until they are uploaded.

A copy is complete and hashed before its record is written. Before the upload it is verified: a
journal may come from elsewhere, and must not get other files read, sent or deleted.
"""

import errno
import hashlib
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from orbiter_mlflow.delivery.records import Artifact
from orbiter_mlflow.errors import RejectedError

READ = (
    os.O_RDONLY
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)  # a FIFO must not make us wait for its writer
)
"""Flags to open a file that somebody may be replacing with a link or a FIFO."""

_FICLONE = 0x40049409  # linux/fs.h; elsewhere it is refused, and the bytes are copied
_BLOCK = 1 << 20
_FREE = 64 << 20
"""Bytes that a copy leaves free on the disk for the journal, at most a twentieth of the disk."""
_PLAIN_NAME = re.compile(r"[\w-][\w.-]*", re.ASCII)


def keep_content(journal: Path, content: bytes, name: str, folder: str | None) -> Artifact:
    """Write `content` beside the journal; return its record.

    Raises:
        OSError: it cannot be written.
    """
    with _new_file(journal) as (file, fd):
        _require_space(file, len(content))
        with open(fd, "wb", closefd=False) as target:
            target.write(content)
    return Artifact(file.name, name, folder, len(content), hashlib.sha256(content).hexdigest())


def keep_copy(
    journal: Path,
    source: int,
    size: int,
    name: str,
    folder: str | None,
    *,
    like: os.stat_result | None = None,
) -> Artifact:
    """Copy the first `size` bytes of an open file beside the journal; return the copy's record.

    The blocks are shared if the file system supports that.

    Args:
        journal: the run's journal.
        source: the open file.
        size: bytes.
        name: the artifact's name in the run.
        folder: its folder in the run.
        like: a status whose times and mode the copy takes, as MLflow's local stores take them from
            what they are given; nobody else may write it, though. Default: it is readable by its
            owner only.

    Raises:
        OSError: the file cannot be read or copied.
    """
    with _new_file(journal) as (file, fd):
        if _share_blocks(source, fd):
            os.truncate(fd, min(size, os.fstat(fd).st_size))
        else:
            _require_space(file, size)
            _copy(source, fd, size)
        os.lseek(fd, 0, os.SEEK_SET)
        with open(fd, "rb", closefd=False) as copy:
            digest = hashlib.file_digest(copy, "sha256").hexdigest()
        if like is not None and hasattr(os, "fchmod"):
            os.fchmod(fd, stat.S_IMODE(like.st_mode) & 0o755 | 0o600)
            os.utime(fd, ns=(like.st_atime_ns, like.st_mtime_ns))
        return Artifact(file.name, name, folder, os.fstat(fd).st_size, digest)


def verified(journal: Path, artifact: Artifact) -> Path:
    """Return the file of an artifact after checking it against its record.

    It must be a regular file with a plain name in the journal's own folder, belong to the user who
    delivers (for root: to the owner of the journal), and have the recorded size and SHA-256.

    Raises:
        RejectedError: it is gone, damaged or forged; it must not be sent.
        OSError: it cannot be read just now.
    """
    path = _place(journal, artifact)
    try:
        fd = os.open(path, READ)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ELOOP, errno.EMLINK, errno.ENXIO):
            raise
        what = "is gone" if error.errno == errno.ENOENT else "is a link or no file"
        raise _refused(artifact, f"{what}: {path}") from None
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or not _is_ours(status, journal):
            raise _refused(artifact, f"is not a file of the journal's owner: {path}")
        if (
            status.st_size != artifact.size
            or hashlib.file_digest(file, "sha256").hexdigest() != artifact.sha256
        ):
            raise _refused(
                artifact,
                "is not what the journal says (size or SHA-256 differ: damaged, or put there by "
                f"somebody else): {path}",
            )
    return path


def folder_of(journal: Path) -> Path:
    """The folder of the files that are kept beside a journal."""
    return journal.with_suffix(".files")


def discard(journal: Path, artifact: Artifact) -> None:
    """Delete the file of an artifact, but never one outside the journal's own folder.

    Raises:
        OSError: it cannot be deleted.
    """
    with suppress(RejectedError):
        _place(journal, artifact).unlink(missing_ok=True)


def set_aside(journal: Path, artifact: Artifact) -> None:
    """Move the file of an artifact that the store refused to where `spool.remove` leaves it.

    Raises:
        OSError: it cannot be moved.
    """
    refused = journal.with_suffix(".refused")
    with suppress(RejectedError, FileNotFoundError):
        file = _place(journal, artifact)
        refused.mkdir(mode=0o700, exist_ok=True)
        file.rename(refused / file.name)


def _place(journal: Path, artifact: Artifact) -> Path:
    """The path of an artifact's file; raises as `inside` does."""
    try:
        return inside(journal, artifact.file)
    except RejectedError as error:
        raise _refused(artifact, str(error)) from None


def inside(journal: Path, name: str) -> Path:
    """The path of a file beside a journal, in a folder that nobody else can have changed.

    Raises:
        RejectedError: it would be elsewhere, or the folder is a link or another user's.
        OSError: the folder cannot be examined.
    """
    folder = folder_of(journal)
    what = ""
    if not is_plain_name(name):
        what = f"lies outside the journal's own folder: {name!r}"
    else:
        try:
            status = folder.lstat()
        except FileNotFoundError:
            what = f"is gone: there is no {folder}"
        else:
            if not stat.S_ISDIR(status.st_mode) or not _is_ours(status, journal):
                what = (
                    "is not in a folder of the journal's owner that nobody else can write: "
                    f"{folder}"
                )
    if what:
        raise RejectedError(what, definite=True)
    return folder / name


def is_plain_name(name: str) -> bool:
    """Whether it names a file of a folder, and nothing elsewhere."""
    return _PLAIN_NAME.fullmatch(name) is not None


def _is_ours(status: os.stat_result, journal: Path) -> bool:
    """Whether a file or folder belongs to the user who delivers, and nobody else can write it."""
    if not hasattr(os, "geteuid"):
        return True
    owner = os.geteuid() or journal.stat().st_uid
    return status.st_uid == owner and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _refused(artifact: Artifact, what: str) -> RejectedError:
    name = "/".join(part for part in (artifact.folder, artifact.name) if part)
    return RejectedError(f"the kept copy of artifact {name!r} {what}", definite=True)


@contextmanager
def _new_file(journal: Path) -> Iterator[tuple[Path, int]]:
    """Create a file beside the journal, for its owner only; remove it if the block fails."""
    folder = folder_of(journal)
    folder.mkdir(mode=0o700, exist_ok=True)
    file = folder / os.urandom(8).hex()
    fd = os.open(file, READ | os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        yield file, fd
    except BaseException:
        os.close(fd)
        file.unlink(missing_ok=True)
        raise
    os.close(fd)


def _require_space(file: Path, size: int) -> None:
    disk = shutil.disk_usage(file.parent)
    if disk.free - size < min(_FREE, disk.total // 20):
        raise OSError(errno.ENOSPC, f"no room for {size} bytes where the journals lie", str(file))


def _share_blocks(source: int, target: int) -> bool:
    """Make one file a reflink of another; False if the file system has none."""
    try:
        from fcntl import ioctl

        ioctl(target, _FICLONE, source)
    except (ImportError, OSError):  # not a POSIX system; another file system
        return False
    return True


def _copy(source: int, target: int, size: int) -> None:
    with open(source, "rb", buffering=0, closefd=False) as file:
        file.seek(0)
        with open(target, "wb", buffering=0, closefd=False) as copy:
            while size > 0 and (block := file.read(min(_BLOCK, size))):
                size -= len(block)
                while block:
                    block = block[copy.write(block) :]
