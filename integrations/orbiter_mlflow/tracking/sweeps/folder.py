"""The folder of a sweep in the spool: what its children note for the parent.

    sweeps/<uid>/sweep.json     what the sweep is
    sweeps/<uid>/open           locked by the process that has the sweep open
    sweeps/<uid>/numbers        a byte for each child that was given settings
    sweeps/<uid>/<uid>.json     a child's own note: its status, params and metric

It needs no store, so the parent can count its children while the server is down. Each child writes
a file of its own, whichever process it is in.
"""

import contextlib
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from orbiter_mlflow.delivery.files import locks
from orbiter_mlflow.delivery.files.atomic_write import replace_file_on_full_disk
from orbiter_mlflow.delivery.process_identity import ProcessIdentity

__all__ = ["ChildNote", "SweepFolder", "SweepNote"]

_ALL = "sweeps"
_NOTE = "sweep.json"
_CHILD = re.compile(r"[0-9a-f]{32}\.json")
_KEPT = 90 * 24 * 3600
"""Seconds after which the folder of a sweep that nobody has opened since is removed."""
_TICK = 2_000_000_000
"""Nanoseconds within which a file may change without a new time: 4 ms on Linux's own file systems,
a second or two on others."""


@dataclass(frozen=True, slots=True)
class SweepNote:
    """What a sweep is.

    Attributes:
        uid: of the journal that creates the parent run.
        name: the sweep's.
        tracking_uri: the store, without credentials.
        experiment, experiment_id: where the parent run is.
        metric: by which children are ranked; None if they are not.
        direction: which values are better.
        run_id: of the parent, once it is known.
    """

    uid: str
    name: str
    tracking_uri: str
    experiment: str | None
    experiment_id: str | None
    metric: str | None
    direction: str | None
    run_id: str | None = None


@dataclass(frozen=True, slots=True)
class ChildNote:
    """What a child says of itself.

    Attributes:
        uid: of its journal; the run has it in the tag `orbiter.uid`.
        number: of the child in the sweep.
        name: of the run; None where MLflow makes one up.
        journal: its file, and `writer` the process that writes it: for a child that died.
        start_time: milliseconds since the epoch.
        run_id: once it is known.
        status: MLflow's; RUNNING until the run ends.
        ended_by: the exception by which it was stopped on purpose.
        params: those that are short, and the beginnings of others.
        value: the last value of the sweep's metric.
    """

    uid: str
    number: int
    name: str | None
    journal: str
    writer: ProcessIdentity
    start_time: int
    run_id: str | None
    status: str
    ended_by: str | None
    params: dict[str, str]
    value: float | None


class SweepFolder:
    """The folder of one sweep.

    Args:
        path: it exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None
        self._known: dict[str, tuple[int, ChildNote]] = {}
        self._counting = threading.Lock()
        self._last = 0

    @classmethod
    def create(cls, spool: Path, note: SweepNote) -> "SweepFolder":
        """Create the folder of a new sweep, and remove those that are very old.

        Raises:
            OSError: it cannot be created.
        """
        folder = cls(spool / _ALL / note.uid)
        folder.path.mkdir(mode=0o700, parents=True)
        folder.write(note)
        for name in ("open", "numbers"):
            (folder.path / name).touch(mode=0o600)
        _remove_old(spool / _ALL)
        return folder

    @classmethod
    def find(cls, spools: Iterable[Path], key: str) -> "SweepFolder | None":
        """The folder of the sweep with this uid, or whose parent run has this id."""
        for spool in spools:
            for path in sorted((spool / _ALL).glob("*/")):
                folder = cls(path)
                note = folder.read()
                if note is not None and key in (note.uid, note.run_id):
                    return folder
        return None

    def take(self) -> bool:
        """Open the sweep for this process until `give_back`; False if another one has it open.

        Raises:
            OSError: the folder cannot be read.
        """
        self._lock = locks.take(self.path / "open")
        return self._lock is not None

    def give_back(self) -> None:
        """Let others open the sweep again."""
        if self._lock is not None:
            locks.release(self._lock)
            self._lock = None

    def read(self) -> SweepNote | None:
        """What the sweep is; None if nothing that can be read says so."""
        content = _read(self.path / _NOTE)
        try:
            return None if content is None else SweepNote(**content)
        except TypeError:
            return None

    def write(self, note: SweepNote) -> None:
        """Note what the sweep is.

        Raises:
            OSError: it cannot be written.
        """
        _write(self.path / _NOTE, asdict(note))

    def next_number(self) -> int:
        """Count one more child that is given settings; its number, from 1, which no other child of
        this process gets. What a full disk refuses to count is counted with a later child."""
        with self._counting:
            counted = self.numbers()
            self._last = max(self._last, counted) + 1
            with contextlib.suppress(OSError), (self.path / "numbers").open("ab") as file:
                file.write(b"\n" * (self._last - counted))
            return self._last

    def numbers(self) -> int:
        """How many children were given settings."""
        try:
            return (self.path / "numbers").stat().st_size
        except OSError:
            return 0

    def children(self) -> Iterator[ChildNote]:
        """What the children have noted; a note that cannot be read is left out. A note that has not
        changed since the last call is not read again."""
        with contextlib.suppress(OSError), os.scandir(self.path) as entries:
            for entry in entries:
                if not _CHILD.fullmatch(entry.name):
                    continue
                changed = entry.stat(follow_symlinks=False).st_mtime_ns
                at, child = self._known.get(entry.name, (0, None))
                if child is None or at != changed:
                    child = self.child(entry.name.removesuffix(".json"))
                    if child is None:
                        continue
                    # Two changes within a tick of the file system's clock have one time.
                    if time.time_ns() - changed > _TICK:
                        self._known[entry.name] = changed, child
                yield child

    def child(self, uid: str) -> ChildNote | None:
        """What a child has noted; None if that cannot be read."""
        content = _read(self.path / f"{uid}.json")
        if content is None:
            return None
        try:
            return ChildNote(**{**content, "writer": ProcessIdentity(**content["writer"])})
        except (TypeError, KeyError):
            return None


def write_child(folder: Path, note: ChildNote) -> None:
    """Note what has become of a child.

    Raises:
        OSError: it cannot be written, such as where the folder is on another machine.
    """
    _write(folder / f"{note.uid}.json", asdict(note))


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _write(path: Path, content: dict[str, Any]) -> None:
    replace_file_on_full_disk(path, json.dumps(content).encode())


def _remove_old(folder: Path) -> None:
    for path in folder.glob("*/"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _KEPT and not locks.is_taken(path / "open"):
                shutil.rmtree(path, ignore_errors=True)
