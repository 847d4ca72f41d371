"""The MLflow side of delivery: the only module of `delivery/` that imports mlflow.

Runs are addressed by run id through `MlflowClient`; the fluent API's global active run is never
read or set, save in `fluent_run`, which is there for the user's own `mlflow.log_*` calls.
"""

import contextlib
import fcntl
import logging
import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Concatenate, ParamSpec, TypeVar

import mlflow
from mlflow import MlflowClient, entities
from mlflow.exceptions import MlflowException
from mlflow.tracking import fluent

from orbiter_mlflow import names
from orbiter_mlflow.delivery.batches import Point
from orbiter_mlflow.delivery.errors import (
    DeliveryError,
    HeldError,
    RejectedError,
    TransientError,
)
from orbiter_mlflow.delivery.lives import Earlier, last_step
from orbiter_mlflow.delivery.records import Artifact, Dataset, Head, Status

_P = ParamSpec("_P")
_T = TypeVar("_T")

_HTTP_STATUS = re.compile(r"failed with error code (\d{3})|too many (\d{3}) error responses")
_NO_ANSWER = re.compile(r"API request to \S+ failed with (exception|timeout)")
_UNREACHED = re.compile(r"API request to (\w+://\S+) failed with (?:exception|timeout)")
_CAUSE = re.compile(r"\[Errno -?\d+\] [^'\")\]]+|Read timed out|[Cc]onnect timeout")
_UNSUPPORTED = re.compile(r"got unsupported URI ('[^']*')")
_USERINFO = re.compile(r"(?<=://)[^/\s]+@")
_DELETED = re.compile(r"must be in the 'active'|deleted", re.IGNORECASE)
_HELD_STATUS = frozenset({401, 403, 404})
_RETRY_STATUS = frozenset({408, 409, 429, 499})
_OVERLOADED = frozenset({502, 503})
"""Told by a server, a database or a gateway in trouble: never the fault of what was sent."""


def classified(error: Exception) -> Exception:
    """The delivery error that says what to do about an exception of mlflow's client."""
    if isinstance(error, DeliveryError):
        return error
    text = _USERINFO.sub("", _said(error))
    if isinstance(error, MlflowException):
        told = _HTTP_STATUS.search(str(error))
        status = int(told[1] or told[2]) if told else error.get_http_status_code()
        # Without an answer mlflow reports INTERNAL_ERROR as well, as "API request to ...".
        answered = told is not None or not _NO_ANSWER.match(str(error))
        if status >= 500 or status in _RETRY_STATUS:
            blamable = answered and status >= 500 and status not in _OVERLOADED
            return TransientError(text, answered=blamable)
        if status in _HELD_STATUS:
            return HeldError(f"{text} (check the credentials, and that run and experiment exist)")
        if _DELETED.search(str(error)):
            return HeldError(f"{text} (restore it on the server, and delivery goes on)")
        return RejectedError(text)
    if isinstance(error, ImportError):
        return HeldError(f"{text} (install what the tracking URI needs)")
    # While a store is opened, mlflow lets a database' own errors through.
    if isinstance(error, OSError) or type(error).__module__.startswith("sqlalchemy."):
        return TransientError(text)
    return RejectedError(text)


def _said(error: Exception) -> str:
    """What happened, in words for people, where mlflow's own are for its developers."""
    text = f"{type(error).__name__}: {error}".strip()
    unreached = _UNREACHED.search(text)
    if unreached and not _HTTP_STATUS.search(text):
        causes = _CAUSE.findall(text[unreached.end() :])  # the innermost comes last
        told = f" ({causes[-1]})" if causes else ""
        return f"no answer to {unreached[1]}{told}: check that it is up, and the tracking URI"
    if unsupported := _UNSUPPORTED.search(text):
        return f"MLflow has no store for the tracking URI {unsupported[1]}: check how it begins"
    return text


