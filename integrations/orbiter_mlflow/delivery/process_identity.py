"""Who writes a journal, and whether that process is still there, as far as its pid tells."""

import os
import socket
from pathlib import Path

from orbiter_mlflow.delivery.records import ProcessIdentity


def this_process() -> ProcessIdentity:
    """The present process, as a journal's head names it."""
    return ProcessIdentity(
        socket.gethostname(), _boot(), os.getpid(), _stat("self")[1], namespace=_namespace()
    )


def is_gone(writer: ProcessIdentity) -> bool:
    """Whether the writer has certainly ended; False where its pid tells nothing here."""
    if runs_elsewhere(writer):
        return False
    if writer.pid == os.getpid():
        return writer.started != _stat("self")[1]
    try:
        os.kill(writer.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # it is there, and another user's
    state, started = _stat(str(writer.pid)) if _shows_our_pids() else ("", "")
    if not started:  # not Linux, or hidden from us: that there is such a process has to do
        return False
    # A zombie is dead: only its parent has not asked for its exit code yet.
    return started != writer.started or state in ("Z", "X")


def runs_elsewhere(writer: ProcessIdentity) -> bool:
    """Whether the writer's pid tells nothing here: it ran on another machine, before a boot, or in
    another container."""
    here = socket.gethostname(), _boot(), _namespace()
    if (writer.host, writer.boot, writer.namespace) != here:
        return True
    return os.name == "nt" and writer.pid != os.getpid()  # `os.kill` there is no question


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""  # not Linux: the pid alone has to do


def _namespace() -> str:
    """What the pids of this process count in; containers have their own, whatever their names."""
    try:
        return os.readlink("/proc/self/ns/pid")  # noqa: PTH115  no path, but `pid:[4026531836]`
    except OSError:
        return ""


def _shows_our_pids() -> bool:
    """Whether /proc is that of our own pid namespace."""
    try:
        return os.readlink("/proc/self") == str(os.getpid())  # noqa: PTH115
    except OSError:
        return False


def _stat(pid: str) -> tuple[str, str]:
    """State and start of a process, as Linux tells them; empty elsewhere."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "", ""
    # Fields 3 and 22, counted behind the command, which may hold spaces and parentheses itself.
    fields = stat.rpartition(")")[2].split()
    return fields[0], fields[19]
