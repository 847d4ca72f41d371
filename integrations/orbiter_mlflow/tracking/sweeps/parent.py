"""The parent run of a sweep: a journal of its own, and a thread that keeps its tags up to date.

The thread looks at the notes of the children now and then, so that the parent shows how far the
sweep is, and still does so if its process dies.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from orbiter_mlflow import names
from orbiter_mlflow.delivery import kept_files, writer_lock
from orbiter_mlflow.delivery.ack import read_ack
from orbiter_mlflow.delivery.records import Close, RunStatus, Tags, Update
from orbiter_mlflow.delivery.run_writer import RunWriter
from orbiter_mlflow.redaction.redactor import Redactor
from orbiter_mlflow.text.clock import now
from orbiter_mlflow.text.values import tag_value
from orbiter_mlflow.tracking.metric_keys import MetricKeys
from orbiter_mlflow.tracking.shown_tables import ShownTables
from orbiter_mlflow.tracking.sweeps.folder import ChildNote, SweepFolder
from orbiter_mlflow.tracking.sweeps.summary import Ranking, Summary, summary_of

__all__ = ["TABLE", "SweepParent", "head_tags"]

_logger = logging.getLogger(__name__)

TABLE = "sweep/children.json"
"""The table of the children among the artifacts of the parent."""
_EVERY = 10.0
"""Seconds between looks at the children."""
_TABLE_EVERY = 60.0
"""Seconds between two tables while the sweep goes on: each is an upload."""


class SweepParent:
    """The parent run of an open sweep.

    Args:
        writer: of its journal.
        folder: of the sweep, taken by this process.
        ranking: of the children, if they are ranked.
        redactor: removes secrets from tags.
    """

    def __init__(
        self, writer: RunWriter, folder: SweepFolder, ranking: Ranking | None, redactor: Redactor
    ) -> None:
        self.writer = writer
        self.folder = folder
        self._ranking = ranking
        self._redactor = redactor
        self._pid = os.getpid()
        self._shown = ShownTables(writer)
        self._tags: dict[str, str] = {}
        self._table = b""
        self._next_table = time.monotonic() + _TABLE_EVERY
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="orbiter-sweep", daemon=True)

    def begin(self, tags: dict[str, str]) -> None:
        """Start the run, or continue it; `tags` are the user's."""
        self.writer.append(Update("RUNNING"))  # so that the death of this process ends the run
        keys, ours = MetricKeys(self._redactor.text), f"{names.ORBITER}."
        shown = {
            keys.tag(key): tag_value(self._redactor.value(key, text))
            for key, text in tags.items()
            if not key.startswith(ours)  # each child warns of it
        }
        if shown:
            self.writer.append(Tags(shown))
        self._thread.start()

    @property
    def is_here(self) -> bool:
        """Whether this process has opened the sweep, and is no fork of the one that did."""
        return self._pid == os.getpid()

    def summary(self) -> Summary:
        """The children as they are now."""
        return summary_of([*self._children()], self.folder.numbers(), self._ranking)

    def end(self, status: RunStatus) -> None:
        """Write what became of the children, and end the run; `close` follows."""
        self._ended.set()
        self._thread.join()
        self._refresh(last=True)
        self.writer.append(Update(status, now()))

    def close(self) -> None:
        """Close the journal, which is removed once it is delivered, and leave the sweep."""
        self.note_run_id()
        self.writer.append(Close())
        self.writer.close()
        self.folder.give_back()

    def note_run_id(self) -> None:
        """Note the run's id once it is known, so that the sweep can be resumed by it."""
        note = self.folder.read()
        if note is not None and note.run_id is None and (run_id := self.writer.run_id()):
            try:
                self.folder.write(replace(note, run_id=run_id))
            except OSError as error:
                _logger.info("the run id of the sweep %s is not noted: %s", note.name, error)

    # -- what it shows ------------------------------------------------------------------------

    def _watch(self) -> None:
        while not self._ended.wait(_EVERY):
            self._refresh(last=False)
            self.note_run_id()

    def _refresh(self, *, last: bool) -> None:
        try:
            self._update(self.summary(), last=last)
        except Exception:
            _logger.exception("the parent of a sweep could not be brought up to date")

    def _update(self, summary: Summary, *, last: bool) -> None:
        news = {k: t for k, t in summary.tags().items() if self._tags.get(k) != t}
        if news:
            self._tags |= news
            self.writer.append(Tags({key: tag_value(text) for key, text in news.items()}))
        if last or time.monotonic() >= self._next_table:
            self._next_table = time.monotonic() + _TABLE_EVERY
            self._write_table(summary)

    def _write_table(self, summary: Summary) -> None:
        content = json.dumps(summary.table(self._ranking), ensure_ascii=False).encode()
        if content == self._table or not summary.children:
            return
        folder, _, name = TABLE.rpartition("/")
        try:
            kept = kept_files.keep_content(self.writer.path, content, name, folder)
        except OSError as error:
            _logger.warning("the table of a sweep's children is not kept: %s", error)
            return
        self._table = content
        self.writer.append(replace(kept, names_runs=True))
        self._shown.add(TABLE)

    # -- the children --------------------------------------------------------------------------

    def _children(self) -> Iterator[ChildNote]:
        for child in self.folder.children():
            journal = Path(child.journal)
            if child.run_id is None:
                child = replace(child, run_id=read_ack(journal).run_id)
            if child.status == "RUNNING" and _is_dead(child, journal):
                # It may have ended just now: its last word counts.
                child = self.folder.child(child.uid) or child
                if child.status == "RUNNING":
                    child = replace(child, status="KILLED", value=None)
            yield child


def _is_dead(child: ChildNote, journal: Path) -> bool:
    """Whether the process of a child is gone, or its journal, which is removed once it is over."""
    return not journal.exists() or writer_lock.is_dead(journal, child.writer)


def head_tags(name: str, ranking: Ranking | None, source: dict[str, str]) -> dict[str, str]:
    """The tags with which a parent is created."""
    ranked = {names.SWEEP_METRIC: f"{ranking.metric} ({ranking.direction})"} if ranking else {}
    return {**source, names.SWEEP: name, names.SWEEP_CHILDREN: "{}", **ranked}
