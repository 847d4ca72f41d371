"""Deliver journals on demand: offline ones, those of another machine, and those left by an outage.

It uses the same drain as live delivery, and is safe to interrupt at any point or to run twice.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from orbiter_mlflow import names
from orbiter_mlflow.delivery import retry, spool
from orbiter_mlflow.delivery.ack import Ack, LaneAck, read_ack, read_lane_ack
from orbiter_mlflow.delivery.drain import Drain
from orbiter_mlflow.delivery.hosts.environment import files_from
from orbiter_mlflow.delivery.journal_reader import read_entries, read_head, whole_size
from orbiter_mlflow.delivery.records import SIDE_LANES, Head, Metrics
from orbiter_mlflow.delivery.side_lane import SideLane, side_lanes
from orbiter_mlflow.delivery.sink import Sink
from orbiter_mlflow.delivery.spool import is_ours
from orbiter_mlflow.delivery.store_uri import is_local, same_store
from orbiter_mlflow.delivery.writer_lock import is_alive, is_dead

State = Literal["delivered", "delivering", "waiting", "held", "refused", "unreadable"]


@dataclass(frozen=True, slots=True)
class Backlog:
    """A journal, and the part of it that is not in the store yet.

    Attributes:
        journal: the file.
        state: `delivering` if another process has it, `held` if a person must act, `refused` if it
            names a store that is not trusted.
        head: its first record; None if it cannot be read.
        ack: how far it is delivered.
        points: number of metric values that wait.
        lanes: acks of the side lanes, by name.
    """

    journal: Path
    state: State
    head: Head | None
    ack: Ack
    points: int
    lanes: Mapping[str, LaneAck] = field(default_factory=dict)

    @property
    def lanes_waiting(self) -> list[str]:
        """The side lanes of which something is not in the store."""
        return [
            name
            for name, lane in self.lanes.items()
            if lane.offset < self.ack.offset or lane.aside or lane.problem
        ]

    @property
    def refused(self) -> int:
        """Number of quarantined entries and damaged lines."""
        return self.ack.quarantined + self.ack.damaged + sum(a.refused for a in self.lanes.values())

    @property
    def problem(self) -> str:
        """Why it is not delivered, in words; empty where nothing is wrong."""
        parts = [self.ack.problem, _retried(self.ack)]
        for name, lane in self.lanes.items():
            problem = lane.problem or _retried(lane)
            parts.append(f"{name}: {problem}" if problem else "")
        return "; ".join(filter(None, parts))


def _retried(ack: Ack | LaneAck) -> str:
    if not ack.aside:
        return ""
    return (
        f"{len(ack.aside)} entries were refused and are being retried for some minutes "
        f"({ack.aside[0].reason})"
    )


def find_journals(paths: Iterable[Path]) -> list[Path]:
    """The journals among files and in folders.

    Raises:
        FileNotFoundError: there is no such file or folder.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += spool.journals(path)
        elif path.exists():
            found.append(path)
        else:
            raise FileNotFoundError(f"{path}: there is no such journal or folder")
    return found


def in_order(journals: Iterable[Path]) -> list[Path]:
    """Journals in the order in which to deliver them: those of the parents of sweeps last, as they
    name the runs of the others."""
    return sorted(journals, key=_is_of_sweep)


def _is_of_sweep(journal: Path) -> bool:
    try:
        head = read_head(journal)
    except (OSError, ValueError):
        return False
    return head.as_written and names.SWEEP in head.tags


def read_backlog(journal: Path) -> Backlog:
    """Read the part of a journal that is not delivered, and its acks."""
    ack = read_ack(journal)
    try:
        head = read_head(journal)
        waiting = [entry.record for entry in read_entries(journal, ack.offset)]
    except (OSError, ValueError) as error:
        return Backlog(journal, "unreadable", None, Ack(problem=str(error)), 0)
    points = sum(len(record.values) for record in waiting if isinstance(record, Metrics))
    lanes = {lane: read_lane_ack(journal, lane) for lane in SIDE_LANES}
    backlog = Backlog(journal, "waiting", head, ack, points, lanes)
    if spool.is_taken(journal):
        return replace(backlog, state="delivering")
    # A journal that has grown since it was closed is open again: its writer lives after all.
    done = ack.settled and not spool.undelivered_bytes(journal)
    if done and not backlog.lanes_waiting:
        return replace(backlog, state="delivered")
    if ack.held or (done and all(lanes[name].held for name in backlog.lanes_waiting)):
        return replace(backlog, state="held")
    return backlog


