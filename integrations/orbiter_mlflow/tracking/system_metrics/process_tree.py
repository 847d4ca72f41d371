"""CPU, memory and disk of the training process and of all processes below it.

On Linux a process takes over what its children have used once it has waited for them, so the use
of processes that end between two readings is not lost, and not counted twice.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import psutil

__all__ = ["ProcessTree"]

_MEGABYTE = 1e6
_TAKES_OVER: bool = psutil.LINUX
_T = TypeVar("_T")


class _Usage(NamedTuple):
    """What a process has used since its start: seconds of CPU, bytes; and its memory, bytes."""

    cpu: float = 0.0
    read: float = 0.0
    written: float = 0.0
    memory: float = 0.0


class ProcessTree:
    """Readings of this process and its descendants; call `read` on one thread.

    The first reading has no CPU: it is taken against the next one. The disk is counted from the
    first reading on.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._root = psutil.Process()
        self._clock = clock
        self._cores: int = psutil.cpu_count() or 1
        self._memory: float = psutil.virtual_memory().total
        self._before: Mapping[Any, _Usage] | None = None
        self._at = 0.0
        self._read = self._written = 0.0

    def read(self) -> dict[str, float]:
        """CPU since the last reading, memory now, disk since the first reading."""
        at, before = self._clock(), self._before
        now = {process: self._usage(process) for process in self._processes()}
        values = {}
        if before is not None:
            capacity = (at - self._at) * self._cores
            if capacity > 0:
                busy = min(_increase(before, now, "cpu"), capacity)
                values["process_tree_cpu_utilization_percentage"] = busy / capacity * 100
            self._read += _increase(before, now, "read")
            self._written += _increase(before, now, "written")
        self._before, self._at = now, at
        memory = sum(usage.memory for usage in now.values())
        values["process_tree_memory_usage_megabytes"] = memory / _MEGABYTE
        values["process_tree_memory_usage_percentage"] = memory / self._memory * 100
        if hasattr(self._root, "io_counters"):  # not on macOS
            values["process_tree_disk_read_megabytes"] = self._read / _MEGABYTE
            values["process_tree_disk_write_megabytes"] = self._written / _MEGABYTE
        return values

    def _processes(self) -> list[Any]:
        return [self._root, *self._root.children(recursive=True)]

    def _usage(self, process: Any) -> _Usage:
        """What a process has used; where that cannot be read, as it ends or is another user's,
        what it had used at the last reading."""
        last = (self._before or {}).get(process, _Usage())
        times = _unless_gone(process.cpu_times)
        cpu = last.cpu
        if times is not None:
            cpu = times.user + times.system
            if _TAKES_OVER:
                cpu += times.children_user + times.children_system
        disk = _unless_gone(getattr(process, "io_counters", lambda: None))
        read, written = (last.read, last.written)
        if disk is not None:
            read, written = disk.read_bytes, disk.write_bytes
        memory = _unless_gone(process.memory_info)
        return _Usage(cpu, read, written, 0.0 if memory is None else memory.rss)


def _unless_gone(reading: Callable[[], _T]) -> _T | None:
    try:
        return reading()
    except (psutil.NoSuchProcess, psutil.AccessDenied):  # NoSuchProcess covers zombies
        return None


def _increase(before: Mapping[Any, _Usage], now: Mapping[Any, _Usage], what: str) -> float:
    """How much the processes have used between two readings."""
    used: float = sum(
        getattr(usage, what) - getattr(before.get(process, _Usage()), what)
        for process, usage in now.items()
    )
    if _TAKES_OVER:
        used -= sum(getattr(usage, what) for process, usage in before.items() if process not in now)
    return max(0.0, used)
