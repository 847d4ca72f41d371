"""Write files and folders to the disk itself, so that they survive the death of the machine."""

import contextlib
import os
from pathlib import Path

from orbiter_mlflow.delivery.files.descriptors import module_if_any

fcntl = module_if_any("fcntl")  # not on Windows

_OPEN = (
    (os.O_RDWR if os.name == "nt" else os.O_RDONLY)  # Windows syncs only what it may write
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)  # a FIFO must not make us wait for its writer
)


def sync(fd: int) -> None:
    """Wait until the disk has everything that was written to an open file, and its size.

    Raises:
        OSError: the disk refuses, or is full.
    """
    if hasattr(fcntl, "F_FULLFSYNC"):  # macOS, where fsync leaves it in the cache of the disk
        with contextlib.suppress(OSError):  # a network's file system
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
            return
    if hasattr(os, "fdatasync"):
        os.fdatasync(fd)
    else:
        os.fsync(fd)


def sync_file(path: Path) -> None:
    """Sync a file that somebody else may have open; links are not followed.

    Raises:
        FileNotFoundError: it is gone.
        OSError: as of `sync`, or it cannot be opened.
    """
    fd = os.open(path, _OPEN)
    try:
        sync(fd)
    finally:
        os.close(fd)


def sync_if_possible(path: Path) -> None:
    """Sync a file that was just written or renamed, and its name; never raises, as what depends on
    it must go on, on any disk."""
    with contextlib.suppress(OSError):
        sync_file(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Sync the names in a folder: a new file survives only with its name. Does nothing on systems
    and disks that sync no folders."""
    with contextlib.suppress(OSError):  # Windows opens none; some network disks refuse
        fd = os.open(folder, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def sync_new_folder(folder: Path) -> None:
    """Sync a folder that may have just been made, and those above it on the same disk."""
    with contextlib.suppress(OSError):
        device = folder.stat().st_dev
        for one in (folder, *folder.absolute().parents):
            if one.stat().st_dev != device:
                break
            sync_folder(one)
