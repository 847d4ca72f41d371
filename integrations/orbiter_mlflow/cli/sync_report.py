"""The output of `orbiter-mlflow sync` and `status`."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from orbiter_mlflow.cli.options import console
from orbiter_mlflow.delivery.ack import Ack
from orbiter_mlflow.delivery.hosts.drain_loop import open_mlflow
from orbiter_mlflow.delivery.sync import Backlog, deliver, in_order, read_backlog
from orbiter_mlflow.delivery.writer_lock import is_alive
from orbiter_mlflow.text.escaping import message, plain
from orbiter_mlflow.text.urls import without_userinfo

_BAR_SIZE = 1 << 20
"""Bytes; a larger journal gets a progress bar."""


def show(journals: Sequence[Path]) -> None:
    """Print a table of journals and what waits in them."""
    out = console()
    if not journals:
        out.print("no journals: everything is delivered")
        return
    table = Table(  # fits into 80 columns
        box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True, show_edge=False
    )
    for heading in ("journal", "run", "state", "points", "age", "refused"):
        table.add_column(heading, no_wrap=True, max_width=8 if heading == "run" else None)
    backlogs = [read_backlog(journal) for journal in journals]
    for backlog in backlogs:
        age = run = "-"
        if backlog.head is not None:
            age = _age(time.time() - backlog.head.start_time / 1000)
            run = backlog.head.run_name or run
        if backlog.ack.run_id is not None:
            run = backlog.ack.run_id[:8]
        table.add_row(
            Text(plain(backlog.journal.name)),
            Text(plain(run), overflow="ellipsis"),
            backlog.state,
            str(backlog.points),
            age,
            str(backlog.refused),
        )
    out.print(table)
    for backlog in backlogs:
        if backlog.problem:
            _print_line(out, backlog.journal, backlog.problem)


def _age(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{max(0, int(seconds))} s"


@dataclass(frozen=True, slots=True)
class Destination:
    """Where journals may be delivered.

    Attributes:
        in_force: the tracking URI of this environment.
        instead: the URI to use instead of those in the journals.
        trust: trust all URIs in the journals.
    """

    in_force: str
    instead: str | None = None
    trust: bool = False


def sync_all(
    journals: Sequence[Path], destination: Destination, *, ended: bool, wait: float
) -> int:
    """Deliver journals one after the other; returns the exit code: 1 if something still waits."""
    out = console()
    if not journals:
        out.print("no journals: everything is delivered")
        return 0
    undelivered = 0
    trust = _Trust(destination)
    for journal in in_order(journals):
        if not journal.exists():
            _print_line(out, journal, "delivered, before a journal that needs its run")
            continue
        backlog = _deliver(journal, destination, trust, ended, wait, out)
        undelivered += backlog.state != "delivered"
        _print_line(out, journal, _outcome(backlog, destination))
    return 1 if undelivered else 0


class _Trust:
    """Whether journals may be sent to a URI that only they name; on a terminal, the user is asked
    once for each URI."""

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._answers: dict[str, bool] = {}

    def __call__(self, uri: str) -> bool:
        if self._destination.trust:
            return True
        if uri not in self._answers:
            self._answers[uri] = sys.stdin.isatty() and sys.stdout.isatty() and self._ask(uri)
        return self._answers[uri]

    def _ask(self, uri: str) -> bool:
        shown, in_force = _display_uri(uri), _display_uri(self._destination.in_force)
        click.echo(f"A journal names the tracking URI {shown}; in force here is {in_force}.")
        return click.confirm(f"Send it, and the credentials of this environment, to {shown}?")


def _display_uri(uri: str) -> str:
    return plain(without_userinfo(uri))


def _print_line(out: Console, journal: Path, text: str) -> None:
    line = f"{plain(journal.name)}: {message(text)}"
    out.print(line, highlight=False, markup=False, soft_wrap=True)


def _deliver(
    journal: Path,
    destination: Destination,
    trust: _Trust,
    ended: bool,
    wait: float,
    out: Console,
) -> Backlog:
    size = journal.stat().st_size
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=out, transient=True, disable=size < _BAR_SIZE)
    task = progress.add_task(plain(journal.name), total=size)

    def on_progress(ack: Ack) -> None:
        progress.start()  # not earlier: the user may be asked something first
        progress.update(task, completed=ack.offset)

    try:
        return deliver(
            journal,
            open_mlflow,
            in_force=destination.in_force,
            instead=destination.instead,
            trusted=trust,
            ended=ended,
            timeout=wait,
            on_progress=on_progress,
        )
    finally:
        progress.stop()


def _run(backlog: Backlog) -> str:
    """The run of a journal; a run of MLflow's own clients with its name and experiment."""
    run = f"run {backlog.ack.run_id}" if backlog.ack.run_id else "a run that is not created yet"
    head = backlog.head
    if head is None or not (head.as_written and head.makes_run):
        return run
    name = [] if head.run_name is None else [repr(head.run_name)]
    where = head.experiment_id or head.experiment or "Default"
    return f"{run} ({', '.join([*name, f'experiment {where}'])})"


def _outcome(backlog: Backlog, destination: Destination) -> str:
    run = _run(backlog)
    writer = "process" if backlog.head is not None and backlog.head.as_written else "trainer"
    if backlog.state == "delivered":
        refused = backlog.refused
        return f"delivered, {run}" + (f"; {refused} entries are in quarantine" if refused else "")
    if backlog.state == "delivering":
        return (
            f"skipped: {backlog.ack.drainer or 'another process'} is delivering it; it gives up "
            f"some minutes after its {writer} has ended, or when it is stopped"
        )
    if backlog.state == "refused" and backlog.head is not None:
        named, here = map(_display_uri, (backlog.head.tracking_uri, destination.in_force))
        return (
            f"not delivered: it names the tracking URI {named}, but {here} is in force here; pass "
            "--trust-uri to send it there with this environment's credentials, or --tracking-uri "
            "URI to send it elsewhere"
        )
    if backlog.problem:
        done = f"{run} is complete, but " if backlog.ack.settled else ""
        return f"{done}not delivered: {backlog.problem}"
    if backlog.head is not None and not is_alive(backlog.journal, backlog.head.writer):
        return (
            f"all of it is in {run}, which still counts as running, as its {writer} ran on "
            f"{backlog.head.writer.host}; if that {writer} has ended, add --ended"
        )
    return f"all of it so far is in {run}; its {writer} is still running"
