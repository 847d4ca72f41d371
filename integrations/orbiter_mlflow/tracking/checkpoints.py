"""The checkpoints of one run: from `report_checkpoint` to records of its journal.

A call finds the files of a checkpoint and links them beside the journal, so that they outlive their
removal by the training; nothing is copied or read. A checkpoint is kept whole or not at all.
"""

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from orbiter.train.hooks import quiet_logger
from orbiter_mlflow.delivery import kept_files
from orbiter_mlflow.delivery.checkpoints import listing
from orbiter_mlflow.delivery.checkpoints.listing import ListedFile
from orbiter_mlflow.delivery.checkpoints.manifest import is_better, is_inside
from orbiter_mlflow.delivery.records import Checkpoint, Metrics
from orbiter_mlflow.delivery.run_writer import RunWriter
from orbiter_mlflow.redaction.redactor import Redactor
from orbiter_mlflow.settings import MLflowSettings
from orbiter_mlflow.text import artifact_paths
from orbiter_mlflow.text.clock import now
from orbiter_mlflow.text.values import tag_value
from orbiter_mlflow.tracking.artifact_files import LeftOut, found_at, reason_of
from orbiter_mlflow.tracking.background import background

__all__ = ["RunCheckpoints"]

_logger = quiet_logger(__name__)

_IN_CALL = 0.03
"""Seconds of a call in which files are linked; a thread links the rest."""
_ROOM = 2
"""Checkpoints of this size that the disk must have room for, to keep links of earlier ones."""


class _NotKeptError(Exception):
    """A checkpoint cannot be kept; the message says why."""


@dataclass(frozen=True, slots=True)
class _Linked:
    """A checkpoint that was reported, with the links that keep its files."""

    step: int
    files: list[ListedFile]


class _Report:
    """One report: the files found and linked so far."""

    def __init__(
        self, path: str, step: int, at: int, journal: Path, redact: Callable[[str], str]
    ) -> None:
        self.step, self.time = step, at
        self._path = Path(os.path.realpath(path))
        self.files: list[ListedFile] = []
        self.done = False
        self._single = self._path.is_file()
        self._journal = journal
        self._redact = redact
        self._links = True
        self._work = self._all()

    @property
    def title(self) -> str:
        """What the checkpoint is called: the name of its folder."""
        usable = not self._single and self._is_usable(self._path.name)
        return self._path.name if usable else f"step-{self.step}"

    def go_on(self, seconds: float | None = None) -> None:
        """Find and link files, for so long at most.

        Raises:
            _NotKeptError: one of them cannot be kept.
        """
        began = time.monotonic()
        for _ in self._work:
            if seconds is not None and time.monotonic() - began >= seconds:
                return
        self.done = True

    def _all(self) -> Iterator[None]:
        inside = f"/{self._path.name}/"
        for found in found_at(str(self._path), "", self._journal.parent):
            if isinstance(found, LeftOut):
                raise _NotKeptError(f"{found.name.removeprefix(inside)}: {found.reason}")
            name = self._path.name if self._single else found.name.removeprefix(inside)
            if not self._is_usable(name):
                raise _NotKeptError(f"{name!a}: a name that cannot be kept, or holds a secret")
            self.files.append(self._linked(ListedFile.of(name, found.path, found.status)))
            yield
        if not self.files:
            raise _NotKeptError("there is no file in it")

    def _is_usable(self, name: str) -> bool:
        return is_inside(name) and tag_value(name) == name and self._redact(name) == name

    def _linked(self, file: ListedFile) -> ListedFile:
        if self._links:
            try:
                return listing.link(self._journal, file)
            except FileNotFoundError as error:
                raise _NotKeptError(f"{file.name}: {reason_of(error)}") from error
            except OSError:  # another file system, or one without links
                self._links = False
        if file.path is not None and self._redact(file.path) != file.path:
            raise _NotKeptError(f"{file.name}: its path holds a secret")
        return file


