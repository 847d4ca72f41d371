"""One run as this process writes it: its journal, and what is known of it without asking the store.

A run that this process creates is known completely; of another one, what was written here and, if
the store answered when the first write came, what it had before.
"""

import errno
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mlflow.entities import (
    DatasetInput,
    LifecycleStage,
    Metric,
    Param,
    Run,
    RunData,
    RunInfo,
    RunInputs,
    RunStatus,
    RunTag,
)
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME

from orbiter_mlflow.delivery.batches import MetricPoint
from orbiter_mlflow.delivery.journal import is_final
from orbiter_mlflow.delivery.records import (
    ENDED,
    SIDE_LANES,
    Artifact,
    Close,
    Params,
    Record,
    Tags,
    Update,
)
from orbiter_mlflow.delivery.run_writer import RunWriter
from orbiter_mlflow.plugin import entities

_OFTEN = 0.1
"""Seconds between two looks for something that may take minutes."""


class JournaledRun:
    """A run that this process writes.

    Args:
        run: what is known of it.
        complete: whether `run` is all of it, as of a run that was created here.
        attach: opens a journal that joins the run, or raises an OSError.
        send: sends a record without a journal; returns whether the store has it.
        writer: the journal, if it is open already.
        real_id: its id in the store; None where the store has not told it yet.

    Attributes:
        run_id: the id by which this process knows the run.
    """

    def __init__(
        self,
        run: Run,
        *,
        complete: bool,
        attach: "Callable[[JournaledRun], RunWriter]",
        send: "Callable[[JournaledRun, Record], bool]",
        writer: RunWriter | None = None,
        real_id: str | None = None,
    ) -> None:
        self.run_id = str(run.info.run_id)
        self.uid = None if writer is None else writer.uid
        self.complete = complete
        self._real_id = real_id
        self._info: RunInfo = run.info
        self._metrics = {one.key: _point(one) for one in run.data._metric_objs}
        self._params: dict[str, str] = dict(run.data.params)
        self._tags: dict[str, str] = dict(run.data.tags)
        self._inputs: list[DatasetInput] = list(run.inputs.dataset_inputs if run.inputs else ())
        self._attach = attach
        self._send = send
        self._writer = writer
        self._closed: list[RunWriter] = []
        self._running_here = writer is not None
        self._pid = os.getpid()
        # Reentrant: a garbage collection while it is held may log something, too.
        self._lock = threading.RLock()

    # -- writes --------------------------------------------------------------------------------

    def log_batch(
        self, points: Sequence[MetricPoint], params: Sequence[Param], tags: Sequence[RunTag]
    ) -> None:
        """Record checked content.

        Raises:
            MlflowException: the run is deleted, or has one of the params with another value.
        """
        with self._lock:
            self._require_active()
            if params:
                entities.require_unchanged(self.run_id, self._params, params)
                self._append(Params({one.key: one.value for one in params}))
                self._params.update((one.key, one.value) for one in params)
            for record in entities.metric_records(points):
                self._append(record)
            for point in points:
                latest = self._metrics.get(point.key)
                if latest is None or point.step > latest.step or _order(point) >= _order(latest):
                    self._metrics[point.key] = point
            if tags:
                self._append(Tags({one.key: one.value for one in tags}))
                self._tags.update((one.key, one.value) for one in tags)
                if any(one.key == MLFLOW_RUN_NAME for one in tags):
                    name = self._tags[MLFLOW_RUN_NAME]
                    self._info = self._info._copy_with_overrides(run_name=name)

    def log_param(self, param: Param) -> None:
        """Record a checked param.

        Raises:
            MlflowException: the run is deleted, or has the param with another value.
        """
        with self._lock:
            self._require_active()
            entities.require_same(self.run_id, self._params, param)
            self.log_batch((), [param], ())

    def forget_tag(self, key: str) -> None:
        """Note that a tag was deleted."""
        self._tags.pop(key, None)

    def log_datasets(self, datasets: list[DatasetInput] | None) -> None:
        """Record dataset inputs.

        Raises:
            MlflowException: the run is deleted, or MLflow does not take them.
        """
        with self._lock:
            self._require_active()
            for record in entities.dataset_records(datasets):
                self._append(record)
            self._inputs += datasets or ()

    def update(self, status: str | None, end_time: int | None, name: str | None) -> RunInfo:
        """Record a change of status, end time or name; a final status closes the journal.

        Raises:
            MlflowException: the run is deleted.
        """
        with self._lock:
            self._require_active()
            self._append(Update(status, end_time, name))  # type: ignore[arg-type]  # by MLflow
            self._info = self._info._copy_with_overrides(
                status=None if status is None else RunStatus.from_string(status),
                end_time=end_time,
                run_name=name,
            )
            if name:
                self._tags[MLFLOW_RUN_NAME] = name
            if status is not None:
                self._running_here = status not in ENDED
                if status in ENDED:
                    self._close()
            return self._info

    def artifact(self, journal: Path, record: Artifact) -> bool:
        """Record an artifact whose copy is kept beside a journal; False if records of this run go
        to another journal by now.

        Raises:
            OSError: there is no room for the record.
        """
        with self._lock:
            writer = self._open_writer()
            if writer.path != journal:
                return False
            if writer.offer(record):
                raise OSError(errno.ENOSPC, "no room for a record where the journals lie")
            return True

    def journal(self) -> Path:
        """The journal that records of this run go to now."""
        with self._lock:
            return self._open_writer().path

    def deleted(self, stage: str) -> None:
        """Note that the run was deleted or restored: an MLflow life-cycle stage."""
        self._info = self._info._copy_with_overrides(lifecycle_stage=stage)

    def end(self, status: str | None, now: int) -> None:
        """End what this process writes, because it ends; `status` only for a run that runs here."""
        with self._lock:
            if os.getpid() != self._pid or self._writer is None:
                return
            if status is not None and self._running_here:
                self._append(Update(status, now))  # type: ignore[arg-type]  # as above
                self._running_here = False
            self._close()

    # -- reads ---------------------------------------------------------------------------------

    @property
    def answers_alone(self) -> bool:
        """Whether this thread reads the run now as it is known here, without the store."""
        return False

    def flush(self, within: float, patience: float, *, artifacts: bool) -> bool:
        """Wait until what was written here is in the store; see `RunWriter.wait`."""
        lanes = [lane for lane in SIDE_LANES if artifacts or lane != "artifacts"]
        with self._lock:
            here = os.getpid() == self._pid
            waiting = [*self._closed, *([self._writer] if here and self._writer else ())]
        for writer in waiting:
            if not writer.wait(within, patience=patience, lanes=lanes):
                return False
        self.real_id()  # before the ack that says it is removed
        with self._lock:  # journals are removed once all of them is delivered
            self._closed = [one for one in self._closed if one.path.exists()]
        return True

    def real_id(self) -> str | None:
        """The id in the store; None while the run is not known to be there."""
        if self._real_id is None:
            for writer in (self._writer, *self._closed):
                if writer is not None and (found := writer.run_id()) is not None:
                    self._real_id = found
        return self._real_id

    def wait_real_id(self, within: float) -> str | None:
        """The id in the store, waited for up to `within` seconds."""
        if self.real_id() is None and (writer := self._writing()) is not None:
            writer.wait_run_id(within)
        return self.real_id()

    def delivered_id(self) -> str | None:
        """The id in the store, waited for until delivery tells it; None where the journal is gone
        before."""
        for writer in (self._writer, *self._closed):
            while writer is not None and writer.run_id() is None and writer.path.exists():
                time.sleep(_OFTEN)
        return self.real_id()

    @property
    def artifact_root(self) -> str:
        """The URI of its artifacts, as far as it is known here."""
        return str(self._info.artifact_uri)

    def known(self) -> Run:
        """The run as it was written here."""
        with self._lock:
            return Run(
                self._info,
                RunData(
                    [Metric(*point[:4]) for point in self._metrics.values()],
                    [Param(*one) for one in self._params.items()],
                    [RunTag(*one) for one in self._tags.items()],
                ),
                RunInputs(list(self._inputs)),
            )

    # -- the journal ---------------------------------------------------------------------------

    def forked(self) -> None:
        """Start anew in a forked child: it joins the run with a journal of its own."""
        self._lock = threading.RLock()
        self.real_id()
        self._writer, self._closed, self._running_here = None, [], False
        self._pid = os.getpid()

    def _append(self, record: Record) -> None:
        try:
            writer = self._open_writer()
        except OSError as error:
            if not self._send(self, record):
                raise MlflowException(
                    f"run {self.run_id} takes nothing just now: no journal can be written "
                    f"({error}), and the store does not answer"
                ) from error
            return
        if is_final(record):  # there is space reserved for it
            writer.append(record)
            return
        for part in writer.offer(record):
            if not self._send(self, part):
                writer.append(part)  # which counts it as lost, if there is still no space

    def _writing(self) -> RunWriter | None:
        """The journal that is open."""
        return self._writer

    def _open_writer(self) -> RunWriter:
        if self._writer is None:
            self._writer = self._attach(self)
        return self._writer

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.append(Close())
            self._writer.close()
            self._closed.append(self._writer)
            self._writer = None

    def _require_active(self) -> None:
        if self._info.lifecycle_stage == LifecycleStage.DELETED:
            raise MlflowException(
                f"The run {self.run_id} must be in the 'active' state. Current state is "
                f"{self._info.lifecycle_stage}.",
                INVALID_PARAMETER_VALUE,
            )


def _order(point: MetricPoint) -> tuple[int, int, float]:
    """By which MLflow takes the largest for the latest value of a metric."""
    return point.step, point.time, point.value


def _point(metric: Metric) -> MetricPoint:
    return MetricPoint(metric.key, metric.value, metric.timestamp, metric.step)
