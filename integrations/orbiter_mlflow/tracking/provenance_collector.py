"""Collect the provenance of a run on a thread of its own, and append it to the run's journal.

A section that fails disturbs neither the run nor the other sections: a tag says which, and why.
"""

import asyncio
import json
import threading
import time
from collections.abc import Collection

from orbiter_mlflow import names
from orbiter_mlflow.delivery import kept_files
from orbiter_mlflow.delivery.records import Tags
from orbiter_mlflow.delivery.run_writer import RunWriter
from orbiter_mlflow.provenance.sections import Finding, Sections
from orbiter_mlflow.redaction.redactor import Redactor
from orbiter_mlflow.text.packed_tags import PackedTags
from orbiter_mlflow.text.values import tag_value

__all__ = ["Collector"]

_POLL = 0.01
"""Seconds between looks at whether the thread is done."""
_MAX_REASON = 500
"""Characters of a reason: those of all sections go into one tag."""


class Collector:
    """The provenance of one run; its collection starts at once.

    Args:
        writer: the run's writer.
        redactor: takes the secrets out of everything.
        skip: sections that are left out, as in `MLflowSettings.skip_provenance`.
        trainer: the trainer's class.
    """

    def __init__(
        self,
        writer: RunWriter,
        redactor: Redactor,
        skip: Collection[str],
        trainer: type = object,
    ) -> None:
        self._writer = writer
        self._redactor = redactor
        parts = Sections(redactor, trainer)
        self._pending = {
            name: part
            for name, part in {
                "command": parts.command,
                "machine": parts.machine,
                "git": parts.git,
                "packages": parts.packages,
                "diff": parts.diff,
            }.items()
            if name not in skip
        }
        self._failed: dict[str, str] = {}
        self._packed = PackedTags()
        self._finished = False
        self._kept_waiting = False
        # Reentrant: a garbage collection while it is held may bring the end of the run.
        self._lock = threading.RLock()
        self._thread = threading.Thread(target=self._run, name="orbiter-provenance", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # no more threads, or the interpreter is ending
            self._report_failed(dict.fromkeys(self._pending, str(error)))
            self._finished = True

    async def wait(self, patience: float) -> None:
        """Wait up to `patience` seconds for all sections while the event loop goes on; if that is
        not enough, later calls do not wait."""
        deadline = 0.0 if self._kept_waiting else time.monotonic() + patience
        while self._thread.is_alive() and time.monotonic() < deadline:  # noqa: ASYNC110  no task ends it
            await asyncio.sleep(_POLL)
        self._kept_waiting = self._thread.is_alive()

    def finish(self, patience: float) -> None:
        """Wait up to `patience` seconds; report sections that are not done by then as failed."""
        # The garbage collector may have brought us here on any thread.
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(patience)
        with self._lock:
            if self._pending and not self._finished:
                reason = "the run ended before it was found out"
                self._report_failed(dict.fromkeys(self._pending, reason))
            self._finished = True

    def _run(self) -> None:
        for name, part in tuple(self._pending.items()):
            try:
                for finding in part():
                    self._append(name, finding)
            except Exception as error:
                self._append(name, Finding(problem=f"{type(error).__name__}: {error}"))
            with self._lock:
                del self._pending[name]

    def _append(self, name: str, finding: Finding) -> None:
        with self._lock:
            if self._finished:  # nobody would remove a file that lies beside no journal
                return
            for file, content in finding.files.items():
                path = self._writer.path
                self._writer.append(kept_files.keep_content(path, content, file, names.PROVENANCE))
            if finding.tags:
                tags = {key: tag_value(text) for key, text in finding.tags.items()}
                self._writer.append(Tags(self._packed.add(tags)))
            if finding.problem:
                self._report_failed({name: finding.problem})

    def _report_failed(self, reasons: dict[str, str]) -> None:
        for name, reason in reasons.items():
            shown = " ".join(self._redactor.text(reason).split())
            self._failed[name] = tag_value(shown)[:_MAX_REASON]
        failed = {names.PROVENANCE_FAILED: json.dumps(self._failed)}
        self._writer.append(Tags(self._packed.add(failed)))
