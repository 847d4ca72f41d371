"""Which process synced which file when: a log by the processes themselves, which really sync."""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

_HOOK = """
import json, os, threading, time

def logged(name, real):
    def call(fd):
        status = os.fstat(fd)  # before: what this call certainly covers
        real(fd)
        end = time.monotonic()
        who = os.getpid(), threading.current_thread().name
        line = json.dumps([end, *who, name, status.st_ino, status.st_size])
        log = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(log, line.encode() + b"\\n")
        finally:
            os.close(log)
    return call

for name in ("fdatasync", "fsync"):
    setattr(os, name, logged(name, getattr(os, name)))
"""


@dataclass(frozen=True, slots=True)
class Sync:
    """A call of `os.fdatasync` or `os.fsync` that has returned.

    Attributes:
        end: when it returned, by the monotonic clock, which all processes share.
        inode: of the file.
        size: of the file when it was called, in bytes.
    """

    end: float
    pid: int
    thread: str
    call: str
    inode: int
    size: int


class DiskLog:
    """The syncs of all Python processes that have `environment`, and of those they start.

    Args:
        folder: an empty one, for the log and for the module that each interpreter loads first.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._log = folder / "syncs"
        self._log.touch()
        (folder / "sitecustomize.py").write_text(f"LOG = {str(self._log)!r}{_HOOK}")
        paths = [str(folder), *filter(None, sys.path)]
        self.environment = {"PYTHONPATH": os.pathsep.join(paths)}

    def syncs(self, file: Path | None = None) -> list[Sync]:
        """The calls so far; with a `file` those of it."""
        inode = None if file is None else file.stat().st_ino
        found = [Sync(*json.loads(line)) for line in self._log.read_bytes().splitlines()]
        return [one for one in found if inode in (None, one.inode)]
