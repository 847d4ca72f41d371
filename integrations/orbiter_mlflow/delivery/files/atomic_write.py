"""Replace a file atomically: the only way in which this package rewrites a file in place."""

import contextlib
import os
import time
from pathlib import Path

from orbiter_mlflow.delivery import retry
from orbiter_mlflow.delivery.files.preallocation import DISK_FULL

_BLOCK = 4096
"""The block size of most disks, in bytes. Content padded to a multiple of it fits into the blocks
of the content it replaces."""


def replace_file(path: Path, content: bytes, *, mode: int = 0o666) -> None:
    """Replace a file, or create it, so that a reader sees the old content or the new.

    Args:
        path: the file; `<name>.new` beside it is used for a moment.
        content: all of it.
        mode: permissions of the new file, less the umask.

    Raises:
        OSError: the file cannot be written; the old one is as it was.
    """
    fresh = path.with_name(f"{path.name}.new")
    try:
        fresh.touch(mode=mode)
        fresh.write_bytes(content)
        _rename(fresh, path)
    except OSError:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise


def replace_file_on_full_disk(path: Path, content: bytes) -> None:
    """Replace a file as `replace_file` does, and overwrite it in place where the disk is full.

    The content is padded with spaces, and only the owner may read it. While it is overwritten, and
    after a power failure, a reader may see a mixture of old and new, which it must detect.

    Raises:
        OSError: the file cannot be written, or does not exist yet on a full disk.
    """
    content = content.ljust(-(-len(content) // _BLOCK) * _BLOCK)
    try:
        replace_file(path, content, mode=0o600)
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        _overwrite(path, content, error)


def _rename(fresh: Path, path: Path) -> None:
    for tries_left in reversed(range(retry.REPLACE_TRIES)):
        try:
            fresh.replace(path)
        except PermissionError:  # Windows, while somebody reads it
            if os.name != "nt" or not tries_left:
                raise
            time.sleep(retry.REPLACE_PAUSE)
        else:
            return


def _overwrite(path: Path, content: bytes, full: OSError) -> None:
    try:
        file = path.open("r+b", buffering=0)
    except FileNotFoundError:
        raise full from None
    with file:
        if os.fstat(file.fileno()).st_size < len(content):  # half of it would be worse than none
            raise full
        file.write(content.ljust(os.fstat(file.fileno()).st_size))
