"""Run a command and end it, with all the processes it has started, when the caller is gone.

The caller holds the other end of this program's standard input. Once that is closed, by the caller
or by its death, the command gets SIGTERM, and what is left of it after some seconds SIGKILL. A
process group would not do: torchrun and Ray start sessions of their own.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

_SET_CHILD_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of Linux


def main(patience: float, command: Sequence[str]) -> int:
    """Run the command; returns its exit code, or 128 and the signal that ended it.

    Args:
        patience: seconds from SIGTERM to SIGKILL.
        command: the program and its arguments.
    """
    _adopt_orphans()
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603  the caller's
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: child.terminate())
    threading.Thread(target=_end_with_caller, args=[child, patience], daemon=True).start()
    code = child.wait()
    _kill(_descendants())
    return code if code >= 0 else 128 - code


def _end_with_caller(child: "subprocess.Popen[bytes]", patience: float) -> None:
    while os.read(0, 1024):  # unbuffered: a buffer's lock would be in the way of an exit
        pass
    child.terminate()
    deadline = time.monotonic() + patience
    while child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    _kill(_descendants())


def _adopt_orphans() -> None:
    """Become the parent of descendants whose own parent dies, so that none is lost; on Linux."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _descendants() -> list[int]:
    """All processes below this one, the deepest last; empty where there is no /proc."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found = list(children.get(os.getpid(), []))
    for pid in found:
        found += children.get(pid, [])
    return found


def _kill(pids: Sequence[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