def deliver(
    journal: Path,
    open_sink: Callable[[str], Sink],
    *,
    in_force: str,
    instead: str | None = None,
    trusted: Callable[[str], bool] = lambda uri: False,
    ended: bool = False,
    timeout: float = retry.SYNC,
    on_progress: Callable[[Ack], None] = lambda ack: None,
) -> Backlog:
    """Deliver one journal, and remove it once it is complete, unless its head says to keep it.

    Args:
        journal: the file.
        open_sink: makes the sink of a tracking URI.
        in_force: the tracking URI of this environment, for which its credentials are meant.
        instead: a tracking URI to use in place of the journal's.
        trusted: whether to deliver to a URI that is neither of these; not asked for a store on this
            machine if the journal is ours. Default: never.
        ended: the writer, on another machine, is known to be gone.
        timeout: seconds to keep trying while the store cannot be reached.
        on_progress: called with the new `Ack` after each step.
    """
    before = read_backlog(journal)
    if before.head is None or before.state == "delivering":
        return before
    if before.state == "delivered" and before.head.keep:
        return before
    uri = instead or _trusted_uri(journal, before.head, in_force)
    if uri is None and trusted(before.head.tracking_uri):
        uri = before.head.tracking_uri
    if uri is None:
        return replace(before, state="refused")
    fd = spool.take(journal)
    if fd is None:
        return read_backlog(journal)
    folder = before.head.folder if is_ours(journal) else None
    try:
        drain = Drain(journal, lambda _: open_sink(uri), on_progress=on_progress)
        lanes = side_lanes(journal, lambda _: open_sink(uri))
        writer = before.head.writer
        orphaned = is_dead(journal, writer) or (ended and not is_alive(journal, writer))
        deadline = time.monotonic() + timeout
        with files_from(Path(folder or ".")):
            while True:
                done = drain.abandon() if orphaned else drain.run()
                # A list, not a generator in `all`: a lane in trouble must not hold up the other.
                due = [lane for lane in lanes if time.monotonic() >= lane.not_before]
                rest = [lane.run(drain.ack) for lane in due]
                if done and not drain.ack.aside and len(rest) == len(lanes) and all(rest):
                    break
                pause = _until_next([drain, *lanes])
                if pause is None or time.monotonic() + pause > deadline:
                    break
                time.sleep(pause)
        size = whole_size(journal)
        done = drain.ack.settled and drain.ack.offset >= size
        if done and all(lane.finished(size) for lane in lanes):
            if not before.head.keep and spool.may_be_removed(journal, writer, ended=ended):
                spool.remove(journal)
            return Backlog(journal, "delivered", before.head, drain.ack, 0)
    finally:
        spool.give_back(fd)
    return read_backlog(journal)


def _trusted_uri(journal: Path, head: Head, in_force: str) -> str | None:
    """The tracking URI to which a journal may be delivered without asking; None if it names a store
    that nobody but the journal speaks of. Delivery has the credentials of its environment, which
    must not go to a host of somebody else's choice; a store on this machine receives none."""
    if same_store(head.tracking_uri, in_force):
        return in_force
    if is_local(head.tracking_uri) and is_ours(journal):
        return head.tracking_uri
    return None


def _until_next(lanes: Sequence[Drain | SideLane]) -> float | None:
    """Seconds until the next attempt; None if only a person can help."""
    waits = []
    for lane in lanes:
        if lane.ack.held:
            continue
        if lane.ack.problem:
            waits.append(max(0.0, lane.not_before - time.monotonic()))
        if (wait := lane.next_retry()) is not None:
            waits.append(wait)
    return min(waits, default=None)
