"""Where the spool lies when nobody says: in the home; where that takes no file, elsewhere.

Containers run under numbers that have no home, jobs with one that is read-only. Their journals go
to a private folder for temporary files, else to the working folder.
"""

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NAME = "orbiter-mlflow"


def fallbacks() -> list[Path]:
    """The folders that the spool may be where the home takes none, best first."""
    found = [Path.cwd() / f".{NAME}"]
    with suppress(OSError):  # there may be no folder for temporary files
        found.insert(0, Path(tempfile.gettempdir(), f"{NAME}-{_user()}").absolute())
    return found


@contextmanager
def some_home() -> Iterator[None]:
    """Within the block everybody has a home: mlflow cannot be imported without one."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = str(fallbacks()[0])
        try:
            yield
        finally:
            del os.environ["HOME"]
    else:
        yield


def is_fallback(folder: Path) -> bool:
    """Whether a folder is one of `fallbacks`."""
    return folder in fallbacks()


def is_usable(folder: Path) -> bool:
    """Whether a folder is there, and the journals in it are worth a look."""
    return is_private(folder) if is_fallback(folder) else folder.is_dir()


def prepare(folder: Path) -> None:
    """Make a folder for its owner alone. One of `fallbacks` must be that also where it exists: in
    the folder for temporary files anybody may have made it, or a link.

    Raises:
        OSError: it cannot be made, or belongs to somebody else.
    """
    if not is_fallback(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if not is_private(folder):
        raise PermissionError(errno.EPERM, "a link, or not the folder of this user alone", folder)


def is_private(folder: Path) -> bool:
    """Whether it is a folder, no link, of our own and closed to others; modes mean nothing on
    Windows, where each user has their own folder for temporary files."""
    try:
        status = folder.lstat()
    except OSError:
        return False
    if not stat.S_ISDIR(status.st_mode):
        return False
    if not hasattr(os, "geteuid"):
        return True
    return status.st_uid == os.geteuid() and not status.st_mode & 0o077


def _user() -> str:
    return str(os.geteuid()) if hasattr(os, "geteuid") else os.environ.get("USERNAME", "user")
