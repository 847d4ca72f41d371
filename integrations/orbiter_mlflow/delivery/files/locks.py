"""Lock files on every kind of disk: take, release and test a lock in one way.

1. `flock` on the file itself: the kernel releases it when its holder dies, and all containers of a
   machine see it.
2. If the disk (Lustre without `-o flock`, NFS without lockd) or the system has no `flock`: a lock
   of a region (`lockf`; on Windows `msvcrt.locking`) of a file beside it.
3. If there are no such locks either: the file beside it is the lock, held by the process that
   created it. It names its holder, and is taken over once that process is certainly gone.

Threads of one process exclude each other too.
"""

import contextlib
import errno
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from orbiter_mlflow.delivery import retry
from orbiter_mlflow.delivery.files.descriptors import identity, module_if_any, moved_up
from orbiter_mlflow.delivery.process_identity import ProcessIdentity, is_gone, this_process

fcntl, msvcrt = module_if_any("fcntl"), module_if_any("msvcrt")  # the second on Windows only

_logger = logging.getLogger(__name__)

_UNSUPPORTED = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL})
_BUSY = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK})
_REGION = 1 << 30
"""Offset of the locked byte, behind the content: on Windows nobody else may read it."""


class _UnsupportedError(Exception):
    """The disk or the system has no such locks."""


_taken: dict[int, tuple[int, int] | None] = {}
"""The locks of this process: descriptor -> identity of its file."""
_beside: dict[Path, int] = {}
"""Those of them that are on a file beside: path -> descriptor."""
_mutex = threading.RLock()
_warned: set[int] = set()
"""The disks that a warning has named."""


def take(path: Path) -> int | None:
    """Lock a file: return a descriptor for `release`, or None if somebody else holds the lock.

    Raises:
        FileNotFoundError: there is no such file, or it was removed meanwhile.
        OSError: it cannot be opened.
    """
    fd = moved_up(os.open(path, os.O_RDWR))
    try:
        if _flock(fd):
            if os.fstat(fd).st_nlink == 0:  # removed between our open and our lock
                raise FileNotFoundError(path)
            taken, fd = fd, -1
            _taken[taken] = identity(taken)
            return taken
        return None
    except _UnsupportedError:
        with _mutex:
            taken_beside = _take_beside(path, regions=_has_regions(fd))
        if taken_beside is not None and not path.exists():
            release(taken_beside)
            raise FileNotFoundError(path) from None
        return taken_beside
    finally:
        if fd >= 0:
            os.close(fd)


def release(fd: int) -> None:
    """Release the lock behind a descriptor from `take`."""
    with _mutex:
        is_ours = fd in _taken and _taken.pop(fd) == identity(fd)
        for file in [file for file, number in _beside.items() if number == fd]:
            del _beside[file]
            if is_ours:
                # While it is locked, so that a waiting process then sees that it is gone.
                with contextlib.suppress(OSError):  # Windows keeps files that are open
                    file.unlink()
        if is_ours:
            os.close(fd)


