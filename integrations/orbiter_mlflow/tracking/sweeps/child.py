"""One child of a sweep: note its status, params and metric where the parent counts them.

The notes follow the records of the child's journal, so they hold no secret. A child whose sweep's
folder is elsewhere, as on another machine, notes nothing: the parent says that it was not seen.
"""

import hashlib
import logging
import threading
import time
from contextlib import suppress
from dataclasses import replace

from orbiter_mlflow import names
from orbiter_mlflow.delivery.process_identity import this_process
from orbiter_mlflow.delivery.records import Close, Metrics, Params, Record, Status, Tags
from orbiter_mlflow.delivery.run_writer import RunWriter
from orbiter_mlflow.settings import MLflowSettings
from orbiter_mlflow.text.clock import now
from orbiter_mlflow.tracking.sweeps.folder import ChildNote, write_child

__all__ = ["SweepChild"]

_logger = logging.getLogger(__name__)

_LOOK = 1.0
"""Seconds between looks for the run's id while it is not known."""
_LONG = 250
"""Characters of a param that are noted."""
_MAX_PARAMS = 500


class SweepChild:
    """What a run notes for the sweep that it belongs to; nothing if it belongs to none.

    Args:
        settings: of the run.
    """

    def __init__(self, settings: MLflowSettings) -> None:
        self._settings = settings
        self._writer: RunWriter | None = None
        self._note: ChildNote | None = None
        self._metric = (settings.sweep.metric if settings.sweep else None) or ""
        self._value: float | None = None
        self._latest: tuple[int, int] | None = None
        self._next_look = 0.0
        self._lock = threading.RLock()

    def opened(self, writer: RunWriter) -> dict[str, str]:
        """Note that the run begins; returns the tags that it gets for the sweep."""
        sweep = self._settings.sweep
        if sweep is None:
            return {}
        self._writer = writer
        if sweep.folder.is_dir():
            self._note = ChildNote(
                writer.uid,
                sweep.number,
                self._settings.run_name,
                str(writer.path.absolute()),
                this_process(),
                now(),
                self._settings.run_id,
                "RUNNING",
                None,
                {},
                None,
            )
            self._write()
        return {names.SWEEP: sweep.name}

    def appended(self, record: Record) -> None:
        """Note what a record of the run's journal says. Never raises."""
        if self._note is None:
            return
        with self._lock:
            changed = self._take(self._note, record)
            ended = self._note.status != "RUNNING"
            if self._look(at_once=isinstance(record, Close)) or (
                changed and (ended or not isinstance(record, Metrics))
            ):
                self._write()

    def _take(self, note: ChildNote, record: Record) -> bool:
        """Take over what a record says; False if it says nothing that is noted."""
        if isinstance(record, Status) and record.end_time is not None:
            self._note = replace(note, status=record.status)
        elif isinstance(record, Params):
            taken = note.params | {key: _shown(text) for key, text in record.values.items()}
            self._note = replace(note, params=dict([*taken.items()][:_MAX_PARAMS]))
        elif isinstance(record, Tags) and names.ENDED_BY in record.values:
            self._note = replace(note, ended_by=record.values[names.ENDED_BY])
        elif isinstance(record, Metrics) and self._is_latest(record):
            self._value = record.values[self._metric]
        else:
            return False
        return True

    def _is_latest(self, record: Metrics) -> bool:
        """Whether a record has the latest value of the metric, as MLflow defines it."""
        if self._metric not in record.values:
            return False
        at = record.step, record.time
        if self._latest is not None and at < self._latest:
            return False
        self._latest = at
        return True

    def _look(self, *, at_once: bool) -> bool:
        """Look for the run's id; whether it has become known."""
        if self._note is None or self._note.run_id is not None or self._writer is None:
            return False
        if time.monotonic() < self._next_look and not at_once:
            return False
        self._next_look = time.monotonic() + _LOOK
        run_id = self._writer.run_id()
        self._note = replace(self._note, run_id=run_id)
        return run_id is not None

    def _write(self) -> None:
        sweep = self._settings.sweep
        if sweep is None or self._note is None:
            return
        try:
            write_child(sweep.folder, replace(self._note, value=self._value))
        except OSError as error:
            # Without a note it is not seen; with an old one the parent would count it wrongly.
            with suppress(OSError):
                (sweep.folder / f"{self._note.uid}.json").unlink()
            self._note = None
            _logger.warning(
                "a child of the sweep %s is not counted: nothing can be written in %s (%s)",
                sweep.name,
                sweep.folder,
                error.strerror,
            )


def _shown(text: str) -> str:
    if len(text) <= _LONG:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
    return f"{text[:_LONG]}... (SHA-256 {digest[:8]})"
