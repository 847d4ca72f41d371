"""`MLflowTrainerMixin`: passes a trainer's lifecycle hooks on to its tracked run.

It implements hooks only; `orbiter.train` enforces the order of events.
"""

import asyncio
import html
import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

from pydantic import ValidationError

from orbiter.train import Rollout, Trainer, TrainerState, TrainMetrics
from orbiter.train.hooks import Phase, quiet_logger, runtime_of, stops_on_purpose
from orbiter_mlflow.errors import TrackingError
from orbiter_mlflow.settings import (
    MLflowSettings,
    claim_environment_run_id,
    resolve,
    tracks_here,
)
from orbiter_mlflow.tracking.run import TrackedRun
from orbiter_mlflow.tracking.run_journal import prepare_delivery
from orbiter_mlflow.tracking.system_metrics.extra import missing_packages
from orbiter_mlflow.ui.links import run_page
from orbiter_mlflow.ui.pages import page_of_run, ui_address

_logger = quiet_logger(__name__)

_ATTACHED = "orbiter_mlflow"


@contextmanager
def _harmless(event: str) -> Iterator[None]:
    """Log our own failures instead of raising them into the training."""
    try:
        yield
    except Exception:
        _logger.exception("tracking failed at %s; training goes on", event)


class MLflowTrainerMixin(Trainer):
    """Track a trainer in MLflow: `class MyTrainer(MLflowTrainerMixin, MyBackend)` is all it takes.

    Args:
        mlflow: settings; they take precedence over those of the class and of the environment.
        *args: passed on to the next class.
        **kwargs: passed on to the next class.

    Raises:
        pydantic.ValidationError: a setting is wrong; it names the field.
        TrackingError: `system_metrics` is set, and its packages are not installed.
    """

    mlflow_settings: ClassVar[MLflowSettings | None] = None
    """Settings for all trainers of a class."""

    def __init__(self, *args: Any, mlflow: MLflowSettings | None = None, **kwargs: Any) -> None:
        self._mlflow = resolve(mlflow, self.mlflow_settings)
        _require_packages(self._mlflow)
        if self._track(self._mlflow).active:
            with _harmless("the start of delivery"):
                prepare_delivery(self._mlflow)
        super().__init__(*args, **kwargs)

    @property
    def _tracked(self) -> TrackedRun:
        run: TrackedRun | None = runtime_of(self).attached.get(_ATTACHED)
        if run is not None:
            return run
        inherited: MLflowSettings | None = self.__dict__.get("_mlflow")
        if inherited is None:  # an __init__ that never called ours
            inherited = self._mlflow = self._late_settings()
            return self._track(inherited)
        # A copy of a tracked trainer: it must not write into the same run.
        return self._track(inherited.model_copy(update={"run_id": None}))

    def _begun_here(self) -> TrackedRun:
        """The run of the phase that begins now; a forked child gets a run of its own, or both
        processes would write the same one."""
        run = self._tracked
        if not run.belongs_to_parent:
            return run
        own = self._track(run.settings.model_copy(update={"run_id": None}))
        own.forked_from(run)
        return own

    def _late_settings(self) -> MLflowSettings:
        """Settings when it is too late to raise: an error now would stop the training."""
        try:
            return resolve(None, self.mlflow_settings)
        except ValidationError as error:
            _logger.error("%s is not tracked: %s", type(self).__qualname__, error)
            return MLflowSettings(enabled=False)

    def _track(self, settings: MLflowSettings) -> TrackedRun:
        claim_environment_run_id(settings)
        run = TrackedRun(settings, type(self))
        runtime_of(self).attached[_ATTACHED] = run
        # At the end of the trainer's life, or of the process: whichever comes first.
        weakref.finalize(self, _close, run)
        return run

    # -- the user's own ------------------------------------------------------------------------

    @property
    def run_id(self) -> str | None:
        """The id of the MLflow run; None if there is none yet, or nothing is tracked.

        Inside a running event loop it never waits (`wait_run_id` does); outside one it waits for
        the run's creation, up to `flush_timeout`.
        """
        run = self._tracked
        if not run.active or run.writer is None:
            return None
        if _in_event_loop():
            return run.writer.run_id()
        return run.writer.wait_run_id(run.settings.flush_timeout)

    async def wait_run_id(self) -> str | None:
        """The id of the MLflow run, once it exists; None after `flush_timeout`, or untracked."""
        run = self._tracked
        if not run.active or run.writer is None:
            return None
        return await run.writer.wait_run_id_async(run.settings.flush_timeout)

    @property
    def run_url(self) -> str | None:
        """The run's page in the MLflow UI; None if there is no run yet, or nothing is tracked.

        For a store without a server it is the page that `mlflow server` serves by default. This
        asks the store, and waits for its answer.

        Raises:
            StoreError: the store cannot be read.
        """
        run_id = self.run_id
        if run_id is None:
            return None
        return page_of_run(self._tracked.settings.tracking_uri, run_id)

    @property
    def delivered(self) -> bool:
        """Whether everything recorded so far is in MLflow; False if nothing is tracked."""
        return self._tracked.delivered()

    def set_tag(self, key: str, value: Any) -> None:
        """Set a tag of the run through the journal, whether a server is up or not."""
        with _harmless("set_tag"):
            self._tracked.set_tag(str(key), str(value))

    def log_artifact(self, path: str | os.PathLike[str], folder: str | None = None) -> None:
        """Log a file, or a folder with everything in it, as artifacts, without waiting for a copy.

        The call holds on to the files, which may be removed or replaced as soon as it returns; a
        thread copies them. This holds for the first 100 files or so of a large folder: the others
        must stay until `delivered`, or the end of `train`. A warning and the tag
        `orbiter.artifacts.problems` report files that are not kept as they were. Only regular files
        are taken.

        Args:
            path: the file or folder.
            folder: the folder among the run's artifacts to put it in.
        """
        with _harmless("log_artifact"):
            self._tracked.log_artifact(path, folder)

    def log_eval_table(self, rows: Any, *, name: str = "eval", id: str = "id") -> None:  # noqa: A002
        """Log the examples of an evaluation as a table, by which the gate compares two runs.

        A row has the example's id, one score or more (bools or finite numbers), and further texts
        and numbers, such as the slice that it belongs to. The table goes through the journal: when
        the call returns, it is on the disk. It becomes the artifact `eval_tables/<name>.json`, in
        the format of `mlflow.log_table`. A second table of one name replaces the first: put the
        step into the name to keep both. Secrets in texts are redacted.

        A table that cannot be used is refused as a whole: a value that is no text, finite number,
        bool or None; an id that is missing or occurs twice; more than 500,000 rows or 64 MiB. A
        warning and the tag `orbiter.artifacts.problems` name the row, the column and the value, and
        training goes on.

        Args:
            rows: a list of mappings, a mapping from columns to lists, or a DataFrame of pandas.
            name: letters, digits, `_`, `-`, `.` and spaces, with `/` between parts.
            id: the column that names the examples, by texts or integers.

        Raises:
            TrackingError: the table cannot be used, and `on_failure` is "raise".
        """
        problem: ValueError | None = None
        with _harmless("log_eval_table"):
            try:
                self._tracked.log_eval_table(rows, name, id)
            except ValueError as error:
                problem = error
        if problem is not None and self._tracked.settings.on_failure == "raise":
            raise TrackingError(f"the table {name!r} is not logged: {problem}") from problem

    @contextmanager
    def active_run(self) -> Iterator[Any]:
        """The run as the active one of MLflow's fluent API, for `mlflow.log_*` and autologging.

        Inside the block, MLflow's own functions write through the trainer's journal, whether a
        server is up or not. Before the run exists in the store it has a provisional id. Secrets are
        redacted in params and tags. Params that the trainer has logged stay as they are: a warning
        names those that differ. The trainer alone decides about the run's status: neither
        `mlflow.end_run()` nor leaving the block ends it.

        Raises:
            TrackingError: there is no run to log to: not yet, or on a process that does not track.
        """
        run = self._tracked
        if not run.active or run.writer is None:
            raise TrackingError(
                "there is no MLflow run to log to: it starts at mark_validated() or evaluate(), "
                "and trainers that are switched off or not rank 0 have none"
            )
        from orbiter_mlflow.plugin.active_run import fluent_run

        with fluent_run(run) as active:
            yield active

    # -- how it is shown -----------------------------------------------------------------------

    def __repr__(self) -> str:
        """The class, its state, and the run with its page; a backend's own `__repr__` stays.

        Neither this nor the view in a notebook asks a server or raises.
        """
        inherited = super().__repr__
        if getattr(inherited, "__objclass__", None) is not object:
            return inherited()
        shown = ""
        with _harmless("repr"):
            run_id, url = self._known_run()
            run = "" if run_id is None else f", run {run_id}: {url}"
            shown = f"<{type(self).__qualname__} {self.state}{run}>"
        return shown or object.__repr__(self)

    def _repr_html_(self) -> str | None:
        """The same in a notebook, with a link; None leaves it to `__repr__`."""
        shown = ""
        with _harmless("repr"):
            run_id, url = self._known_run()
            link = ""
            if run_id is not None and url is not None:
                link = f', <a href="{html.escape(url)}" target="_blank">run {run_id[:8]}</a>'
            shown = f"<code>{html.escape(type(self).__qualname__)}</code> {self.state}{link}"
        return shown or None

    def _known_run(self) -> tuple[str | None, str | None]:
        """Id and page of the run, as far as they are known without asking anybody."""
        run: TrackedRun | None = runtime_of(self).attached.get(_ATTACHED)
        if run is None or not run.active or run.writer is None:
            return None, None
        run_id = run.writer.run_id()
        if run_id is None:
            return None, None
        settings = run.settings
        return run_id, run_page(ui_address(settings.tracking_uri), settings.experiment_id, run_id)

    # -- hooks ---------------------------------------------------------------------------------

    def _on_check_passed(self, check: str, arguments: Mapping[str, Any]) -> None:
        super()._on_check_passed(check, arguments)
        run = self._tracked
        with _harmless(check):
            run.check_passed(check, arguments)

    def _on_transition(self, before: TrainerState, after: TrainerState) -> None:
        super()._on_transition(before, after)
        with _harmless(f"state {after}"):
            run = self._begun_here() if after is TrainerState.TRAINING else self._tracked
            run.moved(after, self.config)

    def _on_report(self, metrics: Mapping[str, Any] | TrainMetrics, step: int) -> None:
        super()._on_report(metrics, step)
        self._tracked.reported(metrics, step)

    def _on_evaluation_report(
        self, metrics: Mapping[str, Any] | TrainMetrics, step: int, data: Any
    ) -> None:
        super()._on_evaluation_report(metrics, step, data)
        self._tracked.evaluation_reported(metrics, step, data, self.config)

    def _on_step(self, step: int) -> None:
        super()._on_step(step)
        self._tracked.steps.move_to(step)

    def _on_rollouts(
        self, rollouts: Sequence[Rollout], step: int, phase: Literal["train", "eval"]
    ) -> None:
        super()._on_rollouts(rollouts, step, phase)
        self._tracked.rollouts_reported(rollouts, step, phase)

    def _on_checkpoint(self, path: str, step: int) -> None:
        super()._on_checkpoint(path, step)
        with _harmless("report_checkpoint"):
            self._tracked.checkpoint_reported(path, step)

    def _on_evaluate_started(self, test_data: Any) -> None:
        super()._on_evaluate_started(test_data)
        with _harmless("evaluate"):
            self._begun_here().evaluation_started(test_data, self.config)

    async def _on_train_result(self, metrics: TrainMetrics) -> None:
        await super()._on_train_result(metrics)
        with _harmless("the result of train"):
            self._tracked.trained(metrics, self.state)
        await self._flush("train", metrics)

    async def _on_evaluate_result(self, metrics: TrainMetrics, test_data: Any) -> None:
        await super()._on_evaluate_result(metrics, test_data)
        with _harmless("the result of evaluate"):
            self._tracked.evaluated(metrics, test_data)
        await self._flush("evaluate", metrics)

    async def _on_error(self, phase: Phase, error: BaseException) -> None:
        await super()._on_error(phase, error)
        on_purpose = stops_on_purpose(type(self), error)
        with _harmless(f"the error of {phase}"):
            self._tracked.failed(phase, error, on_purpose=on_purpose)
        # A cancelled task must not be held up, nor a study between two of its trials.
        if isinstance(error, Exception) and not on_purpose:
            await self._flush(phase, None)

    async def _flush(self, phase: Phase, metrics: TrainMetrics | None) -> None:
        """Wait for delivery at the end of a phase, but not after an `evaluate` inside `train`."""
        if runtime_of(self).training:
            return
        run, problem = self._tracked, None
        with _harmless(f"the delivery after {phase}"):
            problem = await run.flush()
        if problem is not None and metrics is not None and run.settings.on_failure == "raise":
            raise TrackingError(
                f"{phase} succeeded, but not all of it has reached MLflow: {problem}", metrics
            )


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _require_packages(settings: MLflowSettings) -> None:
    if settings.system_metrics and settings.enabled and tracks_here(settings):
        problem = missing_packages()
        if problem is not None:
            raise TrackingError(problem)


def _close(run: TrackedRun) -> None:
    with _harmless("the end of the run"):
        run.close()
