"""The default folder of the spool: in the user's home, or elsewhere if that cannot be written.

Containers run as users without a home, jobs with a read-only one. Their journals go to a private
folder for temporary files, or else to the working folder.
"""

import errno
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

_NAME = "orbiter-mlflow"


def default_spool(environ: Mapping[str, str] = os.environ) -> Path:
    """`$XDG_STATE_HOME/orbiter-mlflow`, by default `~/.local/state/orbiter-mlflow`; for a user
    without a home the first of `fallbacks`."""
    state = environ.get("XDG_STATE_HOME")
    try:
        return Path(state or Path.home() / ".local" / "state") / _NAME
    except RuntimeError:  # neither HOME nor an entry in the table of users
        return fallbacks()[0]


def fallbacks() -> list[Path]:
    """The folders to try, best first, where the home cannot be written."""
    found = [Path.cwd() / f".{_NAME}"]
    with suppress(OSError):  # there may be no folder for temporary files
        found.insert(0, Path(tempfile.gettempdir(), f"{_NAME}-{_user()}").absolute())
    return found


@contextmanager
def some_home() -> Iterator[None]:
    """Give a user without a home one inside the block: mlflow cannot be imported otherwise."""
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
    """Whether a folder exists and its journals may be trusted."""
    return is_private(folder) if is_fallback(folder) else folder.is_dir()


def prepare(folder: Path) -> None:
    """Create a folder that only its owner may read.

    An existing one of `fallbacks` must be just that: anybody may have created it, or a link, among
    the temporary files.

    Raises:
        OSError: it cannot be created, or belongs to somebody else.
    """
    if not is_fallback(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if not is_private(folder):
        raise PermissionError(errno.EPERM, "a link, or not the folder of this user alone", folder)


def is_private(folder: Path) -> bool:
    """Whether a folder, and no link, belongs to this user and is closed to others. Modes mean
    nothing on Windows, where each user has a folder for temporary files."""
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
