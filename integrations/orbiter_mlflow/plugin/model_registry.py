"""The model registry behind the prefix: MLflow's own, which is told the runs' ids in the store.

A model version names the run that it comes from. Where that run has a provisional id, the registry
gets the id that the store has given it.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

from mlflow.store.model_registry.abstract_store import AbstractStore

from orbiter_mlflow.plugin.runs import all_runs

_REAL_RUN_ID = "_orbiter_real_run_id"


def resolving(
    inner: AbstractStore, real_run_id: Callable[[str], str] | None = None
) -> AbstractStore:
    """The registry `inner` for callers who may know a run by its provisional id.

    Args:
        inner: MLflow's own registry.
        real_run_id: gives the id in the store. Default: by the runs that this process writes.
    """
    base: Any = type(inner)
    store: AbstractStore = object.__new__(_resolving_class(base))
    store.__dict__ = inner.__dict__
    store.__dict__[_REAL_RUN_ID] = real_run_id or stored_run_id
    return store


def stored_run_id(run_id: str) -> str:
    """The id in the store of a run that this process writes; waits until it is there. Any other id
    is returned unchanged."""
    for runs in all_runs():
        if (run := runs.known(run_id)) is not None:
            if run.real_id() is None:
                runs.flush(run_id)
            return run.real_id() or run_id
    return run_id


class ResolveRuns:
    """The one method of a registry that is given the id of a run."""

    def create_model_version(
        self, name: str, source: str, run_id: str | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Create a model version of the run's id in the store."""
        real = run_id and getattr(self, _REAL_RUN_ID)(run_id)
        return super().create_model_version(  # type: ignore[misc]  # of MLflow's class
            name, source, real, *args, **kwargs
        )


@cache
def _resolving_class(base: Any) -> Any:
    return type(base.__name__, (ResolveRuns, base), {"__module__": __name__})
