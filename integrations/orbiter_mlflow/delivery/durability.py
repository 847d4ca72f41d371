"""Sync journals to the disk at least once a second, so that a dying machine takes little with it.

Whoever delivers does it, on threads that wait for nothing but the disk: not for a store that hangs,
and no training waits for them. A file that grows while it is synced is synced again by the next
pass, so nothing queues up behind a slow disk. The copies of artifacts have a thread of their own: a
large one would delay the journals.
"""

import contextlib
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from orbiter_mlflow.delivery import retry
from orbiter_mlflow.delivery.files import disk_sync
from orbiter_mlflow.delivery.journal import Journal
from orbiter_mlflow.delivery.kept_files import folder_of
from orbiter_mlflow.delivery.records import Artifact, Checkpoint, Record, Rollouts

_logger = logging.getLogger(__name__)

_State = tuple[int, int]
"""A file's inode and size: a journal only grows."""


class Syncer:
    """Syncs journals that have grown, and the copies of artifacts beside them, until their files
    are gone."""

    def __init__(self) -> None:
        self._journals, self._copies = _Grown(), _Grown()
        self._folders: set[Path] = set()
        self._kept: dict[Path, dict[str, tuple[int, int]]] = {}
        self._failures = Failures()
        self._at_work = threading.Lock(), threading.Lock()
        self._watching = itertools.count()

    def watch(self, journal: Path) -> None:
        """Sync a journal from now on. The first call starts the threads, which live as long as the
        process."""
        self._journals.watch(journal)
        self._copies.watch(journal)
        if next(self._watching) == 0:
            self._start()

    def unwatch(self, journal: Path) -> None:
        """Leave a journal that is delivered, or given to another process."""
        self._journals.unwatch(journal)
        self._copies.unwatch(journal)

    def _start(self) -> None:
        for name, sync in (("journals", self._sync_journals), ("copies", self._sync_copies)):
            threading.Thread(
                target=_forever, args=(sync,), name=f"orbiter-sync-{name}", daemon=True
            ).start()

    def sync(self) -> None:
        """Sync what has grown since the last pass, because this process ends."""
        self._sync_journals()
        self._sync_copies()

    def _sync_journals(self) -> None:
        with self._at_work[0]:
            self._sync_grown(self._journals, self._sync_journal)

    def _sync_copies(self) -> None:
        with self._at_work[1]:
            self._sync_grown(self._copies, self._sync_kept)
            self._kept = {one: kept for one, kept in self._kept.items() if one in self._copies}

    def _sync_grown(self, grown: "_Grown", sync: Callable[[Path, bool], None]) -> None:
        for journal, state, is_new in grown.look():
            try:
                sync(journal, is_new)
            except FileNotFoundError:  # delivered and removed meanwhile
                pass
            except OSError as error:
                self._failures.note(journal, error)
            else:
                grown.synced(journal, state)

    def _sync_journal(self, journal: Path, is_new: bool) -> None:
        disk_sync.sync_file(journal)
        if journal.parent not in self._folders:
            self._folders.add(journal.parent)
            disk_sync.sync_new_folder(journal.parent)
        elif is_new:
            disk_sync.sync_folder(journal.parent)

    def _sync_kept(self, journal: Path, is_new: bool) -> None:
        """Sync the copies that have appeared or changed since the last call. A record is appended
        after its copy is complete, so what `look` saw of the journal names none that is missed."""
        folder, before = folder_of(journal), {} if is_new else self._kept.pop(journal, {})
        found: dict[str, tuple[int, int]] = {}
        with (
            contextlib.suppress(FileNotFoundError),
            os.scandir(folder) as entries,
        ):  # most have none
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # uploaded meanwhile
                    status = entry.stat(follow_symlinks=False)
                    found[entry.name] = status.st_size, status.st_mtime_ns
        fresh = [name for name, one in found.items() if before.get(name) != one]
        for name in fresh:
            with contextlib.suppress(FileNotFoundError):
                disk_sync.sync_file(folder / name)
        if fresh:
            disk_sync.sync_folder(folder)
            disk_sync.sync_folder(folder.parent)
        self._kept[journal] = found


class EachRecord:
    """Syncs a journal after each record, before the call that appends it returns.

    Args:
        journal: a new journal; the folder that has its name is synced at once.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._failures = Failures()
        self.appended()
        disk_sync.sync_new_folder(journal.path.parent)

    def about_to_append(self, record: Record) -> None:
        """Sync the copy that a record names, before the disk may have the record."""
        if isinstance(record, Artifact | Rollouts | Checkpoint):
            kept = record if isinstance(record, Artifact) else _kept(record)
            folder = folder_of(self._journal.path)
            with self._told():
                disk_sync.sync_file(folder / kept.file)
                disk_sync.sync_folder(folder)
                disk_sync.sync_folder(folder.parent)

    def appended(self) -> None:
        """Sync the journal."""
        with self._told():
            self._journal.sync()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._failures.note(self._journal.path, error)


def _kept(record: Rollouts | Checkpoint) -> Artifact:
    """The file of ours that a record names; those of a checkpoint are the training's to sync."""
    return record.table if isinstance(record, Rollouts) else record.listing


class Failures:
    """Warns of disks that refuse to sync, once for each journal."""

    def __init__(self) -> None:
        self._told: set[Path] = set()

    def note(self, journal: Path, error: OSError) -> None:
        """Warn, unless that was done for the journal."""
        if journal in self._told:
            return
        self._told.add(journal)
        _logger.warning(
            "the disk does not sync %s (%s): what it holds survives the death of a process, but "
            "perhaps not that of the machine",
            journal,
            error.strerror or error,
        )


class _Grown:
    """Finds the journals that have grown since they were last synced."""

    def __init__(self) -> None:
        self._watched: set[Path] = set()
        self._states: dict[Path, _State] = {}

    def watch(self, journal: Path) -> None:
        """Look at a journal from now on, until it is gone; for any thread."""
        self._watched.add(journal)

    def unwatch(self, journal: Path) -> None:
        """Look at a journal no more; for any thread."""
        self._watched.discard(journal)

    def __contains__(self, journal: Path) -> bool:
        return journal in self._watched

    def look(self) -> Iterator[tuple[Path, _State, bool]]:
        """The journals that have grown, how they are now, and whether each is new."""
        for journal in self._watched.copy():
            try:
                status = journal.stat(follow_symlinks=False)
            except FileNotFoundError:
                self._watched.discard(journal)
                self._states.pop(journal, None)
                continue
            except OSError:  # by the next look
                continue
            state = status.st_ino, status.st_size
            if self._states.get(journal) != state:
                yield journal, state, journal not in self._states
        if len(self._states) > len(self._watched):
            self._states = {one: at for one, at in self._states.items() if one in self._watched}

    def synced(self, journal: Path, state: _State) -> None:
        """Note that a journal was synced, at least as it was at the last look."""
        self._states[journal] = state


def _forever(sync: Callable[[], None]) -> None:
    while True:
        began = time.monotonic()
        try:
            sync()
        except Exception:  # the next pass may succeed, and nobody else syncs
            _logger.exception("syncing journals has failed")
        time.sleep(max(retry.SYNC_PAUSE, began + retry.SYNC_EVERY - time.monotonic()))
