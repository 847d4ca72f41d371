"""Replace a small file in one step, also on a disk that is full."""

import contextlib
import os
import time
from pathlib import Path

from orbiter_mlflow.delivery.files.room import DISK_FULL

_BLOCK = 4096
"""Files are filled up with spaces to a multiple of this, the blocks that most disks have: what is
new then fits into the blocks of what was there."""
_TRIES, _PAUSE = 10, 0.01
"""Of the replacement, on systems that replace no file while somebody reads it."""


def replace_file(path: Path, content: bytes) -> None:
    """Put content in the place of a file, so that a reader sees the old or the new one.

    On a full disk it is written over the old one instead. A reader may then see a mixture, for an
    instant or after a power failure; it must be able to tell.

    Raises:
        OSError: the file cannot be written.
    """
    content = content.ljust(-(-len(content) // _BLOCK) * _BLOCK)
    fresh = path.with_name(f"{path.name}.new")
    try:
        fresh.touch(mode=0o600)
        fresh.write_bytes(content)
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        if error.errno not in DISK_FULL:
            raise
        _overwrite(path, content, error)
        return
    for tries_left in reversed(range(_TRIES)):
        try:
            fresh.replace(path)
        except PermissionError:
            if os.name != "nt" or not tries_left:
                raise
            time.sleep(_PAUSE)
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            _overwrite(path, content, error)
            fresh.unlink(missing_ok=True)
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
