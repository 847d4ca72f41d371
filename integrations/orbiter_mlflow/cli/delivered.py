"""What a program has delivered: wait for the journals that it opened, and describe its runs."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from orbiter_mlflow.delivery import opened_journals, retry, spool
from orbiter_mlflow.delivery.ack import read_ack
from orbiter_mlflow.delivery.hosts.base import sync_command
from orbiter_mlflow.delivery.journal_reader import read_head
from orbiter_mlflow.delivery.opened_journals import OpenedJournal
from orbiter_mlflow.delivery.records import Head
from orbiter_mlflow.delivery.store_uri import same_store
from orbiter_mlflow.delivery.sync import Backlog, read_backlog
from orbiter_mlflow.delivery.writer_lock import is_alive
from orbiter_mlflow.errors import RunNotFoundError, StoreError
from orbiter_mlflow.runs.model import StoredRun
from orbiter_mlflow.text.escaping import message, plain
from orbiter_mlflow.ui.links import run_page
from orbiter_mlflow.ui.pages import ui_address

if TYPE_CHECKING:
    from orbiter_mlflow.runs.store import RunStore

_MAX_SHOWN = 20
"""Runs, and journals that wait, that a report describes at most."""
_MAX_COUNTED = 1000
"""Artifacts of a run that are counted at most."""


def wait(opened: Path, within: float, patience: float) -> None:
    """Wait until the journals of a list are delivered, as far as they are going to be now.

    Args:
        opened: the list.
        within: seconds, at most.
        patience: seconds, at most, once all that is left has a problem, or nobody delivers it.
    """
    heads: dict[Path, Head | None] = {}
    stuck: dict[Path, float] = {}
    deadline = time.monotonic() + within
    while (now := time.monotonic()) < deadline:
        paths = [one.path for one in opened_journals.read(opened)]
        for path in paths:
            if path not in heads:
                heads[path] = _head(path)
        left = [path for path in paths if _is_under_way(path, heads[path])]
        stuck = {path: stuck.get(path, now) for path in left if _is_stuck(path)}
        if all(path in stuck and now > stuck[path] + patience for path in left):
            return
        time.sleep(retry.ACK_POLL)


def _is_under_way(journal: Path, head: Head | None) -> bool:
    """Whether delivery has something to do for a journal now."""
    if head is None or not head.live:
        return False
    if spool.is_waiting(journal):
        return True
    if not journal.exists() or read_ack(journal).settled:
        return False
    return not is_alive(journal, head.writer)  # then the end of the run is still to be told


def _is_stuck(journal: Path) -> bool:
    return bool(spool.problem_of(journal)) or not spool.is_taken(journal)


def _head(journal: Path) -> Head | None:
    try:
        return read_head(journal)
    except (OSError, ValueError):
        return None


def report(journals: Sequence[OpenedJournal], in_force: str) -> Iterator[str]:
    """Lines that say which runs were written, and what waits and why.

    Args:
        journals: those that the program has opened.
        in_force: the tracking URI of this environment, with credentials if it has any.
    """
    if not journals:
        yield "the program has written no run"
        return
    backlogs = {one.path: _backlog(one.path) for one in journals}
    for uri, written in _by_store(journals, backlogs, in_force).items():
        yield from _lines_of_store(uri, written)
    waiting = [one for one in backlogs.values() if one is not None and _waits(one)]
    for backlog in waiting[:_MAX_SHOWN]:
        yield from _waiting_lines(backlog)
    if len(waiting) > _MAX_SHOWN:
        yield f"{len(waiting) - _MAX_SHOWN} more journals wait: orbiter-mlflow status"
    for path in backlogs:
        if (refused := spool.quarantine_path(path)).exists():
            yield f"MLflow refused some of this for good: {plain(str(refused))} has it, and why"


def _backlog(journal: Path) -> Backlog | None:
    """What waits in a journal; None once it was delivered and removed."""
    backlog = read_backlog(journal)
    return None if backlog.head is None and not journal.exists() else backlog


def _waits(backlog: Backlog) -> bool:
    if backlog.head is None:
        return True
    return spool.is_waiting(backlog.journal) or not (backlog.ack.settled or _is_written(backlog))


def _is_written(backlog: Backlog) -> bool:
    """Whether a process that goes on may write more to a journal."""
    return backlog.head is not None and is_alive(backlog.journal, backlog.head.writer)


def _waiting_lines(backlog: Backlog) -> Iterator[str]:
    parts = [_count(backlog.points, "point")] if backlog.points else []
    parts += backlog.lanes_waiting if backlog.ack.settled or not parts else []
    what = ", ".join(parts) or "records"
    run = f"of run {backlog.ack.run_id}" if backlog.ack.run_id else "of a run that is not there yet"
    why = backlog.problem or "delivery has not finished"
    if backlog.head is not None and not backlog.head.live:
        why = "delivery is offline"
    yield f"not delivered yet: {what} {run} ({message(why)})"
    yield f"  deliver it with: {plain(sync_command(backlog.journal))}"


@dataclass(slots=True)
class _Written:
    """A run that was written, by one or several journals.

    Attributes:
        uid: the tag `orbiter.uid` of the run, if `run_id` is not known.
        run_id: its id in the store.
        waits: something of it is not delivered.
        goes_on: a process that goes on may write more.
    """

    uid: str
    run_id: str | None
    waits: bool = False
    goes_on: bool = False


def _by_store(
    journals: Sequence[OpenedJournal], backlogs: Mapping[Path, Backlog | None], in_force: str
) -> dict[str, list[_Written]]:
    """The runs that were written, by tracking URI."""
    stores: dict[str, dict[str, _Written]] = {}
    for journal in journals:
        uri, backlog = journal.tracking_uri, backlogs[journal.path]
        runs = stores.setdefault(in_force if same_store(uri, in_force) else uri, {})
        run_id = journal.run_id or (backlog.ack.run_id if backlog is not None else None)
        run = runs.setdefault(run_id or journal.uid, _Written(journal.uid, run_id))
        if backlog is not None:
            run.waits |= _waits(backlog)
            run.goes_on |= _is_written(backlog)
    return {uri: list(runs.values()) for uri, runs in stores.items()}


def _lines_of_store(uri: str, runs: Sequence[_Written]) -> Iterator[str]:
    from orbiter_mlflow.runs.store import RunStore

    told: set[str] = set()  # two journals may know a run by two ids
    try:
        store = RunStore(uri)
        for number, written in enumerate(runs):
            if len(told) == _MAX_SHOWN:
                yield f"{len(runs) - number} more runs in {plain(store.shown_uri)}"
                return
            run = _find(store, written)
            if run is not None and run.run_id not in told:
                told.add(run.run_id)
                yield from _run_lines(store, run, goes_on=written.goes_on)
            elif run is None and not written.waits:
                run_id = written.run_id or written.uid
                yield f"run {plain(run_id)} was not found in {plain(store.shown_uri)}"
    except StoreError as error:
        yield plain(str(error))


def _run_lines(store: "RunStore", run: StoredRun, *, goes_on: bool) -> Iterator[str]:
    what = f"{_count(len(run.metrics), 'metric')}, {_count(len(run.params), 'param')}"
    more = "; another process still writes it" if goes_on else ""
    artifacts = _artifacts(store, run.run_id)
    yield f"run {run.run_id} ({plain(run.name)}): {run.status}, {what}, {artifacts}{more}"
    if store.shown_uri.startswith(("http://", "https://")):
        yield f"  {plain(run_page(ui_address(store.shown_uri), run.experiment_id, run.run_id))}"


def _artifacts(store: "RunStore", run_id: str) -> str:
    try:
        counted = sum(1 for _ in islice(store.artifacts(run_id), _MAX_COUNTED + 1))
    except StoreError:  # the run is there: its artifacts may be on a store of their own
        return "artifacts that cannot be listed"
    if counted > _MAX_COUNTED:
        return f"more than {_MAX_COUNTED} artifacts"
    return _count(counted, "artifact")


def _find(store: "RunStore", written: _Written) -> StoredRun | None:
    try:
        return store.get(written.run_id or written.uid)
    except RunNotFoundError:
        return None


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
