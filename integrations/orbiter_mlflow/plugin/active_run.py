"""Make a trainer's run the active one of MLflow's fluent API."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from orbiter_mlflow.delivery import mlflow_client  # noqa: F401  mlflow needs a home

# isort: split
import mlflow
from mlflow.environment_variables import MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT
from mlflow.tracking import fluent
from mlflow.tracking._tracking_service import utils as tracking_service

from orbiter_mlflow.delivery.store_uri import PREFIX
from orbiter_mlflow.errors import TrackingError
from orbiter_mlflow.plugin.bound_run import BoundRun
from orbiter_mlflow.plugin.store import runs_behind
from orbiter_mlflow.tracking.run import TrackedRun


@contextmanager
def fluent_run(tracked: TrackedRun) -> Iterator[Any]:
    """Make a trainer's run the active one inside a `with` block; its journal must be open.

    Nobody is asked on entering and leaving. The tracking URI and the experiment that the user has
    set are restored afterwards.
    """
    before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    # MLflow refuses to start a run outside the active experiment, and has no public way to unset
    # the active one.
    experiment_id, fluent._active_experiment_id = fluent._active_experiment_id, None
    uri = PREFIX + tracked.settings.tracking_uri
    mlflow.set_tracking_uri(uri)
    try:
        bound = _bound(tracked, uri)
        with bound.unasked():
            run_id = bound.real_id() or bound.run_id
            active = mlflow.start_run(run_id, nested=mlflow.active_run() is not None)
        try:
            yield active
        except BaseException:
            _leave(active, bound, uri)
            raise
        _leave(active, bound, uri)
    finally:
        mlflow.set_tracking_uri(before)
        fluent._active_experiment_id = experiment_id


def _bound(tracked: TrackedRun, uri: str) -> BoundRun:
    """The run, written through the trainer's journal by everything that uses the URI."""
    assert tracked.writer is not None  # noqa: S101  as its journal is open
    runs = runs_behind(tracking_service._get_store(uri))
    if runs is None:
        raise TrackingError(
            "active_run() writes through the journal, which ORBITER_MLFLOW_ENABLED=false switches "
            "off for MLflow's own functions"
        )
    known = runs.known(tracked.writer.uid)
    if isinstance(known, BoundRun):
        return known
    bound = BoundRun(tracked, runs)
    runs.bind(bound)
    return bound


def _leave(active: Any, bound: BoundRun, uri: str) -> None:
    mlflow.set_tracking_uri(uri)  # the block may have set another one
    quiet = MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT.name
    shown = os.environ.get(quiet)
    if not bound.is_known:  # its page is not known either
        os.environ[quiet] = "true"
    try:
        with bound.unasked():
            active.__exit__(None, None, None)
    finally:
        os.environ.pop(quiet, None)
        if shown is not None:
            os.environ[quiet] = shown