def _translated(
    method: Callable[Concatenate["MLflowSink", _P], _T],
) -> Callable[Concatenate["MLflowSink", _P], _T]:
    @wraps(method)
    def call(self: "MLflowSink", /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return method(self, *args, **kwargs)
        except Exception as error:
            raise classified(error) from error

    return call


class MLflowSink:
    """A tracking store behind any tracking URI of MLflow's.

    Args:
        tracking_uri: where the store is; may hold credentials, which appear in no message of ours.

    Raises:
        DeliveryError: the store cannot be opened.
    """

    def __init__(self, tracking_uri: str) -> None:
        try:
            with opening(tracking_uri):
                self._client = MlflowClient(tracking_uri)
                self._client.search_experiments(
                    max_results=1, view_type=entities.ViewType.ACTIVE_ONLY
                )
        except Exception as error:
            raise classified(error) from error

    @_translated
    def create_run(self, head: Head) -> str:
        given = {names.PARENT_RUN_ID: head.parent_run_id, names.USER: head.user}
        tags = {names.UID: head.uid} | {key: text for key, text in given.items() if text}
        run = self._client.create_run(
            self.experiment_id(head.experiment, head.experiment_id),
            start_time=head.start_time,
            tags=tags,
            run_name=head.run_name,
        )
        return str(run.info.run_id)

    @_translated
    def read_run(self, run_id: str) -> Earlier:
        data = self._client.get_run(run_id).data
        # Of the latest value of each metric: the one of the largest step.
        steps = ((metric.key, metric.step) for metric in data.to_proto().metrics)
        return Earlier(last_step(steps), data.params, data.tags)

    @_translated
    def find_runs(self, head: Head) -> Sequence[str]:
        found = self._client.search_runs(
            [self.experiment_id(head.experiment, head.experiment_id)],
            filter_string=f"tags.`{names.UID}` = '{head.uid}'",
            order_by=["attributes.start_time ASC"],
        )
        return [str(run.info.run_id) for run in found]

    @_translated
    def delivered(self, run_id: str) -> str:
        return str(self._client.get_run(run_id).data.tags.get(names.DELIVERED, ""))

    @_translated
    def log_batch(
        self, run_id: str, points: Sequence[Point], params: dict[str, str], tags: dict[str, str]
    ) -> None:
        self._client.log_batch(
            run_id,
            [entities.Metric(*point) for point in points],
            [entities.Param(key, text) for key, text in params.items()],
            [entities.RunTag(key, text) for key, text in tags.items()],
            synchronous=True,
        )

    @_translated
    def delete_tags(self, run_id: str, tags: Collection[str]) -> None:
        present = self._client.get_run(run_id).data.tags
        for tag in tags:
            if tag in present:
                self._client.delete_tag(run_id, tag)

    @_translated
    def log_dataset(self, run_id: str, dataset: Dataset) -> None:
        entity = entities.Dataset(
            dataset.name,
            dataset.digest,
            dataset.source_type,
            dataset.source,
            dataset.schema or None,
            dataset.profile or None,
        )
        context = entities.InputTag(names.DATASET_CONTEXT, dataset.context)
        self._client.log_inputs(run_id, [entities.DatasetInput(entity, [context])])

    @_translated
    def log_artifact(self, run_id: str, file: Path, artifact: Artifact) -> None:
        if not file.exists():
            raise ValueError(f"the kept copy of artifact {artifact.name!r} is gone")
        with TemporaryDirectory() as folder:  # MLflow takes the name from the path
            named = Path(folder) / artifact.name
            named.symlink_to(file.absolute())
            self._client.log_artifact(run_id, str(named), artifact.folder)

    @_translated
    def set_status(self, run_id: str, status: Status) -> None:
        if status.end_time is None:
            self._client.update_run(run_id, status=status.status)
        else:
            self._client.set_terminated(run_id, status.status, status.end_time)

    @_translated
    def delete_run(self, run_id: str) -> None:
        self._client.delete_run(run_id)

    @_translated
    def experiment_id(self, name: str | None, experiment_id: str | None) -> str:
        """The id of an experiment; one that goes by a name is made where it does not exist."""
        if experiment_id is not None:
            return experiment_id
        name = name or "Default"
        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self._client.create_experiment(name))
            except MlflowException:
                found = self._client.get_experiment_by_name(name)  # another trainer was first
                if found is None:
                    raise
        if found.lifecycle_stage != "active":
            raise HeldError(
                f"experiment {name!r} is deleted on the server: restore it, or rename it"
            )
        return str(found.experiment_id)


@contextlib.contextmanager
def opening(tracking_uri: str) -> Iterator[None]:
    """Let one process at a time open a sqlite store: the first one to do so runs MLflow's
    migrations, and a second one that comes in the middle of them breaks both."""
    if not tracking_uri.startswith("sqlite:///"):
        yield
        return
    database = Path(tracking_uri.removeprefix("sqlite:///").partition("?")[0])
    if not database.parent.exists():
        raise FileNotFoundError(f"there is no folder {database.parent} for the store {database}")
    with (
        _quiet("alembic"),
        _quiet("mlflow.store.db.utils"),
        _locked(database.with_name(f".{database.name}.opening")),
    ):
        yield


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, which is gone afterwards."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.fstat(fd).st_nlink == 0:  # the last holder removed it while we waited for it
                continue
            try:
                yield
            finally:
                path.unlink()
            return
        finally:
            os.close(fd)


@contextlib.contextmanager
def _quiet(logger_name: str) -> Iterator[None]:
    """Keep MLflow's some fifty lines on the making of a store off the user's terminal."""
    logger = logging.getLogger(logger_name)
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def fluent_run(tracking_uri: str, run_id: str) -> Iterator[Any]:
    """Make a run the active one of MLflow's fluent API for the length of a `with` block.

    MLflow sets the run FINISHED on leaving; the caller puts the true status back. The tracking URI
    and the experiment that the user has set are theirs again afterwards.
    """
    uri = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    # MLflow refuses to start a run of another than the active experiment, and has no public way to
    # put the active one aside.
    experiment_id, fluent._active_experiment_id = fluent._active_experiment_id, None
    mlflow.set_tracking_uri(tracking_uri)
    try:
        with mlflow.start_run(run_id, nested=mlflow.active_run() is not None) as run:
            yield run
    finally:
        mlflow.set_tracking_uri(uri)
        fluent._active_experiment_id = experiment_id
