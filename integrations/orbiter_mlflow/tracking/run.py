"""One trainer's run: turn the events of its lifecycle into records of a journal.

Everything is redacted before it becomes a record. This module decides what an MLflow run looks
like; the run writer gets the records there.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from orbiter.train import Rollout, TrainConfig, TrainerState, TrainMetrics
from orbiter.train.hooks import quiet_logger
from orbiter_mlflow import names
from orbiter_mlflow.delivery.description_guard import generated
from orbiter_mlflow.delivery.hosts.exits import RUNS, at_worker_exit
from orbiter_mlflow.delivery.records import Close, Metrics, Params, Record, Status, Tags
from orbiter_mlflow.delivery.run_writer import RunWriter
from orbiter_mlflow.provenance.program import source_tags
from orbiter_mlflow.redaction.redactor import Redactor
from orbiter_mlflow.settings import MLflowSettings, tracks_here
from orbiter_mlflow.text.packed_tags import PackedTags
from orbiter_mlflow.text.values import message_of, tag_value, type_name
from orbiter_mlflow.tracking.artifacts import RunArtifacts
from orbiter_mlflow.tracking.config_records import log_config, warn_of_unencodable
from orbiter_mlflow.tracking.description import Description
from orbiter_mlflow.tracking.evaluation_keys import Evaluation, RunData
from orbiter_mlflow.tracking.lifecycle_status import LifecycleStatus
from orbiter_mlflow.tracking.metric_records import Measurements, is_metrics
from orbiter_mlflow.tracking.progress import TrainingBar
from orbiter_mlflow.tracking.provenance_collector import Collector
from orbiter_mlflow.tracking.run_journal import open_run_journal
from orbiter_mlflow.tracking.steps import Steps
from orbiter_mlflow.tracking.sweeps.child import SweepChild
from orbiter_mlflow.tracking.system_metrics.sampler import Sampler

_logger = quiet_logger(__name__)

_FORKED = "%s: this fork of process %d has no run until train or evaluate begins in it"
_PATIENCE = 2.0
"""Seconds that the end of a training waits for its provenance and for copies of artifacts."""


class TrackedRun:
    """The run of one trainer.

    Its journal is opened at the first transition or evaluation; earlier records wait in memory.
    Nothing here raises because a disk or a server is missing.

    Args:
        settings: how to track.
        trainer: the trainer's class.

    Attributes:
        writer: writes the journal; None before it is opened.
        broken: why no journal could be opened.
        steps: the step that events belong to.
        redactor: removes secrets.
        params: the params logged so far.
        at_close: called when the run is closed.
    """

    def __init__(self, settings: MLflowSettings, trainer: type) -> None:
        self.settings = settings
        self.writer: RunWriter | None = None
        self.broken: str | None = None
        self.steps = Steps()
        self.params: dict[str, str] = {}
        self.at_close: Callable[[], None] = lambda: None
        self._class = trainer
        self._trainer = f"{trainer.__module__}:{trainer.__qualname__}"
        self._pid: int | None = None  # of the process that has opened the journal
        self._closed = False
        self._tracks = settings.enabled and tracks_here(settings)
        if settings.enabled and not self._tracks:
            _logger.info("this process is not rank 0: %s is not tracked here", self._trainer)
        self.redactor = Redactor(settings.redact)
        self._packed = PackedTags()
        self._measurements = Measurements(self.redactor)
        self._data = RunData(self.redactor, settings.eval_names)
        self._description = Description(
            self._trainer, self.redactor.text(settings.description or "")
        )
        self._early: list[Record] = []
        self._checks: list[str] = []
        self._config: TrainConfig | None = None
        self._params_written = False
        self._sampler = Sampler(settings.system_metrics)
        self._in_sweep = SweepChild(settings)
        self._lifecycle = LifecycleStatus(self._sampler.stop)
        self._provenance: Collector | None = None
        self._artifacts: RunArtifacts | None = None
        title = settings.run_name or trainer.__qualname__
        self._bar = TrainingBar(self.redactor.text(title), settings.progress)
        self._description_is_ours = True

    @property
    def active(self) -> bool:
        """Whether this process writes the run: tracking is on, the rank is 0, and it is not a
        forked child of the process that opened the journal."""
        return self._tracks and self._pid in (None, os.getpid())

    @property
    def belongs_to_parent(self) -> bool:
        """Whether the run belongs to the process that forked this one."""
        return self._tracks and not self.active

    def forked_from(self, parent: "TrackedRun") -> None:
        """Start as the run of a forked copy of a trainer; `parent` is the run of the original."""
        assert parent.writer is not None  # noqa: S101  it is open
        self._data, self._checks = parent._data, list(parent._checks)
        self._early += self._data.known()
        self._tags({names.CHECKS: ",".join(self._checks), names.FORKED_FROM: parent.writer.uid})
        _logger.warning(
            "%s has its run in process %d, and goes on in a fork of that, process %d: it has a run "
            "of its own there (tag %s)",
            self._trainer,
            parent._pid,
            os.getpid(),
            names.FORKED_FROM,
        )

    # -- events --------------------------------------------------------------------------------

    def check_passed(self, check: str, arguments: Mapping[str, Any]) -> None:
        """Record that a `check_*` returned; data of `check_dataset` become dataset inputs."""
        if not self.active:
            return
        if check not in self._checks:
            self._checks.append(check)
        if check == "check_dataset":
            data = arguments.get("train_data"), arguments.get("test_data")
            self._append_all(self._data.checked(*data))
        self._tags({names.CHECKS: ",".join(self._checks)})

    def moved(self, state: TrainerState, config: TrainConfig) -> None:
        """Record that the trainer is now in `state`."""
        if not self.active:
            return
        self._config = config
        self._open_journal()
        self._tags(self._lifecycle.moved(state))
        self._write_params()  # at VALIDATED; a copy of a validated trainer starts later
        self._bar.show(state is TrainerState.TRAINING)

    def reported(self, metrics: Mapping[str, Any] | TrainMetrics, step: int) -> None:
        """Record progress from inside `train`."""
        if self.active:
            at = self.steps.reported(step)
            self._append_all(self._measurements.records(names.TRAIN, metrics, at))
            self._bar.moved(metrics, at)

    def evaluation_reported(
        self,
        metrics: Mapping[str, Any] | TrainMetrics,
        step: int,
        data: Any,
        config: TrainConfig,
    ) -> None:
        """Record an evaluation on `data`, or on the data of the checks if that is None."""
        if not self.active:
            return
        self._config = config
        self._open_journal()
        self._lifecycle.evaluated = True
        prefix, news = self._data.prefix(data)
        self._append_all(news)
        self._append_all(self._measurements.records(prefix, metrics, self.steps.reported(step)))

    def rollouts_reported(self, rollouts: Sequence[Rollout], step: int, phase: str) -> None:
        """Record what the agent said at a step."""
        if artifacts := self._artifacts_for("a report of rollouts"):
            artifacts.rollouts.reported(rollouts, self.steps.bounded(step), phase)

    def checkpoint_reported(self, path: str, step: int) -> None:
        """Record that a checkpoint is written."""
        wanted = self.settings.log_checkpoints is not None
        if wanted and (artifacts := self._artifacts_for(f"checkpoint {path}")):
            artifacts.checkpoints.reported(path, self.steps.bounded(step))

    def trained(self, metrics: TrainMetrics, state: TrainerState) -> None:
        """Record the result of the outermost `train`."""
        if not self.active:
            return
        if is_metrics(names.TRAIN, metrics, self._trainer):
            steps = metrics.steps if isinstance(metrics, TrainMetrics) else 0
            at = self.steps.ended(steps)
            self._append_result(self._measurements.records_of_training(metrics, at))
        completed = state is TrainerState.COMPLETED
        self.append(self._lifecycle.end("FINISHED" if completed else "FAILED"))

    def evaluation_started(self, test_data: Any, config: TrainConfig) -> None:
        """Record that `evaluate` begins, on `test_data`, or on the data of the checks if None."""
        if not self.active:
            return
        self._config = config
        self._open_journal()
        self._append_all(self._data.started(test_data, self.steps.present))

    def evaluated(self, metrics: TrainMetrics, test_data: Any) -> None:
        """Record the result of the outermost `evaluate`."""
        if not self.active:
            return
        self._lifecycle.evaluated = True
        evaluation = self._data.ended()
        if evaluation is None:  # its start was not reported: a hook that does not call `super()`
            prefix, news = self._data.prefix(test_data)
            self._append_all(news)
            evaluation = Evaluation(prefix, self.steps.present)
        if is_metrics("evaluate", metrics, self._trainer):
            prefix, step = evaluation
            self._append_result(self._measurements.records(prefix, metrics, step))

    def failed(self, phase: str, error: BaseException, *, on_purpose: bool) -> None:
        """Record the exception that `train` or `evaluate` ended with.

        Args:
            phase: `train` or `evaluate`.
            error: the exception.
            on_purpose: it is control flow and no failure.
        """
        if not self.active:
            return
        kind, message = type(error).__qualname__, self.redactor.text(message_of(error))
        self._tags({names.ERROR_TYPE: kind, names.ERROR_MESSAGE: message, names.ERROR_PHASE: phase})
        if on_purpose:
            self._tags({names.ENDED_BY: type_name(error)})
        self._description.failed(phase, kind, message, on_purpose=on_purpose)
        self._describe()
        status = self._lifecycle.failed(phase, error, on_purpose=on_purpose)
        if status is not None:
            self.append(status)
        if phase != names.TRAIN:
            self._data.ended()

    def close(self) -> None:
        """End the run as it stands: the trainer is gone, or the process ends."""
        if not self.active or self.writer is None or self._closed:
            return
        self._closed = True
        self.at_close()
        self._write_params()
        if self._lifecycle.state is TrainerState.TRAINING:
            self.moved(TrainerState.FAILED, self._config or TrainConfig())
            error = SystemExit("the process ended while train was running")
            self.failed(names.TRAIN, error, on_purpose=False)
        elif not self._lifecycle.has_ended:
            self.append(self._lifecycle.end(self._lifecycle.status_without_training))
        if self._provenance is not None:
            self._provenance.finish(_PATIENCE)
        if self._artifacts is not None:
            self._artifacts.finish(partial(self._close_journal, self.writer))

    def _close_journal(self, writer: RunWriter) -> None:
        self.append(Close())
        writer.close()

    def delivered(self) -> bool:
        """Whether everything that was recorded is in the store."""
        copying = self._artifacts is not None and self._artifacts.pending
        here = self.active and self.writer is not None and not copying
        return here and self.writer is not None and self.writer.delivered()

    async def flush(self) -> str | None:
        """Wait up to `flush_timeout` for delivery; returns what went wrong, if anything."""
        if not self.active or self.writer is None:
            return self.broken
        if self._provenance is not None and self.settings.delivery != "offline":
            await self._provenance.wait(min(_PATIENCE, self.settings.flush_timeout))
        if self._artifacts is not None and self.settings.delivery != "offline":
            await self._artifacts.wait(min(_PATIENCE, self.settings.flush_timeout))
        return await self.writer.flush(self.settings.flush_timeout)

    # -- the user's own ------------------------------------------------------------------------

    def set_tag(self, key: str, value: str) -> None:
        """Set a tag of the user's; names that begin with `orbiter.` are refused."""
        if key.startswith(f"{names.ORBITER}."):
            _logger.warning("tag %r was not set: names that begin with `orbiter.` are ours", key)
        elif self.belongs_to_parent:
            _logger.warning(_FORKED, f"tag {key!r} was not set", self._pid)
        elif self.active:
            shown = self.redactor.value(key, value)
            self._tags({self._measurements.keys.tag(key): shown})
            if key == names.DESCRIPTION:
                self._description_is_ours = False

    def log_artifact(self, path: object, folder: object) -> None:
        """Keep a copy of a file, or of a folder's files, for upload."""
        if artifacts := self._artifacts_for(f"artifact {path}"):
            artifacts.log(path, folder)

    def log_eval_table(self, rows: object, name: object, id_column: object) -> None:
        """Keep the table of an evaluation's examples for upload; may raise a ValueError."""
        if artifacts := self._artifacts_for(f"table {name}"):
            artifacts.log_table(rows, name, id_column)

    def _artifacts_for(self, what: str) -> RunArtifacts | None:
        """The artifacts of the run; None, with a warning, if it can have none here."""
        if self.active and self._artifacts is None:
            _logger.warning("%s was not kept: call mark_validated() first", what)
        elif self.belongs_to_parent:
            _logger.warning(_FORKED, f"{what} was not kept", self._pid)
        return self._artifacts if self.active else None

    # -- records -------------------------------------------------------------------------------

    @property
    def status(self) -> Status:
        """The run's present status."""
        return self._lifecycle.status

    def append(self, record: Record) -> None:
        """Append a record to the journal, which has no secrets in it."""
        if self._artifacts is not None and isinstance(record, Metrics):
            self._artifacts.checkpoints.measured(record)
        if self.writer is None:
            self._early.append(record)
        else:
            self.writer.append(record)
            self._in_sweep.appended(record)

    def _append_all(self, records: Iterable[Record]) -> None:
        for record in records:
            self.append(record)

    def _tags(self, tags: Mapping[str, str]) -> None:
        self.append(Tags(self._packed.add({key: tag_value(text) for key, text in tags.items()})))

    def _open_journal(self) -> None:
        if self.writer is not None:
            return
        settings = self.settings
        source = {  # MLFLOW_RUN_CONTEXT may hold any keys
            self._measurements.keys.tag(key): tag_value(text)
            for key, text in source_tags(self.redactor).items()
        }
        try:
            self.writer = open_run_journal(settings, self.redactor, user=source.get(names.USER))
        except OSError as error:
            self._tracks = False
            self.broken = f"no journal can be written in {settings.spool_dir} ({error.strerror})"
            _logger.warning(
                "%s is not tracked: %s; set spool_dir to a folder that can be written",
                self._trainer,
                self.broken,
            )
            return
        self._pid = os.getpid()
        at_worker_exit(self, TrackedRun.close, RUNS)
        self._tags({names.TRAINER: self._trainer, **source, **self._in_sweep.opened(self.writer)})
        for key, value in settings.tags.items():
            self.set_tag(key, value)
        self._append_all(self._early)
        self._early.clear()
        self._sampler.start(self.writer)
        self._artifacts = RunArtifacts(self.writer, self.redactor, settings)
        self._provenance = Collector(
            self.writer, self.redactor, settings.skip_provenance, self._class
        )

    def _write_params(self) -> None:
        if self._params_written or self._config is None:
            return
        self._params_written = True
        try:
            logged = log_config(
                self._config, self.redactor, seeds="seeds" not in self.settings.skip_provenance
            )
        except TypeError as error:
            # As text: handlers keep records, an exception keeps its frames, and those would keep
            # the trainer alive, whose end is the end of the run.
            _logger.warning("the config of %s is not logged: %s", self._trainer, str(error))
            return
        for record in logged.records:
            self.append(record)
            if isinstance(record, Params):
                self.params |= record.values
                self._description.configured(record.values)
        self._describe()
        warn_of_unencodable(logged)

    def _append_result(self, records: Iterable[Record]) -> None:
        for record in records:
            self.append(record)
            if isinstance(record, Metrics):
                self._description.measured(record.values)
        if self._lifecycle.state is not TrainerState.TRAINING:  # the end of a training rewrites it
            self._describe()

    def _describe(self) -> None:
        """Write the description, unless the user has set one."""
        if self._description_is_ours:
            self._tags(generated(tag_value(self._description.text())))
