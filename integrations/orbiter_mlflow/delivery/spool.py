"""The folder of journals, and the files beside each: ack, quarantine, kept artifacts.

    20261122T130501123-3f2a9c1e.jsonl       the journal
    20261122T130501123-3f2a9c1e.writer      locked by its writer while it lives
    20261122T130501123-3f2a9c1e.ack         how far it is delivered (replaced by rename)
    20261122T130501123-3f2a9c1e.datasets.ack, .artifacts.ack: the same of the two other lanes
    20261122T130501123-3f2a9c1e.quarantine  what the store refused for good, one JSON line each
    20261122T130501123-3f2a9c1e.files/      artifacts waiting for their upload
    20261122T130501123-3f2a9c1e.refused/    artifacts that the store refused for good

Only the owner may read any of it.
"""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter
from pydantic_core import to_json

from orbiter_mlflow.delivery import presence
from orbiter_mlflow.delivery.files import locks, places
from orbiter_mlflow.delivery.files.atomic_write import replace_file
from orbiter_mlflow.delivery.journal import Journal, is_closed, whole_size
from orbiter_mlflow.delivery.records import Head, ProcessIdentity, RunStatus
from orbiter_mlflow.delivery.resumption import Life
from orbiter_mlflow.delivery.suspects import Suspect

SUFFIX = ".jsonl"


def default_spool(environ: Mapping[str, str] = os.environ) -> Path:
    """`$XDG_STATE_HOME/orbiter-mlflow`, by default `~/.local/state/orbiter-mlflow`; for a user who
    has no home the first of `places.fallbacks`."""
    state = environ.get("XDG_STATE_HOME")
    try:
        return Path(state or Path.home() / ".local" / "state") / places.NAME
    except RuntimeError:  # neither HOME nor an entry in the table of users
        return places.fallbacks()[0]


def open_journal(spool: Path, head: Head) -> Journal:
    """Start the journal of a run in the folder `spool`, which is made where it does not exist.

    Raises:
        OSError: the folder or the file cannot be made.
    """
    spool.mkdir(mode=0o700, parents=True, exist_ok=True)
    seconds, milliseconds = divmod(head.start_time, 1000)  # both: `journals` sorts by the name
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(seconds))
    journal = Journal(spool / f"{stamp}{milliseconds:03d}-{head.uid[:8]}{SUFFIX}", head)
    with contextlib.suppress(OSError):  # now: on a disk that is full later, it is written over
        write_ack(journal.path, Ack())
        for lane in LANES:
            write_lane_ack(journal.path, lane, LaneAck())
    return journal


@dataclass(frozen=True, slots=True)
class Ack:
    """How far metrics, params, tags and statuses of a journal have been delivered.

    Attributes:
        offset: bytes of the journal that are in the store.
        run_id: the run, once it exists.
        life: what the journal is to the run; one that continues a run is not its first.
        kept: params that the run keeps although this life has others, in words.
        creating: a request to create the run was sent whose answer was not seen.
        overdue: a request was given up that may be carried out yet, and undo a later one's tags.
        status: the last status of the run that was delivered.
        died: the status and the error are those of a writer that was found dead.
        closed: nothing follows: the writer said so, or was found dead.
        aside: entries that the store refused, under trial.
        quarantined: entries that the store refused for good.
        damaged: lines of the journal that could not be read.
        problem: why delivery does not go on, in words; empty while it does.
        held: the problem will not go away by itself.
        drainer: who delivers it, or did last.
        lanes: datasets and artifacts have acks of their own; older versions knew one for all.
    """

    offset: int = 0
    run_id: str | None = None
    life: Life = field(default_factory=Life)
    kept: str = ""
    creating: bool = False
    overdue: bool = False
    status: RunStatus | None = None
    died: bool = False
    closed: bool = False
    aside: tuple[Suspect, ...] = ()
    quarantined: int = 0
    damaged: int = 0
    problem: str = ""
    held: bool = False
    drainer: str = ""
    lanes: bool = False

    @property
    def settled(self) -> bool:
        """Whether nothing follows and nothing is under trial."""
        return self.closed and not self.aside


@dataclass(frozen=True, slots=True)
class LaneAck:
    """How far the datasets, or the artifacts, of a journal have been delivered.

    Attributes:
        offset: bytes of the journal whose entries of this kind are in the store, or aside.
        aside: entries that the store refused, under trial.
        refused: entries that the store refused for good.
        skipped: entries that the server has no endpoint for.
        missing: what of it the run's tag says is missing.
        problem: why delivery does not go on, in words; empty while it does.
        held: the problem will not go away by itself.
    """

    offset: int = 0
    aside: tuple[Suspect, ...] = ()
    refused: int = 0
    skipped: int = 0
    missing: str = ""
    problem: str = ""
    held: bool = False


