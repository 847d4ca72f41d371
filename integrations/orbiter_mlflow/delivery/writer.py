"""Who writes a journal, and whether that process is still there."""

import os
import socket
from pathlib import Path

from orbiter_mlflow.delivery.records import Writer


def this_process() -> Writer:
    """The present process, as a journal's head names it."""
    pid = os.getpid()
    return Writer(socket.gethostname(), _boot(), pid, _stat(pid)[1])


def is_gone(writer: Writer) -> bool:
    """Whether the writer has certainly ended; False where it ran on another machine."""
    if (writer.host, writer.boot) != (socket.gethostname(), _boot()):
        return writer.host == socket.gethostname()  # this machine has been started anew since
    try:
        os.kill(writer.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # it is there, and another user's
    state, started = _stat(writer.pid)
    # A zombie is dead: only its parent has not asked for its exit code yet.
    return started != writer.started or state in ("Z", "X")


def runs_elsewhere(writer: Writer) -> bool:
    """Whether the writer ran on another machine, where its death cannot be seen from here."""
    return writer.host != socket.gethostname()


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""  # not Linux: the pid alone has to do


def _stat(pid: int) -> tuple[str, str]:
    """State and start of a process, as Linux tells them; empty elsewhere."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "", ""
    # Fields 3 and 22, counted behind the command, which may hold spaces and parentheses itself.
    fields = stat.rpartition(")")[2].split()
    return fields[0], fields[19]