def is_taken(path: Path) -> bool:
    """Whether somebody has locked a file with `take`; hinders nobody.

    Raises:
        OSError: the file cannot be opened.
    """
    fd = os.open(path, os.O_RDONLY)
    try:
        return not _flock(fd, shared=True)
    except _UnsupportedError:
        regions = _has_regions(fd)
    finally:
        os.close(fd)
    file = beside(path)
    with _mutex:
        if _is_ours(file):  # opening and closing it would release our lock
            return True
        try:
            return is_held(file) is True if regions else not _is_stale(file)
        except FileNotFoundError:
            return False


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Wait for the lock file `path` and hold it inside the block; it is removed afterwards. Without
    a lock in a folder where no file can be created."""
    while True:
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            fd = take(path)
        except FileNotFoundError:
            if path.parent.exists():
                continue  # the last holder removed it meanwhile
            raise
        except OSError:
            yield
            return
        if fd is not None:
            break
        time.sleep(retry.LOCK_POLL)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows keeps files that are open
            path.unlink()
        release(fd)


def hold(fd: int) -> bool:
    """Lock an open file of our own until it is closed; False if others cannot see the lock, as the
    disk has none that the kernel releases when the holder dies."""
    try:
        return _kernel(fd)
    except _UnsupportedError:
        return False


def is_held(path: Path) -> bool | None:
    """Whether somebody holds a file with `hold`; None if the disk has no such locks. Not for the
    holder itself, as closing a file releases its region.

    Raises:
        OSError: the file cannot be opened.
    """
    fd = os.open(path, os.O_RDONLY)
    try:
        return not _kernel(fd, shared=True)
    except _UnsupportedError:
        return None
    finally:
        os.close(fd)


def beside(path: Path) -> Path:
    """The file that is locked, or is the lock, if `path` itself cannot be locked."""
    return path.with_name(f"{path.name}.lock")


# -- the kernel's locks --------------------------------------------------------------------------


def _kernel(fd: int, *, shared: bool = False) -> bool:
    try:
        return _flock(fd, shared=shared)
    except _UnsupportedError:
        return _region(fd, shared=shared)


def _flock(fd: int, *, shared: bool = False) -> bool:
    if fcntl is None:
        raise _UnsupportedError
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    return _tried(lambda: fcntl.flock(fd, kind | fcntl.LOCK_NB), patient=not shared)


def _region(fd: int, *, shared: bool = False) -> bool:
    if fcntl is not None:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        return _tried(lambda: fcntl.lockf(fd, kind | fcntl.LOCK_NB), patient=not shared)
    if msvcrt is None:
        raise _UnsupportedError
    os.lseek(fd, _REGION, os.SEEK_SET)
    return _tried(lambda: msvcrt.locking(fd, msvcrt.LK_NBLCK, 1), patient=not shared)


def _has_regions(fd: int) -> bool:
    try:
        _region(fd, shared=True)
    except _UnsupportedError:
        return False
    return True


def _tried(lock: Callable[[], object], *, patient: bool) -> bool:
    for _ in range(retry.LOCK_TRIES if patient else 1):
        try:
            lock()
        except OSError as error:
            if error.errno in _UNSUPPORTED:
                raise _UnsupportedError from error
            if error.errno not in _BUSY:
                raise
        else:
            return True
        if patient:
            time.sleep(retry.LOCK_PAUSE)
    return False


# -- files beside --------------------------------------------------------------------------------


def _take_beside(path: Path, *, regions: bool) -> int | None:
    file = beside(path)
    _warn_once(path, regions)
    if _is_ours(file):
        return None
    fd = _locked(file) if regions else _made(file)
    if fd is not None:
        _taken[fd] = identity(fd)
        _beside[file] = fd
    return fd


def _locked(file: Path) -> int | None:
    while True:
        fd = moved_up(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
        if not _region(fd):
            os.close(fd)
            return None
        try:
            if os.path.samestat(os.fstat(fd), file.stat()):
                return fd
        except FileNotFoundError:
            pass
        os.close(fd)  # the last holder removed it while we waited for it


def _made(file: Path) -> int | None:
    for _ in range(2):
        try:
            fd = moved_up(os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):
                if not _is_stale(file) or not _moved_away(file):
                    return None
            continue
        try:
            note = {**asdict(this_process()), "inode": os.fstat(fd).st_ino, "time": time.time()}
            os.write(fd, json.dumps(note).encode())
        except BaseException:
            os.close(fd)
            file.unlink(missing_ok=True)
            raise
        return fd
    return None


def _is_stale(file: Path) -> bool:
    """Whether a lock file was left by a process that is certainly gone, or is a copy."""
    status = file.stat()
    try:
        note = json.loads(file.read_bytes())
        inode = note.pop("inode")
        del note["time"]
        holder = ProcessIdentity(**note)
    except (ValueError, KeyError, TypeError, AttributeError):
        return time.time() - status.st_mtime > retry.UNNAMED_LOCK
    # A file that names us, and that we do not hold, was released by closing its descriptor only.
    ours = holder == this_process() and not _is_ours(file)
    return ours or inode != status.st_ino or is_gone(holder)


def _moved_away(file: Path) -> bool:
    """Remove a stale lock file; False if somebody else was faster."""
    aside = file.with_name(f"{file.name}.{os.urandom(4).hex()}")
    file.rename(aside)
    try:
        if _is_stale(aside):
            return True
        os.link(aside, file)  # it was a new one: put it back, unless another has appeared
    except OSError:
        pass
    finally:
        aside.unlink(missing_ok=True)
    return False


def _is_ours(file: Path) -> bool:
    """Whether this process holds a file beside; False if its descriptor was closed without
    `release`."""
    if file in _beside and _taken.get(_beside[file]) == identity(_beside[file]):
        return True
    _beside.pop(file, None)
    return False


def _warn_once(path: Path, regions: bool) -> None:
    """Warn once for each disk without `flock`; on Windows that is normal."""
    if msvcrt is not None:
        return
    device = path.parent.stat().st_dev
    if device not in _warned:
        _warned.add(device)
        _logger.warning(
            "the disk of %s has no flock: journals there are locked by %s",
            path.parent,
            "lockf on files *.lock" if regions else "files *.lock that name their holder",
        )


def _forget_after_fork() -> None:
    """Close the parent's locks in a forked child: no copy of them may outlive the parent."""
    global _mutex
    _mutex = threading.RLock()
    for fd, file in _taken.items():
        if identity(fd) == file:
            os.close(fd)
    _taken.clear()
    _beside.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