LANES = ("datasets", "artifacts")
"""What is delivered beside the metrics, params, tags and statuses, and never holds them up."""


@cache
def _reader() -> TypeAdapter[Ack]:
    return TypeAdapter(Ack)


@cache
def _lane_reader() -> TypeAdapter[LaneAck]:
    return TypeAdapter(LaneAck)


def read_ack(journal: Path) -> Ack:
    """The ack of a journal; a fresh one where there is none yet."""
    try:
        return _reader().validate_json(journal.with_suffix(".ack").read_bytes())
    except FileNotFoundError:
        return Ack()
    except ValueError:
        # Cut short by a power failure: the store is asked for the run, and how far it is.
        return Ack(creating=True)


def write_ack(journal: Path, ack: Ack) -> None:
    """Replace the ack of a journal in one step, so that a reader sees the old or the new one; on a
    full disk too, see `replace_file`."""
    replace_file(journal.with_suffix(".ack"), to_json(ack))


def read_lane_ack(journal: Path, lane: str) -> LaneAck:
    """The ack of a lane of `LANES`; a fresh one where there is none, or an unreadable one: what is
    sent again there does no harm."""
    try:
        return _lane_reader().validate_json(_lane_path(journal, lane).read_bytes())
    except (FileNotFoundError, ValueError):
        return LaneAck()


def write_lane_ack(journal: Path, lane: str, ack: LaneAck) -> None:
    """Replace the ack of a lane, as `write_ack` does."""
    replace_file(_lane_path(journal, lane), to_json(ack))


def _lane_path(journal: Path, lane: str) -> Path:
    return journal.with_suffix(f".{lane}.ack")


def quarantine(journal: Path, entry: Mapping[str, object], reason: str) -> None:
    """Keep what the store refused for good, and why."""
    path = journal.with_suffix(".quarantine")
    path.touch(mode=0o600)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"reason": reason, **entry}) + "\n")


def take(journal: Path) -> int | None:
    """Take a journal for draining: a descriptor that holds it until `give_back`, or None where
    another process or thread has it.

    Raises:
        OSError: the journal cannot be opened.
    """
    return locks.take(journal)


def give_back(fd: int) -> None:
    """Let others take a journal again."""
    locks.release(fd)


def is_taken(journal: Path) -> bool:
    """Whether somebody drains a journal; False where it cannot be told."""
    try:
        return locks.is_taken(journal)
    except OSError:
        return False


def backlog(journal: Path) -> int:
    """Bytes of a journal whose metrics, params, tags and statuses are not in the store; 0 as well
    once it is delivered and removed, and for the half of a line that a full disk or a death has
    left."""
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
    lanes = [read_lane_ack(journal, lane) for lane in LANES]
    return read_ack(journal).offset < size or any(a.offset < size or a.aside for a in lanes)


def problem_of(journal: Path) -> str:
    """What keeps something of a journal from the store, in words; empty where nothing does."""
    if problem := read_ack(journal).problem:
        return problem
    problems = {lane: read_lane_ack(journal, lane).problem for lane in LANES}
    return "; ".join(f"{lane}: {problem}" for lane, problem in problems.items() if problem)


def may_be_removed(journal: Path, writer: ProcessIdentity, *, ended: bool = False) -> bool:
    """Whether nothing can be appended any more to a journal that is delivered.

    Args:
        journal: the file.
        writer: as its head names it.
        ended: somebody says that its writer, which cannot be seen from here, is gone.
    """
    if is_closed(journal) or presence.is_over(journal, writer):
        return True
    return ended and not presence.may_go_on(journal, writer)


def journals(folder: Path) -> list[Path]:
    """The journals of a spool, oldest first."""
    return sorted(folder.glob(f"*{SUFFIX}"))


def remove(journal: Path) -> None:
    """Remove a delivered journal and what lies beside it; what was refused stays."""
    # The journal first: without its ack it would be delivered again, into a run of its own.
    journal.unlink(missing_ok=True)
    journal.with_suffix(".ack").unlink(missing_ok=True)
    for lane in LANES:
        _lane_path(journal, lane).unlink(missing_ok=True)
    presence.path_of(journal).unlink(missing_ok=True)
    shutil.rmtree(journal.with_suffix(".files"), ignore_errors=True)