class RunCheckpoints:
    """The checkpoints of one run. Threads may share it.

    Args:
        writer: of the run.
        redactor: finds secrets in names.
        settings: say which checkpoints are kept.
        refuse: reports that something is not kept, and why.
        pending: called with 1 before work in the background, with -1 after it.
    """

    def __init__(
        self,
        writer: RunWriter,
        redactor: Redactor,
        settings: MLflowSettings,
        refuse: Callable[[str, str], None],
        pending: Callable[[int], None],
    ) -> None:
        self._writer = writer
        self._redact = redactor.text
        self._keep = settings.log_checkpoints
        self._metric = settings.checkpoint_metric
        self._higher = settings.checkpoint_direction == "higher"
        self._patience = settings.flush_timeout
        self._refuse = refuse
        self._pending = pending
        self._values: dict[int, float] = {}
        self._linked: list[_Linked] = []
        self._numbers: dict[int, int] = {}
        self._latest = 0
        self._lock = threading.RLock()  # a garbage collection may bring the end of the run

    def measured(self, metrics: Metrics) -> None:
        """Take note of the values by which the best checkpoint is told."""
        if self._keep is not None and self._metric in metrics.values:
            self._values[metrics.step] = metrics.values[self._metric]

    def reported(self, path: str, step: int) -> None:
        """Keep a checkpoint, if the settings say so."""
        if self._keep is None:
            return
        with self._lock:
            self._latest = max(now(), self._latest + 1)  # so that one of two is the later one
            report = _Report(path, step, self._latest, self._writer.path, self._redact)
        if not self._try(report, _IN_CALL):
            return
        self._pending(1)
        background().do(partial(self._finish, report), self._patience)

    def _try(self, report: _Report, seconds: float | None) -> bool:
        """Link files for so long; False, and told, if the checkpoint cannot be kept."""
        try:
            report.go_on(seconds)
            if report.done:
                self._append(report)
        except (_NotKeptError, OSError) as error:
            reason = self._redact(reason_of(error))
            self._refuse(f"checkpoint {report.title} of step {report.step}", reason)
            listing.unlink(self._writer.path, report.files)
            return False
        return True

    def _finish(self, report: _Report) -> None:
        try:
            if report.done or self._try(report, None):
                self._release(report)
        except Exception:
            _logger.exception("the checkpoint of step %d could not be kept", report.step)
        finally:
            self._pending(-1)

    def _append(self, report: _Report) -> None:
        """Append the record of a checkpoint whose files are linked.

        Raises:
            OSError: the list of its files cannot be written.
        """
        assert self._keep is not None  # noqa: S101  nothing is kept otherwise
        content = listing.encoded(report.files)
        kept = kept_files.keep_content(self._writer.path, content, "", None)
        with self._lock:
            number = self._numbers[report.step] = self._numbers.get(report.step, 0) + 1
            self._linked.append(_Linked(report.step, report.files))
        self._writer.append(
            Checkpoint(
                kept.file,
                artifact_paths.step_file(report.step, number),
                artifact_paths.CHECKPOINTS,
                kept.size,
                kept.sha256,
                report.title,
                report.step,
                number,
                report.time,
                self._keep,
                self._metric,
                self._higher,
            )
        )

    def _release(self, report: _Report) -> None:
        """Remove the links of checkpoints that the present one replaces, or for which the disk has
        no room: without an end, they would keep removed files on it."""
        size = sum(file.size for file in report.files)
        room = shutil.disk_usage(self._writer.path.parent).free
        crowded = False
        with self._lock:
            kept = self._still_wanted()
            if room < _ROOM * size:
                present = [one for one in kept if one is self._linked[-1]]
                crowded, kept = len(kept) > len(present), present
            released = [one for one in self._linked if one not in kept]
            self._linked = kept
        for one in released:
            listing.unlink(self._writer.path, one.files)
        if crowded:
            _logger.warning(
                "the disk of the journals has room for less than %d more checkpoints: those that "
                "are not uploaded yet are lost if the training removes them",
                _ROOM,
            )

    def _still_wanted(self) -> list[_Linked]:
        """Those of the checkpoints that delivery may want to keep."""
        *earlier, present = self._linked
        if self._keep == "all":
            return [*earlier, present]
        if self._keep == "last":
            return [present]
        best: _Linked | None = None
        for one in self._linked:
            so_far = None if best is None else self._values.get(best.step)
            if is_better(self._values.get(one.step), so_far, self._higher):
                best = one
        undecided = [] if present.step in self._values or present is best else [present]
        return undecided if best is None else [best, *undecided]
