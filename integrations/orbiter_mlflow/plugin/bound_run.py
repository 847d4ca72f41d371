"""A trainer's run as MLflow's own functions write it, inside `trainer.active_run()` or by its id.

What they log becomes records of the trainer's own journal, in one order with the trainer's. The
trainer alone decides about its status and about the params that it logs itself.
"""

import ast
import json
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlflow.entities import (
    LifecycleStage,
    Param,
    Run,
    RunData,
    RunInfo,
    RunTag,
)
from mlflow.exceptions import MlflowException

from orbiter_mlflow.delivery.batches import MetricPoint
from orbiter_mlflow.delivery.records import Artifact, Record, Update
from orbiter_mlflow.delivery.run_writer import RunWriter
from orbiter_mlflow.plugin import artifact_repository
from orbiter_mlflow.plugin.asking import NoAnswerError
from orbiter_mlflow.plugin.journaled_run import JournaledRun
from orbiter_mlflow.plugin.runs import Runs
from orbiter_mlflow.text.clock import now
from orbiter_mlflow.text.escaping import message
from orbiter_mlflow.tracking.run import TrackedRun

_logger = logging.getLogger(__name__)


class BoundRun(JournaledRun):
    """The run of a trainer. Once the trainer is gone, and in a forked child, it is a run as any
    other: this process then writes it by a journal that joins the run.

    Args:
        tracked: the run; its journal is open.
        runs: the runs of this process for the run's tracking URI.
    """

    def __init__(self, tracked: TrackedRun, runs: Runs) -> None:
        assert tracked.writer is not None  # noqa: S101  as its journal is open
        self._tracked: TrackedRun | None = tracked
        self._runs = runs
        self._stored: RunInfo | None = None
        self._told: set[str] = set()
        self._alone = threading.local()
        uid, settings = tracked.writer.uid, tracked.settings
        info = _Info(
            run_id=uid,
            experiment_id=settings.experiment_id or "",
            user_id="",
            status=tracked.status.status,
            start_time=now(),
            end_time=None,
            lifecycle_stage=LifecycleStage.ACTIVE,
            run_name=settings.run_name,
        )
        info.run = self
        super().__init__(
            Run(info, RunData()),
            complete=settings.run_id is None,
            attach=runs._attach,
            send=runs._send,
        )
        self.uid = uid
        tracked.at_close = self.release

    def release(self) -> None:
        """Note that the trainer is gone."""
        with self._lock:
            self.real_id()
            self._tracked = None

    def forked(self) -> None:
        """Start anew in a forked child, which does not write the trainer's journal."""
        self._tracked = None
        super().forked()

    # -- writes --------------------------------------------------------------------------------

    def log_batch(
        self, points: Sequence[MetricPoint], params: Sequence[Param], tags: Sequence[RunTag]
    ) -> None:
        """Record checked content, without secrets; a param that the trainer has logged is left out,
        with a warning if it differs.

        Raises:
            MlflowException: the run is deleted, or has another param with another value.
        """
        tracked = self._tracked
        if tracked is None:
            super().log_batch(points, params, tags)
            return
        with self._lock:
            super().log_batch(points, self._not_logged(tracked, params), ())
            for tag in tags:
                tracked.set_tag(tag.key, tag.value)
                self._tags[tag.key] = tracked.redactor.value(tag.key, tag.value)

    def log_param(self, param: Param) -> None:
        """Record a checked param, as `log_batch` does.

        Raises:
            MlflowException: the run is deleted, or has the param, not of the trainer, with another
                value.
        """
        tracked = self._tracked
        for one in [param] if tracked is None else self._not_logged(tracked, [param]):
            super().log_param(one)

    def _not_logged(self, tracked: TrackedRun, params: Sequence[Param]) -> list[Param]:
        """Params, redacted, that the trainer has not logged itself."""
        rest: list[Param] = []
        differing: list[str] = []
        for param in params:
            value = tracked.redactor.value(param.key, param.value)
            logged = tracked.params.get(param.key)
            if logged is None:
                rest.append(Param(param.key, value))
            elif not is_same_value(logged, value) and param.key not in self._told:
                self._told.add(param.key)
                differing.append(f"{message(param.key)} is {message(logged)}, not {message(value)}")
        if differing:
            _logger.warning(
                "params of run %s stay as the trainer has logged them: %s",
                self.real_id() or self.run_id,
                "; ".join(differing),
            )
        return rest

    def update(self, status: str | None, end_time: int | None, name: str | None) -> RunInfo:
        """Record a new name; the status is the trainer's.

        Raises:
            MlflowException: the run is deleted.
        """
        tracked = self._tracked
        if tracked is None:
            return super().update(status, end_time, name)
        with self._lock:
            self._require_active()
            if name:
                self._append(Update(name=tracked.redactor.text(name)))
                self._info._set_run_name(name)
            return self._info

    def journal(self) -> Path:
        """The journal that records of this run go to now."""
        with self._lock:
            writer = self._trainers_writer()
            return super().journal() if writer is None else writer.path

    def artifact(self, journal: Path, record: Artifact) -> bool:
        """Record an artifact, its name without secrets; see `JournaledRun.artifact`."""
        with self._lock:
            tracked, writer = self._tracked, self._trainers_writer()
            if tracked is None or writer is None:
                return super().artifact(journal, record)
            if writer.path != journal:
                return False
            text = tracked.redactor.text
            folder = None if record.folder is None else text(record.folder)
            self._append(replace(record, name=text(record.name), folder=folder))
            return True

    def end(self, status: str | None, now: int) -> None:
        """End what this process writes: a trainer ends its run itself."""
        if self._tracked is None:
            super().end(status, now)

    def _append(self, record: Record) -> None:
        if self._tracked is None:
            super()._append(record)
        else:
            self._tracked.append(record)

    def _open_writer(self) -> RunWriter:
        return self._trainers_writer() or super()._open_writer()

    # -- reads ---------------------------------------------------------------------------------

    @contextmanager
    def unasked(self) -> Iterator[None]:
        """Inside the block, this thread reads the run as it is known here: nobody is asked, so
        nobody waits."""
        self._alone.now = True
        try:
            yield
        finally:
            self._alone.now = False

    @property
    def answers_alone(self) -> bool:
        return getattr(self._alone, "now", False)

    @property
    def is_known(self) -> bool:
        """Whether the store has said what it knows of the run."""
        return self._stored is not None

    def flush(self, within: float, patience: float, *, artifacts: bool) -> bool:
        """Wait until what was written here is in the store; see `RunWriter.wait`."""
        writer = self._trainers_writer()
        if writer is not None:
            lanes = ["datasets", *(["artifacts"] if artifacts else [])]
            if not writer.wait(within, patience=patience, lanes=lanes):
                return False
        return super().flush(within, patience, artifacts=artifacts)

    def real_id(self) -> str | None:
        """The id in the store; None while the run is not known to be there."""
        if self._real_id is None and (writer := self._trainers_writer()) is not None:
            self._real_id = writer.run_id()
        return super().real_id()

    @property
    def artifact_root(self) -> str:
        """Nobody is asked for it: artifacts go through the journal, as the trainer's do."""
        return f"runs:/{self.run_id}"

    def known(self) -> Run:
        """The run as far as it is known here: the trainer's params, and what MLflow logged."""
        tracked, found = self._tracked, super().known()
        run_id = self.real_id() or self.run_id
        if run_id != self._info._run_id:  # which the caller will use from now on
            self._info._run_id = run_id
            artifact_repository.offer(self._runs, self)
        if tracked is None:
            return found
        self._info._status, self._info._end_time = tracked.status.status, tracked.status.end_time
        params = {**tracked.params, **found.data.params}
        metrics, tags = found.data._metric_objs, found.data.tags
        data = RunData(
            metrics, [Param(*one) for one in params.items()], [RunTag(*one) for one in tags.items()]
        )
        return Run(self._info, data, found.inputs)

    def stored_info(self) -> RunInfo | None:
        """What the store knows of the run; asked on first use, for up to `answer_timeout`."""
        if self._stored is None and not self.answers_alone:
            real_id = self.wait_real_id(self._runs.settings.answer_timeout)
            if real_id is not None:
                try:
                    run = self._runs.ask(lambda: self._runs.inner.get_run(real_id))
                except (NoAnswerError, MlflowException):
                    return None
                self._stored = run.info
        return self._stored

    def _writing(self) -> RunWriter | None:
        return self._trainers_writer() or super()._writing()

    def _trainers_writer(self) -> RunWriter | None:
        return None if self._tracked is None else self._tracked.writer


class _Info(RunInfo):  # type: ignore[misc]  # MLflow has no types here
    """What is known of a trainer's run; the store is asked for the rest when it is needed."""

    run: BoundRun | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RunInfo) and self.run_id == other.run_id

    __hash__ = None  # type: ignore[assignment]  # as of MLflow's own

    @property
    def experiment_id(self) -> str:
        """The experiment's id; empty while the store has not told it."""
        return self._experiment_id or str(self._asked("experiment_id") or "")

    @property
    def run_name(self) -> str | None:
        """The run's name."""
        name: str | None = self._run_name or self._asked("run_name")
        return name

    @property
    def artifact_uri(self) -> str | None:
        """The root of the run's artifacts."""
        return self._asked("artifact_uri") or f"runs:/{self.run_id}"

    def _asked(self, name: str) -> Any:
        stored = None if self.run is None else self.run.stored_info()
        return None if stored is None else getattr(stored, name)


def is_same_value(one: str, other: str) -> bool:
    """Whether two texts of params mean the same: equal numbers, or one value as JSON and as Python
    shows it."""
    if one == other:
        return True
    first, second = _value(one), _value(other)
    return first == second and (type(first) is bool) == (type(second) is bool)


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
