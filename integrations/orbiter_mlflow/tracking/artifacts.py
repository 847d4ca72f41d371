"""The artifacts of one run: from a call of `log_artifact` to records of its journal.

A call finds the files, holds on to them and returns within some tens of milliseconds; a background
thread copies and hashes them. Nothing here raises. A warning and a tag report files that are not
kept, or not as they were.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from orbiter.train.hooks import quiet_logger
from orbiter_mlflow import names
from orbiter_mlflow.delivery import kept_files
from orbiter_mlflow.delivery.records import Artifact, Tags
from orbiter_mlflow.delivery.run_writer import RunWriter
from orbiter_mlflow.redaction.redactor import Redactor
from orbiter_mlflow.settings import MLflowSettings
from orbiter_mlflow.text.shortening import json_within
from orbiter_mlflow.text.values import tag_value, text_of
from orbiter_mlflow.tracking.artifact_files import (
    Found,
    LeftOut,
    folder_text,
    found_at,
    path_text,
    reason_of,
)
from orbiter_mlflow.tracking.artifact_names import ArtifactNames
from orbiter_mlflow.tracking.background import background
from orbiter_mlflow.tracking.checkpoints import RunCheckpoints
from orbiter_mlflow.tracking.eval_tables import table_content, table_name
from orbiter_mlflow.tracking.rollouts import RunRollouts
from orbiter_mlflow.tracking.shown_tables import ShownTables

__all__ = ["RunArtifacts"]

_logger = quiet_logger(__name__)

_HOLDING = 0.015
"""Seconds of a call in which files are read or opened; those may be changed or removed at once."""
_LISTING = 0.03
"""Seconds of a call in which it looks for files; the thread finds the rest."""
_MAX_NAMED = 20
"""Files that a tag names; the others are counted."""
_SHOWN = 150
"""Characters of a name in such a tag: those at its end."""
_POLL = 0.01
"""Seconds between looks at whether all is copied."""
_CHANGED = "it changed before it was copied, and the copy may hold some of both"
_TOO_LATE = "the process ended before it was copied"


class _Call:
    """One call of `log_artifact`.

    Attributes:
        given: the path, as given.
        left_out: files that are not kept, or not as they were.
        under_way: the file that is being copied now.
        all_found: the search for files is complete.
    """

    def __init__(self, given: str, files: Iterator[Found | LeftOut]) -> None:
        self.given = given
        self.left_out: list[LeftOut] = []
        self.under_way: str | None = None
        self.all_found = False
        self.found: deque[Found] = deque()
        self._files = files

    def look(self) -> None:
        """Find the files and hold on to them, for up to `_LISTING` seconds."""
        start = time.monotonic()
        for one in self._files:
            took = time.monotonic() - start
            if isinstance(one, LeftOut):
                self.left_out.append(one)
            else:
                if took < _HOLDING:
                    try:
                        one.hold()
                    except OSError as error:
                        self.left_out.append(LeftOut(one.name, reason_of(error)))
                        continue
                self.found.append(one)
            if took >= _LISTING:
                return
        self.all_found = True

    def take(self) -> Iterator[Found]:
        """Yield the files, one after the other."""
        while self.found:
            yield self.found.popleft()
        for one in self._files:
            if isinstance(one, LeftOut):
                self.left_out.append(one)
            else:
                yield one
        self.all_found = True

    def unfinished(self) -> Iterator[LeftOut]:
        """Files that the other thread has not copied yet."""
        waiting = [self.under_way, *(file.name for file in self.found.copy())]
        yield from (LeftOut(name, _TOO_LATE) for name in waiting if name)
        if not self.all_found:
            yield LeftOut(self.given, "the process ended before all files in it were found")


class RunArtifacts:
    """The artifacts of one run.

    Args:
        writer: of the run.
        redactor: takes the secrets out of names.
        settings: among them how long the exit of the process may wait for copies.

    Attributes:
        rollouts: what becomes of rollouts.
        checkpoints: what becomes of checkpoints.
    """

    def __init__(self, writer: RunWriter, redactor: Redactor, settings: MLflowSettings) -> None:
        self._writer = writer
        self._redactor = redactor
        self._redact = redactor.text
        self._patience = settings.flush_timeout
        ours = (names.DIFF_FILE, names.UNTRACKED_FILE, names.REQUIREMENTS_FILE)
        self._names = ArtifactNames(self._redact, (f"{names.PROVENANCE}/{name}" for name in ours))
        self._calls = 0
        self._under_way: list[_Call] = []
        self._shown = ShownTables(writer)
        self.rollouts = RunRollouts(writer, redactor, settings, self._shown)
        self.checkpoints = RunCheckpoints(
            writer, redactor, settings, self._refuse, self._count_pending
        )
        self._ended = False
        self._kept_waiting = False
        self._problems: dict[str, str] = {}
        self._written: dict[str, int] = {}
        # Reentrant: a garbage collection while it is held may bring the end of the run.
        self._lock = threading.RLock()

    @property
    def pending(self) -> bool:
        """Whether any file is not copied yet."""
        return self._calls > 0

    def log(self, path: Any, folder: Any) -> None:
        """Take a file, or all files of a folder, as `MLflowTrainerMixin.log_artifact` says."""
        given = ""
        try:
            given = path_text(path)
            inside = "" if folder is None else folder_text(folder)
        except Exception as error:  # TypeError for None or a number; what a `__fspath__` raises
            given = given or text_of(path)
            self._tell(given, [LeftOut(given, f"no path of a file or folder ({error})")])
            return
        call = _Call(given, found_at(given, inside, self._writer.path.parent))
        call.look()
        if call.all_found and not call.found:
            self._tell(given, call.left_out)
            return
        with self._lock:
            self._calls += 1
        background().do(partial(self._copy, call), self._patience)

    def log_table(self, rows: object, name: object, id_column: object) -> None:
        """Keep a table of examples, as `MLflowTrainerMixin.log_eval_table` says, at once.

        Raises:
            ValueError: it cannot be used, which is reported, too.
        """
        path = names.EVAL_TABLES
        try:
            path = names.eval_table(table_name(name))
            content = table_content(rows, id_column=id_column, redactor=self._redactor)
        except ValueError as error:
            self._refuse(f"table {path}", self._redact(str(error)), path)
            raise
        try:
            kept = kept_files.keep_content(self._writer.path, content, "", None)
        except OSError as error:
            self._tell(path, [LeftOut(path, reason_of(error))])
            return
        with self._lock:
            if self._ended:
                kept_files.discard(self._writer.path, kept)
                return
            claimed = self._names.claim(path)
            folder, _, file = claimed.rpartition("/")
            self._writer.append(replace(kept, name=file, folder=folder or None))
            self._shown.add(claimed)
        self._tell(path, ())

    async def wait(self, patience: float) -> None:
        """Let the event loop go on until all is copied, for up to `patience` seconds; where that
        was not enough, no second time."""
        deadline = 0.0 if self._kept_waiting else time.monotonic() + patience
        while self.pending and time.monotonic() < deadline:  # noqa: ASYNC110  no task ends it
            await asyncio.sleep(_POLL)
        self._kept_waiting = self.pending

    def finish(self, then: Callable[[], None]) -> None:
        """Do `then`, the end of the journal, once all is copied: at once where nothing is left to
        do, or the process ends; what is not copied by then is entries."""
        end = partial(self._end, then)
        if self.pending and not background().exiting:
            background().do(end, self._patience)
        else:
            end()

    # -- in the background ---------------------------------------------------------------------

    def _copy(self, call: _Call) -> None:
        with self._lock:
            self._under_way.append(call)
        try:
            for file in call.take():
                call.under_way = file.name
                try:
                    self._keep(file, call)
                except OSError as error:
                    call.left_out.append(LeftOut(file.name, reason_of(error)))
                finally:
                    file.release()
        except Exception:
            _logger.exception("artifact %s could not be kept", call.given)
        with self._lock:
            self._under_way.remove(call)
            self._calls -= 1
        self._tell(call.given, call.left_out)

    def _keep(self, file: Found, call: _Call) -> None:
        """Copy a file and append its record.

        Raises:
            OSError: it cannot be read or copied.
        """
        if background().late:
            raise OSError(_TOO_LATE)
        file.open()
        kept = self._kept(file)
        with self._lock:
            call.under_way = None
            if self._ended:  # nobody would remove a file that lies beside no journal
                kept_files.discard(self._writer.path, kept)
                return
            folder, _, name = self._names.claim(file.name).rpartition("/")
            self._writer.append(replace(kept, name=name, folder=folder or None))
        if file.changed:
            call.left_out.append(LeftOut(file.name, _CHANGED))

    def _kept(self, file: Found) -> Artifact:
        if file.content is not None:
            return kept_files.keep_content(self._writer.path, file.content, "", None)
        assert file.fd is not None  # noqa: S101  it is open
        kept = kept_files.keep_copy(self._writer.path, file.fd, file.status.st_size, "", None)
        file.look()
        return kept

    def _end(self, then: Callable[[], None]) -> None:
        for call in tuple(self._under_way):  # the process ends in the middle of a copy
            self._tell(call.given, tuple(call.unfinished()))
        with self._lock:
            self._ended = True
            self.rollouts.finish()
            self._write_tags(all_counts=True)
        then()

    # -- warnings and tags ---------------------------------------------------------------------

    def _tell(self, given: str, left_out: Sequence[LeftOut]) -> None:
        """Report the files that are not kept as they were: one warning for all, and a tag."""
        with self._lock:
            for one in left_out:
                self._problems[self._redact(one.name.strip("/"))] = one.reason
            if not self._ended:
                self._write_tags()
        if left_out:  # not under the lock: a handler's own lock may wait for a run's end
            first = left_out[0]
            _logger.warning(
                "not all of artifact %s is kept as it was: %s: %s%s; see the run's tag %s",
                _end_of(self._redact(given)),
                _end_of(self._redact(first.name.strip("/"))),
                first.reason,
                f" (and {len(left_out) - 1} more)" if len(left_out) > 1 else "",
                names.ARTIFACT_PROBLEMS,
            )

    def _refuse(self, what: str, reason: str, name: str | None = None) -> None:
        """Report something that is not logged, and why; the tag has it under `name`."""
        what = self._redact(what)
        with self._lock:
            self._problems[name or what] = reason
            if not self._ended:
                self._write_tags()
        _logger.warning("%s is not logged: %s", what, reason)

    def _count_pending(self, change: int) -> None:
        with self._lock:
            self._calls += change

    def _write_tags(self, *, all_counts: bool = False) -> None:
        """Write the tags that have changed; with `all_counts`, even if only a count has."""
        for tag, entries in {
            names.ARTIFACT_PROBLEMS: self._problems,
            names.ARTIFACTS_RENAMED: self._names.renamed,
        }.items():
            count = len(entries) if all_counts else min(len(entries), _MAX_NAMED + 1)
            if count > self._written.get(tag, 0):
                self._written[tag] = count
                ends = {_end_of(name): _end_of(text) for name, text in entries.items()}
                text = json_within(ends, names.MAX_DATA_TAG, at_most=_MAX_NAMED)
                self._writer.append(Tags({tag: tag_value(text)}))


def _end_of(text: str) -> str:
    return text if len(text) <= _SHOWN else f"...{text[-_SHOWN:]}"
