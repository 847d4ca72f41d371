"""The sink for MLflow: any store that a tracking URI of MLflow names.

Runs are addressed by run id through `MlflowClient`; the fluent API's active run is never read or
set.
"""

import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any, Concatenate, ParamSpec, TypeVar

from orbiter_mlflow.delivery import mlflow_client  # noqa: F401  mlflow needs a home

# isort: split
from mlflow import MlflowClient, entities
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.rest_store import RestStore
from mlflow.utils.rest_utils import http_request

from orbiter_mlflow import names
from orbiter_mlflow.delivery.batches import MetricPoint
from orbiter_mlflow.delivery.checkpoints.model import CheckpointModel
from orbiter_mlflow.delivery.mlflow_client import models
from orbiter_mlflow.delivery.mlflow_client.artifacts import repository_of, upload
from orbiter_mlflow.delivery.mlflow_client.errors import classified, classified_artifact
from orbiter_mlflow.delivery.mlflow_client.older_servers import OlderServers
from orbiter_mlflow.delivery.mlflow_client.opening import create_experiment, opening
from orbiter_mlflow.delivery.mlflow_client.traces import send
from orbiter_mlflow.delivery.mlflow_client.uids import children_of, runs_with_uid
from orbiter_mlflow.delivery.records import Artifact, Dataset, Head, RunStatus, Status, Update
from orbiter_mlflow.delivery.resumption.rewriting import RunContents, last_step, last_system_step
from orbiter_mlflow.delivery.rollout_traces import RolloutTrace
from orbiter_mlflow.errors import DeliveryError, HeldError, RejectedError, TransientError
from orbiter_mlflow.text import colons
from orbiter_mlflow.text.packed_tags import unpacked

_P = ParamSpec("_P")
_T = TypeVar("_T")


