"""A tracking store whose writes become records of journals.

It is MLflow's own store of a class made at run time: a subclass, so that whatever asks for the
class of a store finds the right one, which shares the attributes of the original. Methods that this
module does not replace are MLflow's; those that it replaces use the untouched original.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import cache, wraps
from typing import Any

from mlflow.entities import (
    DatasetInput,
    Experiment,
    LifecycleStage,
    LoggedModelInput,
    Metric,
    Param,
    Run,
    RunInfo,
    RunStatus,
    RunTag,
)
from mlflow.exceptions import MlflowException
from mlflow.store.entities.paged_list import PagedList
from mlflow.store.tracking.abstract_store import AbstractStore
from mlflow.tracking._tracking_service import utils as tracking_service
from mlflow.utils import validation
from mlflow.utils.async_logging.run_operations import RunOperations

from orbiter_mlflow import names
from orbiter_mlflow.delivery.store_uri import PREFIX, absolute
from orbiter_mlflow.plugin import endings, entities, methods
from orbiter_mlflow.plugin.runs import Runs, runs_of

_logger = logging.getLogger(__name__)

_INNER, _RUNS, _ENDING = "_orbiter_inner", "_orbiter_runs", "_orbiter_ending"


def journaled(inner: AbstractStore, tracking_uri: str) -> AbstractStore:
    """The store `inner` with journals for its writes.

    Args:
        inner: MLflow's own store.
        tracking_uri: its URI, without our prefix.

    Raises:
        MlflowException: a setting in the environment is wrong.
    """
    endings.watch()
    base: Any = type(inner)
    store: AbstractStore = object.__new__(_journaled_class(base))
    store.__dict__ = inner.__dict__
    store.__dict__.update(
        {
            _INNER: inner,
            _RUNS: runs_of(inner, absolute(tracking_uri)),
            _ENDING: threading.local(),
        }
    )
    return store


def runs_behind(store: AbstractStore) -> Runs | None:
    """The runs that this process writes through a store; None for a store without journals."""
    return store._orbiter_runs if isinstance(store, JournalWrites) else None


class JournalWrites:
    """The methods of a journaled store; see `methods` for which does what."""

    _orbiter_inner: Any
    _orbiter_runs: Runs
    _orbiter_ending: threading.local

    # -- writes --------------------------------------------------------------------------------

    def log_metric(self, run_id: str, metric: Metric) -> None:
        """Record a metric."""
        checked = entities.checked_metric(metric)
        self._orbiter_runs.get(run_id).log_batch([checked], (), ())

    def log_param(self, run_id: str, param: Param) -> None:
        """Record a param."""
        checked = entities.checked_param(param)
        self._orbiter_runs.get(run_id).log_param(checked)

    def set_tag(self, run_id: str, tag: RunTag) -> None:
        """Record a tag."""
        checked = entities.checked_tag(tag)
        self._orbiter_runs.get(run_id).log_batch((), (), [checked])

    def log_batch(
        self,
        run_id: str,
        metrics: Sequence[Metric],
        params: Sequence[Param],
        tags: Sequence[RunTag],
    ) -> None:
        """Record a batch."""
        validation._validate_run_id(run_id)
        checked = entities.checked_batch(metrics, params, tags)
        self._orbiter_runs.get(run_id).log_batch(*checked)

    def log_metric_async(self, run_id: str, metric: Metric) -> RunOperations:
        """Record a metric."""
        return _operation(lambda: self.log_metric(run_id, metric))

    def log_param_async(self, run_id: str, param: Param) -> RunOperations:
        """Record a param."""
        return _operation(lambda: self.log_param(run_id, param))

    def set_tag_async(self, run_id: str, tag: RunTag) -> RunOperations:
        """Record a tag."""
        return _operation(lambda: self.set_tag(run_id, tag))

    def log_batch_async(
        self,
        run_id: str,
        metrics: Sequence[Metric],
        params: Sequence[Param],
        tags: Sequence[RunTag],
    ) -> RunOperations:
        """Record a batch."""
        return _operation(lambda: self.log_batch(run_id, metrics, params, tags))

    def log_inputs(
        self,
        run_id: str,
        datasets: list[DatasetInput] | None = None,
        models: list[LoggedModelInput] | None = None,
    ) -> None:
        """Record datasets; models are passed on."""
        validation._validate_run_id(run_id)
        runs = self._orbiter_runs
        runs.get(run_id).log_datasets(datasets)
        if models:
            runs.flush(run_id)
            self._orbiter_inner.log_inputs(runs.real_id(run_id) or run_id, None, models)

    def update_run_info(
        self, run_id: str, run_status: int | None, end_time: int | None, run_name: str | None
    ) -> RunInfo:
        """Record a change of the run's status, end time or name."""
        status = None if run_status is None else RunStatus.to_string(run_status)
        self._orbiter_ending.now = False
        run = self._orbiter_runs.get(run_id)
        return run.update(endings.true_status(status), end_time, run_name)

    def delete_tag(self, run_id: str, key: str) -> None:
        """Delete a tag, after what was written here."""
        self._orbiter_flushed("delete_tag", (run_id, key), {})
        if (known := self._orbiter_runs.known(run_id)) is not None:
            known.forget_tag(key)

    # -- runs ----------------------------------------------------------------------------------

    def create_run(
        self,
        experiment_id: str,
        user_id: str | None,
        start_time: int,
        tags: Sequence[RunTag] | None,
        run_name: str | None,
    ) -> Run:
        """Create a run, in the store if it answers in time."""
        return _shown(
            self._orbiter_runs.created(
                experiment_id, user_id, start_time, list(tags or ()), run_name
            )
        )

    def get_run(self, run_id: str) -> Run:
        """The run, with all that was written here."""
        known = self._orbiter_runs.known(run_id)
        if known is not None and getattr(self._orbiter_ending, "now", False):
            # `set_terminated` wants to print a link, and must not wait.
            return _shown(known.known())
        return _shown(self._orbiter_runs.read(run_id))

    def search_runs(self, *args: Any, **kwargs: Any) -> PagedList[Run]:
        """The runs that match, with all that was written here."""
        found: PagedList[Run] = self._orbiter_flushed("search_runs", args, kwargs)
        for run in found:
            _shown(run)
        return found

    def get_experiment(self, experiment_id: str) -> Experiment:
        """An experiment; the one that the environment names is not needed to begin."""
        return self._orbiter_runs.experiment(experiment_id)

    def delete_run(self, run_id: str) -> None:
        """Delete a run, after what was written here."""
        self._orbiter_flushed("delete_run", (run_id,), {})
        if (known := self._orbiter_runs.known(run_id)) is not None:
            known.deleted(LifecycleStage.DELETED)

    def restore_run(self, run_id: str) -> None:
        """Restore a run."""
        self._orbiter_inner.restore_run(self._orbiter_real(run_id))
        if (known := self._orbiter_runs.known(run_id)) is not None:
            known.deleted(LifecycleStage.ACTIVE)

    # -- MLflow's asynchronous logging, which has nothing to do here -----------------------------

    def flush_async_logging(self) -> None:
        """Wait until what was written here is in the store."""
        self._orbiter_runs.flush()

    def end_async_logging(self) -> None:
        """Do nothing."""

    def shut_down_async_logging(self) -> None:
        """Note that `set_terminated` calls, which does so first of all."""
        self._orbiter_ending.now = True

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies by pickle ask MLflow for the store again."""
        return _reopened, (self._orbiter_runs.settings.tracking_uri,)

    # -- passed on -----------------------------------------------------------------------------

    def _orbiter_real(self, value: Any) -> Any:
        """The id in the store in place of a provisional one; anything else as it is."""
        if not isinstance(value, str):
            return value
        return self._orbiter_runs.real_id(value) or value

    def _orbiter_flushed(self, method: str, args: Any, kwargs: Any) -> Any:
        runs = self._orbiter_runs
        given = (value for value in (*args, *kwargs.values()) if isinstance(value, str))
        named = [value for value in given if runs.known(value) is not None]
        chosen: list[str | None] = [*named] or [None]  # of a method that names no run, all
        for run_id in chosen:
            runs.flush(run_id)
        return self._orbiter_passed(method, args, kwargs)

    def _orbiter_passed(self, method: str, args: Any, kwargs: Any) -> Any:
        real = self._orbiter_real
        return getattr(self._orbiter_inner, method)(
            *map(real, args), **{key: real(value) for key, value in kwargs.items()}
        )


def _shown(run: Run) -> Run:
    """The run without the tags by which delivery knows it."""
    for tag in (names.UID, names.DELIVERED):
        run.data.tags.pop(tag, None)
    return run


@cache
def _journaled_class(base: Any) -> Any:
    """The class of journaled stores whose inner store is of class `base`."""
    added: dict[str, Any] = {"__module__": __name__}
    for chosen, how in (
        (methods.FLUSHED, JournalWrites._orbiter_flushed),
        (methods.TRANSLATED, JournalWrites._orbiter_passed),
    ):
        for name in chosen:
            if hasattr(base, name) and name not in vars(JournalWrites):
                added[name] = _calling(how, name, getattr(base, name))
    return type(f"Journaled{base.__name__}", (JournalWrites, base), added)


def _calling(how: Callable[..., Any], name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(self: JournalWrites, *args: Any, **kwargs: Any) -> Any:
        return how(self, name, args, kwargs)

    return call


def _operation(write: Callable[[], None]) -> RunOperations:
    """Write at once, and return what MLflow returns for asynchronous logging: `wait` raises what
    the store refuses."""
    future: Future[None] = Future()
    try:
        write()
    except MlflowException as error:
        _logger.warning("not logged: %s", error)
        future.set_exception(error)
    else:
        future.set_result(None)
    return RunOperations([future])


def _reopened(tracking_uri: str) -> AbstractStore:
    """The store of a tracking URI, for a copy by pickle."""
    found: AbstractStore = tracking_service._get_store(PREFIX + tracking_uri)
    return found
