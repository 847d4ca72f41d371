"""Delivers journals by hand: offline ones, those of another machine, what an outage left behind.

It uses the same drain as live delivery. To stop it at any point, or to run it twice, is safe.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from orbiter_mlflow.delivery import spool
from orbiter_mlflow.delivery.drain import Drain
from orbiter_mlflow.delivery.hosts.environment import files_from
from orbiter_mlflow.delivery.journal import read, read_head, whole_size
from orbiter_mlflow.delivery.presence import is_over, may_go_on
from orbiter_mlflow.delivery.records import Head, Metrics
from orbiter_mlflow.delivery.side_lane import SideLane, side_lanes
from orbiter_mlflow.delivery.sink import Sink
from orbiter_mlflow.delivery.spool import Ack, LaneAck
from orbiter_mlflow.delivery.trust import goes_to, is_ours

State = Literal["delivered", "delivering", "waiting", "held", "refused", "unreadable"]


@dataclass(frozen=True, slots=True)
class Backlog:
    """A journal, and what of it is not in the store yet.

    `state` is `delivering` where another process has it, `held` where a person must act, `refused`
    where it names a store that is not trusted.
    """

    journal: Path
    state: State
    head: Head | None
    ack: Ack
    points: int
    """Metric values that wait."""
    lanes: Mapping[str, LaneAck] = field(default_factory=dict)

    @property
    def lanes_waiting(self) -> list[str]:
        """Those of `datasets` and `artifacts` of which something is not in the store."""
        return [
            name
            for name, lane in self.lanes.items()
            if lane.offset < self.ack.offset or lane.aside or lane.problem
        ]

    @property
    def refused(self) -> int:
        """Entries that are in quarantine, and lines that could not be read."""
        return self.ack.quarantined + self.ack.damaged + sum(a.refused for a in self.lanes.values())

    @property
    def problem(self) -> str:
        """Why it is not delivered, in words; empty where nothing is wrong."""
        said = [self.ack.problem, _under_trial(self.ack)]
        for name, lane in self.lanes.items():
            problem = lane.problem or _under_trial(lane)
            said.append(f"{name}: {problem}" if problem else "")
        return "; ".join(filter(None, said))


def _under_trial(ack: Ack | LaneAck) -> str:
    if not ack.aside:
        return ""
    return (
        f"{len(ack.aside)} entries were refused and are tried again for some minutes "
        f"({ack.aside[0].reason})"
    )


def find(paths: Iterable[Path]) -> list[Path]:
    """The journals that are meant by files and folders.

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


def look(journal: Path) -> Backlog:
    """What waits in a journal; reads the part that is not delivered."""
    ack = spool.read_ack(journal)
    try:
        head = read_head(journal)
        waiting = [entry.record for entry in read(journal, ack.offset)]
    except (OSError, ValueError) as error:
        return Backlog(journal, "unreadable", None, Ack(problem=str(error)), 0)
    points = sum(len(record.values) for record in waiting if isinstance(record, Metrics))
    lanes = {lane: spool.read_lane_ack(journal, lane) for lane in spool.LANES}
    backlog = Backlog(journal, "waiting", head, ack, points, lanes)
    if spool.is_taken(journal):
        return replace(backlog, state="delivering")
    # One that has grown since it was closed is open again: its writer lives after all.
    done = ack.settled and not spool.backlog(journal)
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
    patience: float = 30.0,
    on_progress: Callable[[Ack], None] = lambda ack: None,
) -> Backlog:
    """Deliver one journal; one that is delivered to its end is removed, unless it is to be kept.

    Args:
        journal: the file.
        open_sink: makes the sink of a tracking URI.
        in_force: the tracking URI of this environment: where its credentials are for.
        instead: where to, in place of what the journal says.
        trusted: whether to deliver to a URI that is neither of these; asked where a journal names
            one, unless it is a store on this machine and the journal is ours.
        ended: its writer, on another machine, is known to be gone.
        patience: seconds to keep trying while the store cannot be reached.
        on_progress: called with the ack after each step.
    """
    before = look(journal)
    if before.head is None or before.state == "delivering":
        return before
    if before.state == "delivered" and before.head.keep:
        return before
    uri = instead or goes_to(journal, before.head, in_force)
    if uri is None and trusted(before.head.tracking_uri):
        uri = before.head.tracking_uri
    if uri is None:
        return replace(before, state="refused")
    fd = spool.take(journal)
    if fd is None:
        return look(journal)
    folder = before.head.folder if is_ours(journal) else None
    try:
        drain = Drain(journal, lambda _: open_sink(uri), on_progress=on_progress)
        lanes = side_lanes(journal, lambda _: open_sink(uri))
        writer = before.head.writer
        orphaned = is_over(journal, writer) or (ended and not may_go_on(journal, writer))
        deadline = time.monotonic() + patience
        with files_from(Path(folder or ".")):
            while True:
                done = drain.abandon() if orphaned else drain.run()
                # Not in an `all`: a lane in trouble must not keep the other one waiting.
                rest = [lane.run() for lane in lanes if time.monotonic() >= lane.not_before]
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
    return look(journal)


def _until_next(lanes: Sequence[Drain | SideLane]) -> float | None:
    """Seconds until something that waits may be tried again; None where only a person can help."""
    waits = []
    for lane in lanes:
        if lane.ack.held:
            continue
        if lane.ack.problem:
            waits.append(max(0.0, lane.not_before - time.monotonic()))
        if (trial := lane.next_trial()) is not None:
            waits.append(trial)
    return min(waits, default=None)
