"""The spool: the folder of journals, and the files beside each.

    20261122T130501123-3f2a9c1e.jsonl       the journal
    20261122T130501123-3f2a9c1e.writer      locked by its writer while it lives
    20261122T130501123-3f2a9c1e.ack         how far it has been delivered
    20261122T130501123-3f2a9c1e.datasets.ack, .artifacts.ack: the same for the side lanes
    20261122T130501123-3f2a9c1e.quarantine  entries refused for good, one JSON line each
    20261122T130501123-3f2a9c1e.files/      artifacts waiting for their upload
    20261122T130501123-3f2a9c1e.refused/    artifacts that the store refused for good

Only the owner may read any of it.
"""

import contextlib
import json
import os
import shutil
import stat
import time
from collections.abc import Mapping
from pathlib import Path

from orbiter_mlflow.delivery import opened_journals, writer_lock
from orbiter_mlflow.delivery.ack import (
    Ack,
    LaneAck,
    ack_path,
    read_ack,
    read_lane_ack,
    write_ack,
    write_lane_ack,
)
from orbiter_mlflow.delivery.files import disk_sync, locks
from orbiter_mlflow.delivery.journal import Journal
from orbiter_mlflow.delivery.journal_reader import is_closed, whole_size
from orbiter_mlflow.delivery.process_identity import ProcessIdentity
from orbiter_mlflow.delivery.records import SIDE_LANES, Head

SUFFIX = ".jsonl"


def open_journal(spool: Path, head: Head, ack: Ack | None = None) -> Journal:
    """Create the journal of a run in the folder `spool`, which is created if necessary.

    Args:
        spool: the folder.
        head: the first record.
        ack: what delivery has to know from the start, such as the id of a run that exists.

    Raises:
        OSError: the folder or the file cannot be created.
    """
    spool.mkdir(mode=0o700, parents=True, exist_ok=True)
    seconds, milliseconds = divmod(head.start_time, 1000)  # both: `journals` sorts by the name
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(seconds))
    path = spool / f"{stamp}{milliseconds:03d}-{head.uid[:8]}{SUFFIX}"
    if ack is not None:  # before anybody can find the journal and deliver it without
        write_ack(path, ack)
    try:
        journal = Journal(path, head)
    except OSError:
        ack_path(path).unlink(missing_ok=True)
        raise
    with contextlib.suppress(OSError):  # now: if the disk is full later, they are overwritten
        if ack is None:
            write_ack(journal.path, Ack())
        for lane in SIDE_LANES:
            write_lane_ack(journal.path, lane, LaneAck())
    opened_journals.note(journal.path, head, ack)
    return journal


def quarantine(journal: Path, entry: Mapping[str, object], reason: str) -> None:
    """Keep an entry that the store refused for good, and the reason.

    Raises:
        OSError: it cannot be written.
    """
    path = quarantine_path(journal)
    path.touch(mode=0o600)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"reason": reason, **entry}) + "\n")
    disk_sync.sync_if_possible(path)  # nothing else has it


def quarantine_path(journal: Path) -> Path:
    """The file of a journal's quarantined entries."""
    return journal.with_suffix(".quarantine")


def take(journal: Path) -> int | None:
    """Take a journal for draining: a descriptor for `give_back`, or None where another process or
    thread has it.

    Raises:
        OSError: the journal cannot be opened.
    """
    return locks.take(journal)


def give_back(fd: int) -> None:
    """Let others take a journal again."""
    locks.release(fd)


def is_taken(journal: Path) -> bool:
    """Whether a journal is being drained; False where that cannot be found out."""
    try:
        return locks.is_taken(journal)
    except OSError:
        return False


def undelivered_bytes(journal: Path) -> int:
    """Bytes whose metrics, params, tags and statuses are not in the store.

    0 once the journal is delivered and removed, and for a line that a full disk or a death cut.
    """
    try:
        return max(0, whole_size(journal) - read_ack(journal).offset)
    except FileNotFoundError:
        return 0


def is_waiting(journal: Path) -> bool:
    """Whether anything of a journal is not in the store, datasets and artifacts included."""
    try:
        size = whole_size(journal)
    except FileNotFoundError:
        return False
    lanes = [read_lane_ack(journal, lane) for lane in SIDE_LANES]
    return read_ack(journal).offset < size or any(a.offset < size or a.aside for a in lanes)


def problem_of(journal: Path) -> str:
    """Why a journal is not delivered, in words; empty where nothing is wrong."""
    if problem := read_ack(journal).problem:
        return problem
    problems = {lane: read_lane_ack(journal, lane).problem for lane in SIDE_LANES}
    return "; ".join(f"{lane}: {problem}" for lane, problem in problems.items() if problem)


def is_ours(journal: Path) -> bool:
    """Whether only this user can have written a journal, so that it may be trusted.

    It is a regular file of this user, closed to others, in a folder of this user that others cannot
    write to. On systems whose files have no owners, whether it is a regular file.
    """
    try:
        file, folder = journal.lstat(), journal.parent.stat()
    except OSError:
        return False
    if not stat.S_ISREG(file.st_mode):
        return False
    if not hasattr(os, "geteuid"):  # Windows: modes mean nothing there
        return True
    user = os.geteuid()
    closed = not file.st_mode & 0o077 and not folder.st_mode & 0o022
    return closed and file.st_uid == user and folder.st_uid == user


def may_be_removed(journal: Path, writer: ProcessIdentity, *, ended: bool = False) -> bool:
    """Whether nothing can be appended any more to a delivered journal.

    Args:
        journal: the file.
        writer: the process named by its head.
        ended: somebody says that the writer, which cannot be seen from here, is gone.
    """
    if is_closed(journal) or writer_lock.is_dead(journal, writer):
        return True
    return ended and not writer_lock.is_alive(journal, writer)


def journals(folder: Path, uid: str = "") -> list[Path]:
    """The journals of a spool, oldest first; with a `uid` those whose names go with it."""
    ending = f"-{uid[:8]}{SUFFIX}" if uid else SUFFIX
    return sorted(path for path in folder.glob(f"*{SUFFIX}") if path.name.endswith(ending))


def remove(journal: Path) -> None:
    """Remove a delivered journal and the files beside it, except refused entries.

    Raises:
        OSError: a file cannot be removed.
    """
    # The journal first: without its ack it would be delivered again, into another run.
    journal.unlink(missing_ok=True)
    for lane in (None, *SIDE_LANES):
        ack_path(journal, lane).unlink(missing_ok=True)
    writer_lock.path_of(journal).unlink(missing_ok=True)
    shutil.rmtree(journal.with_suffix(".files"), ignore_errors=True)
