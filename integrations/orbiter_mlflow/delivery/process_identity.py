"""Identify the process that writes a journal, and find out by its pid whether it still runs."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """Identify the process that writes a journal, so that its death can be detected.

    Attributes:
        host: the machine's name.
        boot: Linux' boot id; empty elsewhere.
        pid: the process id.
        started: start time, in clock ticks after the boot; with `boot` it distinguishes the process
            from a later one that was given the same pid. Empty where it is unknown.
        namespace: the PID namespace, as each container has its own pids.
    """

    host: str
    boot: str
    pid: int
    started: str
    namespace: str = ""


def this_process() -> ProcessIdentity:
    """The identity of the present process."""
    return ProcessIdentity(
        socket.gethostname(), _boot(), os.getpid(), _stat("self")[1], namespace=namespace("pid")
    )


def is_gone(process: ProcessIdentity) -> bool:
    """Whether a process has certainly ended; False where its pid says nothing here."""
    if runs_elsewhere(process):
        return False
    if process.pid == os.getpid():
        return process.started != _stat("self")[1]
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # it exists, and is another user's
    state, started = _stat(str(process.pid)) if _shows_our_pids() else ("", "")
    if not started:  # not Linux, or hidden from us: the pid alone has to suffice
        return False
    # A zombie is dead: only its parent has not asked for its exit code yet.
    return started != process.started or state in ("Z", "X")


def runs_elsewhere(process: ProcessIdentity) -> bool:
    """Whether a process' pid says nothing here: it belongs to another machine, an earlier boot, or
    another container."""
    here = socket.gethostname(), _boot(), namespace("pid")
    if (process.host, process.boot, process.namespace) != here:
        return True
    return os.name == "nt" and process.pid != os.getpid()  # `os.kill` there sends Ctrl-C


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""  # not Linux: the pid alone has to suffice


def namespace(kind: str) -> str:
    """A namespace of this process, empty if it is not Linux. Each container has its own of the kind
    `pid`, whatever its host name."""
    try:
        return os.readlink(f"/proc/self/ns/{kind}")  # noqa: PTH115  no path, but `pid:[4026531836]`
    except OSError:
        return ""


def _shows_our_pids() -> bool:
    """Whether /proc shows our own PID namespace."""
    try:
        return os.readlink("/proc/self") == str(os.getpid())  # noqa: PTH115  a pid, not a path
    except OSError:
        return False


def _stat(pid: str) -> tuple[str, str]:
    """State and start time of a process on Linux; empty elsewhere."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "", ""
    # Fields 3 and 22, counted behind the command, which may contain spaces and parentheses.
    fields = stat.rpartition(")")[2].split()
    return fields[0], fields[19]