def _translated(
    method: Callable[Concatenate["MLflowSink", _P], _T],
) -> Callable[Concatenate["MLflowSink", _P], _T]:
    """Turn exceptions of MLflow into a `DeliveryError`."""

    @wraps(method)
    def call(self: "MLflowSink", /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return method(self, *args, **kwargs)
        except Exception as error:
            raise classified(error) from error

    return call


def _to_a_run(
    method: Callable[Concatenate["MLflowSink", str, _P], _T],
) -> Callable[Concatenate["MLflowSink", str, _P], _T]:
    """Translate as `_translated` does, for a write to a run: MLflow refuses it with the code of bad
    content if the run or its experiment is deleted."""

    @wraps(method)
    def call(self: "MLflowSink", run_id: str, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return method(self, run_id, *args, **kwargs)
        except Exception as error:
            found = classified(error)
            if isinstance(found, RejectedError):
                self._require_active(run_id, found)
            raise found from error

    return call


def _unless_held(error: Exception, refusal: RejectedError) -> DeliveryError:
    """The error to raise if a read that should explain a refusal fails itself: the content may be
    good."""
    found = classified(error)
    return found if isinstance(found, HeldError) else TransientError(str(refusal))


def _require_stage(thing: str, stage: str, refusal: RejectedError | None = None) -> None:
    if stage != entities.LifecycleStage.ACTIVE:
        raise HeldError(f"{thing} is deleted on the server: restore it, or rename it") from refusal


@contextmanager
def _of_artifacts() -> Iterator[None]:
    """Turn exceptions of an artifact store into a `DeliveryError`."""
    try:
        yield
    except Exception as error:
        raise classified_artifact(error) from error


class MLflowSink:
    """A tracking store behind a tracking URI of MLflow; see `Sink` for the methods.

    Args:
        tracking_uri: the store; may hold credentials, which appear in none of our messages.

    Raises:
        DeliveryError: the store cannot be opened.
    """

    def __init__(self, tracking_uri: str) -> None:
        self._repositories: dict[str, Any] = {}
        client: MlflowClient | None = None
        try:
            with opening(tracking_uri):
                client = self._client = MlflowClient(tracking_uri)
                client.search_experiments(max_results=1, view_type=entities.ViewType.ACTIVE_ONLY)
        except Exception as error:
            found = classified(error)
            if isinstance(found, RejectedError) and client and (page := self._redirection()):
                raise TransientError(page) from error
            raise found from error
        self._older = OlderServers(client)

    def _redirection(self) -> str:
        """The address to which the server redirects a POST, in words; empty without a redirect.

        A redirected POST arrives as a GET without its body, which MLflow calls invalid.
        """
        store = self._client._tracking_client.store
        if not isinstance(store, RestStore):
            return ""
        answer = http_request(
            store.get_host_creds(),
            "/api/2.0/mlflow/experiments/search",
            "POST",
            json={"max_results": 1},
            allow_redirects=False,
            max_retries=0,
        )
        if answer.status_code not in (301, 302, 303):
            return ""
        where = answer.headers.get("Location", "").partition("/api/")[0]
        return f"the server redirects to {where}: set the tracking URI to that"

    @_translated
    def create_run(self, head: Head) -> str:
        optional = {names.PARENT_RUN_ID: head.parent_run_id, names.USER: head.user}
        tags = head.tags | {names.UID: head.uid}
        tags = self._older.new_run(tags | {key: text for key, text in optional.items() if text})
        experiment_id = self._experiment_id(head)
        try:
            run = self._client.create_run(
                experiment_id, start_time=head.start_time, tags=tags, run_name=head.run_name
            )
        except MlflowException as error:
            found = classified(error)
            if isinstance(found, RejectedError):
                self._require_active_experiment(experiment_id, found)
            raise found from error
        return str(run.info.run_id)

    @_translated
    def read_run(self, run_id: str) -> RunContents:
        run = self._client.get_run(run_id)
        data = run.data
        # The latest value of each metric is the one of the largest step.
        steps = [(metric.key, metric.step) for metric in data.to_proto().metrics]
        return RunContents(
            last_step(steps),
            colons.restored(data.params, data.tags),
            unpacked(colons.restored(data.tags, data.tags)),
            has_metrics=bool(data.metrics),
            status=str(run.info.status),
            last_system_step=last_system_step(steps),
        )

    @_translated
    def find_runs(self, head: Head) -> Sequence[str]:
        return runs_with_uid(self._client, head.uid, [self._experiment_id(head)])

    @_translated
    def find_runs_anywhere(self, uid: str) -> Sequence[str]:
        return runs_with_uid(self._client, uid)

    @_translated
    def find_children(self, run_id: str) -> Mapping[str, str]:
        return children_of(self._client, run_id)

    @_to_a_run
    def log_batch(
        self,
        run_id: str,
        points: Sequence[MetricPoint],
        params: dict[str, str],
        tags: dict[str, str],
    ) -> None:
        keys = (point.key for point in points)
        stored = self._older.renaming(run_id, chain(keys, params, tags))
        self._client.log_batch(
            run_id,
            # In the order of its fields.
            [entities.Metric(stored(point.key), *point[1:]) for point in points],
            [entities.Param(stored(key), text) for key, text in params.items()],
            [entities.RunTag(stored(key), text) for key, text in self._older.tags(tags).items()],
            synchronous=True,
        )

    @_to_a_run
    def delete_tags(self, run_id: str, tags: Collection[str]) -> None:
        present = self._client.get_run(run_id).data.tags
        for tag in map(self._older.renaming(run_id, tags), tags):
            if tag in present:
                self._client.delete_tag(run_id, tag)

    @_to_a_run
    def log_dataset(self, run_id: str, dataset: Dataset) -> None:
        entity = entities.Dataset(
            dataset.name,
            dataset.digest,
            dataset.source_type,
            dataset.source,
            dataset.schema or None,
            dataset.profile or None,
        )
        tags = dataset.tags
        if tags is None:
            tags = {names.DATASET_CONTEXT: dataset.context}
        inputs = [entities.InputTag(key, text) for key, text in tags.items()]
        self._client.log_inputs(run_id, [entities.DatasetInput(entity, inputs)])

    @_to_a_run
    def log_artifact(self, run_id: str, file: Path, artifact: Artifact) -> None:
        if not file.exists():
            raise RejectedError(
                f"the kept copy of artifact {artifact.name!r} is gone", definite=True
            )
        # Not a TemporaryDirectory: at the exit of a training that delivers in a thread, its
        # finalizer removes the folder while the upload is under way.
        scratch = Path(mkdtemp())
        try:
            named = scratch / artifact.name  # MLflow takes the name from the path
            try:
                named.symlink_to(file.absolute())
            except OSError:  # Windows lets few users make links
                shutil.copyfile(file, named)
            upload(self._artifacts(run_id), str(named), artifact.folder)
            if isinstance(self._client._tracking_client.store, RestStore):
                # MLflow does not read the answer to an upload, so a proxy's login page passes for a
                # success. The answer to a read it does check.
                self._client.get_run(run_id)
        except Exception as error:
            raise classified_artifact(error) from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    @_to_a_run
    def artifact_sizes(self, run_id: str, folder: str) -> dict[str, int]:
        with _of_artifacts():
            found = self._artifacts(run_id).list_artifacts(folder)
        return {one.path.rpartition("/")[2]: one.file_size or 0 for one in found if not one.is_dir}

    @_to_a_run
    def read_artifact(self, run_id: str, path: str) -> bytes:
        with _of_artifacts(), TemporaryDirectory() as scratch:
            return Path(self._artifacts(run_id).download_artifacts(path, scratch)).read_bytes()

    @_to_a_run
    def delete_artifact(self, run_id: str, path: str) -> None:
        with _of_artifacts():
            self._artifacts(run_id).delete_artifacts(path)

    @_to_a_run
    def log_model(self, run_id: str, model: CheckpointModel) -> None:
        models.log(self._client, run_id, model)

    @_to_a_run
    def delete_model(self, run_id: str, manifest: str) -> None:
        models.delete(self._client, run_id, manifest)

    def _artifacts(self, run_id: str) -> Any:
        if run_id not in self._repositories:
            self._repositories[run_id] = repository_of(self._client, run_id)
        return self._repositories[run_id]

    @_to_a_run
    def log_traces(self, run_id: str, traces: Sequence[RolloutTrace]) -> None:
        if not traces:
            return
        info = self._client.get_run(run_id).info  # a store takes traces of a run that is deleted
        _require_stage(f"run {run_id}", info.lifecycle_stage)
        send(self._client._tracking_client.store, info.experiment_id, run_id, traces)

    @_to_a_run
    def set_status(self, run_id: str, status: Status) -> None:
        if status.end_time is None:
            self._client.update_run(run_id, status=status.status)
        else:
            self._update_info(run_id, status.status, status.end_time, None)

    @_to_a_run
    def update_run(self, run_id: str, update: Update) -> None:
        self._update_info(run_id, update.status, update.end_time, update.name)

    def _update_info(
        self, run_id: str, status: RunStatus | None, end_time: int | None, name: str | None
    ) -> None:
        # Not `set_terminated`: it prints a link, with the credentials of the tracking URI, and
        # stops the asynchronous logging of a user's own client, which shares the store.
        number = None if status is None else entities.RunStatus.from_string(status)
        self._client._tracking_client.store.update_run_info(run_id, number, end_time, name)

    @_translated
    def delete_run(self, run_id: str) -> None:
        self._client.delete_run(run_id)

    def _require_active(self, run_id: str, refusal: RejectedError) -> None:
        """Raise if a write was refused because the run or its experiment is deleted, or if that
        cannot be found out now."""
        try:
            info = self._client.get_run(run_id).info
        except Exception as error:
            raise _unless_held(error, refusal) from error
        _require_stage(f"run {run_id}", info.lifecycle_stage, refusal)
        self._require_active_experiment(info.experiment_id, refusal)

    def _require_active_experiment(self, experiment_id: str, refusal: RejectedError) -> None:
        try:
            found = self._client.get_experiment(experiment_id)
        except Exception as error:
            raise _unless_held(error, refusal) from error
        _require_stage(f"experiment {found.name!r}", found.lifecycle_stage, refusal)

    def _experiment_id(self, head: Head) -> str:
        """The id of the head's experiment; a named experiment is created if it is missing."""
        if head.experiment_id is not None:
            return head.experiment_id
        name = head.experiment or "Default"
        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return create_experiment(self._client, name, head.folder)
            except MlflowException:
                found = self._client.get_experiment_by_name(name)  # another trainer was first
                if found is None:
                    raise
        _require_stage(f"experiment {name!r}", found.lifecycle_stage)
        return str(found.experiment_id)
