"""The rollouts of one run: from `report_rollouts` to records of its journal.

A step's table lies beside the journal, without secrets, when the call returns. What is left out is
counted, and told in a warning and a tag.
"""

import json
import threading
from collections.abc import Sequence

from orbiter.train.hooks import Rollout, quiet_logger
from orbiter_mlflow import names
from orbiter_mlflow.delivery import kept_files
from orbiter_mlflow.delivery.records import Rollouts, Tags
from orbiter_mlflow.delivery.run_writer import RunWriter
from orbiter_mlflow.redaction.many_texts import ManyTexts
from orbiter_mlflow.redaction.redactor import Redactor
from orbiter_mlflow.settings import MLflowSettings
from orbiter_mlflow.text import artifact_paths
from orbiter_mlflow.text.clock import now
from orbiter_mlflow.tracking.artifact_files import reason_of
from orbiter_mlflow.tracking.rollout_table import MAX_TEXT, table_of
from orbiter_mlflow.tracking.shown_tables import ShownTables
from orbiter_mlflow.tracking.trace_budget import TraceBudget

__all__ = ["RunRollouts"]

_logger = quiet_logger(__name__)


class RunRollouts:
    """The rollouts of one run. Threads may share it.

    Args:
        writer: of the run.
        redactor: takes the secrets out.
        settings: say how many rollouts of a report are kept, and how many become traces.
        shown: gets the paths of the tables.
    """

    def __init__(
        self, writer: RunWriter, redactor: Redactor, settings: MLflowSettings, shown: ShownTables
    ) -> None:
        self._writer = writer
        self._shown = shown
        self._texts = ManyTexts(redactor)
        self._at_most = settings.rollouts_per_step
        self._traces = settings.traces_per_step
        self._per_minute = settings.traces_per_minute
        self._budget = TraceBudget(self._per_minute, self._traces)
        self._reports: dict[tuple[str, int], int] = {}
        self._left_out = dict.fromkeys(("rollouts", "texts cut", "traces"), 0)
        self._lock = threading.RLock()  # a garbage collection may bring the end of the run

    def reported(self, rollouts: Sequence[Rollout], step: int, phase: str) -> None:
        """Keep the rollouts of a report."""
        if not self._at_most:
            return
        table = table_of(rollouts, self._at_most, self._texts)
        left_out = len(rollouts) - table.rows
        try:
            kept = kept_files.keep_content(self._writer.path, table.content, "", None)
        except OSError as error:
            _logger.warning("the rollouts of a step are not kept: %s", reason_of(error))
            self._count(rollouts=len(rollouts))
            return
        with self._lock:
            number = self._reports[phase, step] = self._reports.get((phase, step), 0) + 1
            wanted = min(self._traces, table.rows)
            traces = self._budget.take(wanted)
        folder, file = artifact_paths.rollouts_folder(phase), artifact_paths.step_file(step, number)
        where = (kept.file, file, folder, kept.size, kept.sha256)
        rows = spread(table.totals, traces)
        self._writer.append(Rollouts(*where, phase, step, number, now(), rows))
        self._shown.add_rollouts(f"{folder}/{file}")
        self._count(rollouts=left_out, texts=table.cut, traces=wanted - traces)
        if left_out > table.unreadable:
            _logger.warning(
                "not all rollouts of a step are kept (%d a step at most): the setting "
                "rollouts_per_step; the run's tag %s counts the others",
                self._at_most,
                names.ROLLOUTS_LEFT_OUT,
            )
        elif table.cut:
            _logger.warning(
                "texts of rollouts are cut to %d characters; the run's tag %s counts them",
                MAX_TEXT,
                names.ROLLOUTS_LEFT_OUT,
            )

    def finish(self) -> None:
        """Write the tags as they are at the end."""
        self._shown.write()
        if any(self._left_out.values()):
            self._write()

    def _count(self, rollouts: int = 0, texts: int = 0, traces: int = 0) -> None:
        new = {"rollouts": rollouts, "texts cut": texts, "traces": traces}
        with self._lock:
            first = [name for name, count in new.items() if count and not self._left_out[name]]
            for name, count in new.items():
                self._left_out[name] += count
        if first:
            self._write()
        if "traces" in first:
            _logger.info(
                "the steps are short: fewer of their rollouts become traces (%g a minute: the "
                "setting traces_per_minute); the tables have all",
                self._per_minute,
            )

    def _write(self) -> None:
        self._writer.append(Tags({names.ROLLOUTS_LEFT_OUT: json.dumps(self._left_out)}))


def spread(totals: Sequence[float | None], count: int) -> list[int]:
    """The rows that become traces: the worst, the best, and others at even distances of rank.

    Rows without a reward (None) have no rank; they become traces where there are too few others.
    """
    rewarded = [(total, row) for row, total in enumerate(totals) if total is not None]
    ranked = [row for _, row in sorted(rewarded)]
    if count >= len(ranked):
        others = [row for row, total in enumerate(totals) if total is None]
        return sorted((*ranked, *others[: count - len(ranked)]))
    if count < 2:
        return ranked[:count]
    return sorted(ranked[at * (len(ranked) - 1) // (count - 1)] for at in range(count))
