"""What `orbiter-mlflow sync` and `status` show in the terminal."""

import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from orbiter_mlflow.delivery.spool import Ack
from orbiter_mlflow.delivery.sync import Backlog, deliver, look
from orbiter_mlflow.delivery.worker import open_mlflow
from orbiter_mlflow.delivery.writer import runs_elsewhere
from orbiter_mlflow.escaping import message, plain

_LONG = 1 << 20
"""Bytes from which on a journal gets a progress bar."""


def show(journals: Sequence[Path]) -> None:
    """A table of journals and what waits in them."""
    console = Console()
    if not journals:
        console.print("no journals: everything is delivered")
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)  # 80 columns hold it
    for heading in ("journal", "run", "state", "points", "age", "refused"):
        table.add_column(heading, no_wrap=True)
    backlogs = [look(journal) for journal in journals]
    for backlog in backlogs:
        age = "-"
        if backlog.head is not None:
            age = str(timedelta(seconds=int(time.time() - backlog.head.start_time / 1000)))
        table.add_row(
            Text(plain(backlog.journal.name)),
            Text(plain((backlog.ack.run_id or "-")[:8])),
            backlog.state,
            str(backlog.points),
            age,
            str(backlog.refused),
        )
    console.print(table)
    for backlog in backlogs:
        if backlog.problem:
            _say(console, backlog.journal, backlog.problem)


def sync_all(
    journals: Sequence[Path], *, tracking_uri: str | None, ended: bool, wait: float
) -> int:
    """Deliver journals one after the other; gives the exit code: 1 where something still waits."""
    console = Console()
    if not journals:
        console.print("no journals: everything is delivered")
        return 0
    undelivered = 0
    for journal in journals:
        backlog = _deliver(journal, tracking_uri, ended, wait, console)
        undelivered += backlog.state != "delivered"
        _say(console, journal, _outcome(backlog))
    return 1 if undelivered else 0


def _say(console: Console, journal: Path, text: str) -> None:
    line = f"{plain(journal.name)}: {message(text)}"
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def _deliver(
    journal: Path, tracking_uri: str | None, ended: bool, wait: float, console: Console
) -> Backlog:
    size = journal.stat().st_size
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=size < _LONG) as progress:
        task = progress.add_task(plain(journal.name), total=size)

        def on_progress(ack: Ack) -> None:
            progress.update(task, completed=ack.offset)

        return deliver(
            journal,
            open_mlflow,
            tracking_uri=tracking_uri,
            ended=ended,
            patience=wait,
            on_progress=on_progress,
        )


def _outcome(backlog: Backlog) -> str:
    run = f"run {backlog.ack.run_id}"
    if backlog.state == "delivered":
        refused = backlog.refused
        return f"delivered, {run}" + (f"; {refused} entries are in quarantine" if refused else "")
    if backlog.state == "delivering":
        return (
            f"left alone: {backlog.ack.drainer or 'another process'} is delivering it; it gives up "
            "some minutes after its trainer's end, or when it is ended"
        )
    if backlog.problem:
        done = f"{run} is complete, but " if backlog.ack.settled else ""
        return f"{done}not delivered: {backlog.problem}"
    if backlog.head is not None and runs_elsewhere(backlog.head.writer):
        return (
            f"all of it is in {run}, which still counts as running: its trainer ran on "
            f"{backlog.head.writer.host}; if that is over, add --ended"
        )
    return f"all of it so far is in {run}; its trainer is still running"
