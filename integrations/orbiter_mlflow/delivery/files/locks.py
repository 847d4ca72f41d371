"""Locks on files, on every disk: one way to take them, to give them back and to look at them.

1. `flock` on the file itself: the kernel gives it back when its holder dies, and all containers of
   a machine see it.
2. Where the disk has none (Lustre without `-o flock`, NFS without lockd), or the system has none: a
   lock of a region (`lockf`; on Windows `msvcrt.locking`) of a file beside.
3. Where there are no such locks either: that file beside, by whoever gets to make it. It names its
   holder, and is taken over once that process is certainly gone.

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

from orbiter_mlflow.delivery.files.descriptors import identity, module_if_any, moved_up
from orbiter_mlflow.delivery.process_identity import is_gone, this_process
from orbiter_mlflow.delivery.records import ProcessIdentity

fcntl, msvcrt = module_if_any("fcntl"), module_if_any("msvcrt")  # the second on Windows only

_logger = logging.getLogger(__name__)

_UNSUPPORTED = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL})
_BUSY = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK})
_TRIES = 4
_PAUSE = 0.003
"""Seconds between tries: who only looks holds a lock for some microseconds."""
_POLL = 0.02
"""Seconds between tries of `exclusive`."""
_UNNAMED = 60.0
"""Seconds after which a lock file that names nobody was left by a death between two calls."""
_REGION = 1 << 30
"""Where the locked byte of a region is: on Windows nobody else may read it."""


class _UnsupportedError(Exception):
    """The disk or the system has no such locks."""


_taken: dict[int, tuple[int, int] | None] = {}
"""What this process has taken: descriptors, and the files that they mean."""
_beside: dict[Path, int] = {}
"""Those of them that are of files beside."""
_mutex = threading.RLock()
_told: set[int] = set()


def take(path: Path) -> int | None:
    """Lock a file: a descriptor for `release`, or None where somebody else has it.

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
    """Give back what `take` gave."""
    with _mutex:
        is_ours = fd in _taken and _taken.pop(fd) == identity(fd)
        for file in [file for file, number in _beside.items() if number == fd]:
            del _beside[file]
            if is_ours:
                # While it is locked: who waits for it then sees that it is gone.
                with contextlib.suppress(OSError):  # Windows keeps files that are open
                    file.unlink()
        if is_ours:
            os.close(fd)


def is_taken(path: Path) -> bool:
    """Whether somebody has taken a file; gets into nobody's way.

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
        if _is_ours(file):  # to open and close it would give our lock back
            return True
        try:
            return is_held(file) is True if regions else not _is_stale(file)
        except FileNotFoundError:
            return False


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, which is gone afterwards; waits for it. Goes on without a lock in
    a folder where none can be made."""
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
        time.sleep(_POLL)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows keeps files that are open
            path.unlink()
        release(fd)


def hold(fd: int) -> bool:
    """Lock an open file of our own until it is closed; False where that cannot be seen by others,
    as the disk has no locks that its holder's death gives back."""
    try:
        return _kernel(fd)
    except _UnsupportedError:
        return False


def is_held(path: Path) -> bool | None:
    """Whether somebody holds a file by `hold`; None where the disk has no such locks. Not for the
    holder itself: to close a file gives its region back.

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
    """The file beside that is locked, or is the lock, where `path` itself cannot be locked."""
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
    for _ in range(_TRIES if patient else 1):
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
            time.sleep(_PAUSE)
    return False


# -- files beside --------------------------------------------------------------------------------


def _take_beside(path: Path, *, regions: bool) -> int | None:
    file = beside(path)
    _tell(path, regions)
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
    """Whether a lock file was left by a process that is certainly gone, or is a copy of one."""
    status = file.stat()
    try:
        note = json.loads(file.read_bytes())
        inode = note.pop("inode")
        del note["time"]
        holder = ProcessIdentity(**note)
    except (ValueError, KeyError, TypeError, AttributeError):
        return time.time() - status.st_mtime > _UNNAMED
    # One that names us, and that we do not have, was given back by closing its descriptor only.
    ours = holder == this_process() and not _is_ours(file)
    return ours or inode != status.st_ino or is_gone(holder)


def _moved_away(file: Path) -> bool:
    """Remove a stale lock file; False where somebody else was faster."""
    aside = file.with_name(f"{file.name}.{os.urandom(4).hex()}")
    file.rename(aside)
    try:
        if _is_stale(aside):
            return True
        os.link(aside, file)  # it was a new one: back, unless there is yet another by now
    except OSError:
        pass
    finally:
        aside.unlink(missing_ok=True)
    return False


def _is_ours(file: Path) -> bool:
    """Whether this process has a file beside; not where its descriptor was closed by another way
    than `release`."""
    if file in _beside and _taken.get(_beside[file]) == identity(_beside[file]):
        return True
    _beside.pop(file, None)
    return False


def _tell(path: Path, regions: bool) -> None:
    """Say once of each disk that it is not locked as usual; Windows is as usual."""
    if msvcrt is not None:
        return
    device = path.parent.stat().st_dev
    if device not in _told:
        _told.add(device)
        _logger.warning(
            "the disk of %s has no flock: journals there are locked by %s",
            path.parent,
            "lockf on files *.lock" if regions else "files *.lock that name their holder",
        )


def _forget_after_fork() -> None:
    """What the parent has taken is not the child's: no copy of it may outlive the parent."""
    global _mutex
    _mutex = threading.RLock()
    for fd, file in _taken.items():
        if identity(fd) == file:
            os.close(fd)
    _taken.clear()
    _beside.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
