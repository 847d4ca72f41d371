"""Preallocate disk space behind the end of a journal, so that its final records fit on a full disk.

Blocks are allocated ahead without changing the file's size. Ordinary records leave the last
`RESERVE` bytes of them free, so a full disk refuses such a record whole and still takes the records
that say how the run ended.
"""

import errno
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache

RESERVE = 1 << 16
"""Bytes reserved for the final records."""

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Error numbers that say that a disk or a quota is full."""

_STEP = 1 << 18
"""Bytes allocated at a time, if the disk has them."""
_KEEP_SIZE = 1
"""FALLOC_FL_KEEP_SIZE of Linux' fallocate(2)."""
_UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV, errno.EPERM})


class Preallocation:
    """The space allocated for one journal.

    Attributes:
        supported: whether the disk and the system can preallocate.
    """

    def __init__(self) -> None:
        self.supported = _fallocate() is not None
        self._end = 0
        # Reentrant: a garbage collection in the middle of it may append as well.
        self._lock = threading.RLock()

    def ensure(self, fd: int, end: int, *, final: bool) -> None:
        """Allocate up to `end`, and the reserve behind it unless a final record is written.

        Raises:
            OSError: the disk is full; write nothing then.
        """
        needed = end + (0 if final else RESERVE)
        if needed <= self._end or not self.supported:
            return
        with self._lock:  # two threads at once would each take the other's end for its own
            self._allocate_up_to(fd, needed)

    def _allocate_up_to(self, fd: int, needed: int) -> None:
        if needed <= self._end or not self.supported:
            return
        for goal in (needed + _STEP, needed):
            error = _allocate(fd, self._end, goal - self._end)
            if error == 0:
                self._end = goal
                return
            if error in _UNSUPPORTED:
                self.supported = False
                return
        raise OSError(error, os.strerror(error))


def free_unused(fd: int) -> None:
    """Free the blocks allocated behind the end of a file."""
    with suppress(OSError):
        os.ftruncate(fd, os.fstat(fd).st_size)


def _allocate(fd: int, offset: int, length: int) -> int:
    """Allocate a range; return 0 or the error number."""
    import ctypes

    fallocate = _fallocate()
    if fallocate is None:
        return errno.ENOSYS
    while fallocate(fd, _KEEP_SIZE, offset, length):
        if (error := ctypes.get_errno()) != errno.EINTR:
            return error
    return 0


@cache
def _fallocate() -> Callable[[int, int, int, int], int] | None:
    """fallocate(2), which Python offers only with a change of the size; None without it."""
    if sys.platform != "linux":
        return None
    try:
        import ctypes  # not with the module: a process that only reads journals does without

        function = ctypes.CDLL(None, use_errno=True).fallocate
    except (ImportError, OSError, AttributeError):
        return None
    function.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    function.restype = ctypes.c_int
    return function
