"""Delivers journals by hand: offline ones, those of another machine, what an outage left behind.

It uses the same drain as live delivery. To stop it at any point, or to run it twice, is safe.
"""

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orbiter_mlflow.delivery import spool
from orbiter_mlflow.delivery.drain import Drain
from orbiter_mlflow.delivery.journal import read, read_head
from orbiter_mlflow.delivery.protocol import Sink
from orbiter_mlflow.delivery.records import Head, Metrics
from orbiter_mlflow.delivery.spool import Ack
from orbiter_mlflow.delivery.writer import is_gone, runs_elsewhere

State = Literal["delivered", "delivering", "waiting", "held", "unreadable"]


@dataclass(frozen=True, slots=True)
class Backlog:
    """A journal, and what of it is not in the store yet.

    `state` is `delivering` where another process has it, `held` where a person must act.
    """

    journal: Path
    state: State
    head: Head | None
    ack: Ack
    points: int
    """Metric values that wait."""

    @property
    def problem(self) -> str:
        """Why it is not delivered, in words; empty where nothing is wrong."""
        return self.ack.problem


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
    fd = spool.take(journal)
    if fd is None:
        return Backlog(journal, "delivering", head, ack, points)
    os.close(fd)
    state: State = "delivered" if ack.closed else "held" if ack.held else "waiting"
    return Backlog(journal, state, head, ack, points)


def deliver(
    journal: Path,
    open_sink: Callable[[str], Sink],
    *,
    tracking_uri: str | None = None,
    ended: bool = False,
    patience: float = 30.0,
    told: Callable[[Ack], None] = lambda ack: None,
) -> Backlog:
    """Deliver one journal; one that is delivered to its end is removed, unless it is to be kept.

    Args:
        journal: the file.
        open_sink: makes the sink of a tracking URI.
        tracking_uri: where to, in place of what the journal says.
        ended: its writer, on another machine, is known to be gone.
        patience: seconds to keep trying while the store cannot be reached.
        told: hears of each step.
    """
    before = look(journal)
    if before.head is None or before.state in ("delivering", "delivered"):
        return before
    uri = tracking_uri or before.head.tracking_uri
    fd = spool.take(journal)
    if fd is None:
        return look(journal)
    try:
        drain = Drain(journal, lambda _: open_sink(uri), told=told)
        orphaned = is_gone(before.head.writer) or (ended and runs_elsewhere(before.head.writer))
        deadline = time.monotonic() + patience
        while not (drain.abandon() if orphaned else drain.run()):
            if drain.ack.held or drain.not_before > deadline:
                break
            time.sleep(max(0.0, drain.not_before - time.monotonic()))
        ack, size = drain.ack, journal.stat().st_size
        if ack.closed and ack.offset >= size:
            if not before.head.keep:
                spool.remove(journal)
            return Backlog(journal, "delivered", before.head, ack, 0)
    finally:
        os.close(fd)
    return look(journal)
