"""Read runs from a tracking store; the counterpart of delivery's sink.

`load_config`, `reproduce`, `diff` and the gate all read through `RunStore`, which returns plain
data and uses as few requests as it can.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from operator import attrgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from orbiter_mlflow.delivery import mlflow_client  # noqa: F401  mlflow needs a home

# isort: split
from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Run, RunTag, ViewType
from mlflow.exceptions import MlflowException

from orbiter_mlflow import names
from orbiter_mlflow.delivery.mlflow_client.artifacts import repository_of
from orbiter_mlflow.delivery.mlflow_client.errors import classified
from orbiter_mlflow.delivery.mlflow_client.opening import opening
from orbiter_mlflow.delivery.store_uri import sqlite_file
from orbiter_mlflow.errors import FilterError, RunNotFoundError, StoreError
from orbiter_mlflow.runs.model import DatasetInput, MetricPoint, StoredRun
from orbiter_mlflow.text import colons
from orbiter_mlflow.text.escaping import message
from orbiter_mlflow.text.packed_tags import unpacked
from orbiter_mlflow.text.suggestions import did_you_mean
from orbiter_mlflow.text.urls import without_userinfo

_PAGE = 1000
_MAX_SHOWN = 5
"""Runs that a message names at most if a text matches several."""
_MAX_SEARCHED = 500
"""Latest runs that are searched for a similar name."""
_RUN_ID = re.compile(r"[a-zA-Z0-9][\w\-]{0,255}")
_PROVISIONAL_ID = re.compile(r"[0-9a-f]{32}")
"""The shape of MLflow's own ids."""


class RunStore:
    """The runs behind a tracking URI.

    Args:
        tracking_uri: any MLflow tracking URI; credentials in it appear in no message.

    Raises:
        StoreError: the store cannot be opened. A missing sqlite file is not created; a server is
            first contacted when something is read.
    """

    def __init__(self, tracking_uri: str) -> None:
        self.shown_uri = without_userinfo(tracking_uri)
        self._repositories: dict[str, Any] = {}
        file = sqlite_file(tracking_uri)
        if file is not None and not file.exists():
            raise StoreError(f"there is no store at {self.shown_uri}: check the tracking URI")
        try:
            with opening(tracking_uri):
                self._client = MlflowClient(tracking_uri)
                if not tracking_uri.startswith(("http://", "https://")):
                    self._client.search_experiments(max_results=1)
        except Exception as error:
            raise self._store_error(error) from error

    def get(self, run_id: str) -> StoredRun:
        """The run with this id, even a deleted one.

        Args:
            run_id: its id, or the provisional one that it had in the process that created it.

        Raises:
            RunNotFoundError: there is none.
            StoreError: the store cannot be read.
        """
        if not _RUN_ID.fullmatch(run_id):
            raise RunNotFoundError(f"{run_id!r} is not a run id")
        try:
            return _stored(self._client.get_run(run_id))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise self._store_error(error) from error
            if (found := self._provisional(run_id)) is not None:
                return found
            raise RunNotFoundError(f"there is no run {run_id} in {self.shown_uri}") from error
        except Exception as error:
            raise self._store_error(error) from error

    def _provisional(self, run_id: str) -> StoredRun | None:
        """The run that was created under a provisional id: the uid of its journal."""
        if not _PROVISIONAL_ID.fullmatch(run_id):
            return None
        found = self._matching(f"tags.`{names.UID}` = '{run_id}'", list(self.experiments()))
        # A repeated request may have created a twin, which stays empty and is deleted at the end.
        written = [run for run in found.values() if names.DELIVERED in run.tags]
        return next(iter([*written, *found.values()]), None)

    def find(self, text: str, *, experiment: str | None = None) -> StoredRun:
        """The run that a user means: by its id, provisional or not, the start of it, or its name.

        Args:
            text: what the user typed.
            experiment: the experiment in which names are looked up; without it, only ids and their
                starts are accepted.

        Raises:
            RunNotFoundError: no run matches, or several do; the message names them.
            StoreError: the store cannot be read.
        """
        try:
            return self.get(text)
        except RunNotFoundError:
            pass
        where = list(self.experiments())
        found: dict[str, StoredRun] = {}
        if re.fullmatch(r"[0-9a-f]{4,31}", text):
            found = self._matching(f"attributes.run_id LIKE '{text}%'", where)
        if not found and experiment is not None:
            found = self._named(text, self.experiment_id(experiment))
        if len(found) == 1:
            return next(iter(found.values()))
        if found:
            raise RunNotFoundError(f"{text!r} matches {', '.join(found)}: type more of it")
        place = f"experiment {experiment!r} of " if experiment is not None else ""
        hint = "" if experiment is not None else "; a name needs its experiment"
        raise RunNotFoundError(
            f"no run of {place}{self.shown_uri} has the id, the start of an id (at least 4 "
            f"characters) or the name {text!r}{hint}{self.near(text, experiment)}"
        )

    def near(self, text: str, experiment: str | None = None) -> str:
        """The end of a message that `text` matches no run: runs with similar ids or names.

        Args:
            text: what the user typed.
            experiment: the experiment in which names were looked up, if any.

        Raises:
            StoreError: the store cannot be read.
        """
        places = self.experiments()
        latest = list(islice(self.search("", list(places), page=_MAX_SEARCHED), _MAX_SEARCHED))
        homes = [
            f"{run.run_id} in experiment {places.get(run.experiment_id)!r}"
            for run in latest
            if run.name == text
        ]
        if homes:
            return f"; of that name is {', '.join(homes[:_MAX_SHOWN])}"
        here = [run for run in latest if experiment in (None, places.get(run.experiment_id))]
        named = {run.name: f"{run.name!r} ({run.run_id})" for run in reversed(here) if run.name}
        return did_you_mean(text, {run.run_id: run.run_id for run in here} | named)

    def search(
        self,
        filter_string: str,
        experiment_ids: Sequence[str],
        *,
        page: int = _PAGE,
        by_tag: str | None = None,
    ) -> Iterator[StoredRun]:
        """Runs that match an MLflow filter, the latest first; pages are read as they are consumed.

        Args:
            page: runs to read at once.
            by_tag: a tag by which runs are ordered first, the largest text first; runs without it
                come last.

        Raises:
            FilterError: MLflow does not understand the filter.
            StoreError: the store cannot be read.
        """
        token: str | None = None
        order = ["attributes.start_time DESC", "attributes.run_id"]
        if by_tag is not None:
            order.insert(0, f"tags.`{by_tag}` DESC")
        while True:
            try:
                runs = self._client.search_runs(
                    list(experiment_ids),
                    filter_string=filter_string,
                    run_view_type=ViewType.ACTIVE_ONLY,
                    max_results=page,
                    order_by=order,
                    page_token=token,
                )
            except Exception as error:
                code = getattr(error, "error_code", None)
                if code == "INVALID_PARAMETER_VALUE":
                    raise FilterError(f"the filter {filter_string!r}: {error}") from error
                raise self._store_error(error) from error
            yield from map(_stored, runs)
            token = runs.token
            if not token:
                return

    def history(self, run_id: str, key: str) -> list[MetricPoint]:
        """All values of a metric, ordered by step, then time."""
        try:
            if colons.concerns([key]) and colons.is_marked(self._client.get_run(run_id).data.tags):
                key = colons.without_colons(key)
            found = self._client.get_metric_history(run_id, key)
        except Exception as error:
            raise self._store_error(error) from error
        found.sort(key=attrgetter("step", "timestamp"))
        return [MetricPoint(metric.step, metric.timestamp, metric.value) for metric in found]

    def experiment_id(self, name: str) -> str:
        """The id of the experiment with this name.

        Raises:
            StoreError: there is none, or the store cannot be read.
        """
        try:
            found = self._client.get_experiment_by_name(name)
        except Exception as error:
            raise self._store_error(error) from error
        if found is None:
            near = did_you_mean(name, {one: repr(one) for one in self.experiments().values()})
            raise StoreError(f"there is no experiment {name!r} in {self.shown_uri}{near}")
        return str(found.experiment_id)

    def experiment_name(self, experiment_id: str) -> str:
        """The name of the experiment with this id.

        Raises:
            StoreError: there is none, or the store cannot be read.
        """
        try:
            return str(self._client.get_experiment(experiment_id).name)
        except Exception as error:
            raise self._store_error(error) from error

    def experiments(self) -> dict[str, str]:
        """All experiments that are not deleted: id -> name."""
        found_names: dict[str, str] = {}
        token: str | None = None
        while True:
            try:
                found = self._client.search_experiments(max_results=_PAGE, page_token=token)
            except Exception as error:
                raise self._store_error(error) from error
            found_names |= {str(one.experiment_id): str(one.name) for one in found}
            token = found.token
            if not token:
                return found_names

    def artifact(self, run_id: str, path: str, *, max_bytes: int | None = None) -> bytes | None:
        """The content of an artifact; None if the run has no such artifact.

        Args:
            max_bytes: a larger artifact is not downloaded.

        Raises:
            StoreError: the artifact store cannot be read, or the artifact is too large.
        """
        try:
            folder, _, _ = path.rpartition("/")
            sizes = {
                file.path: file.file_size
                for file in self._repository(run_id).list_artifacts(folder)
            }
        except Exception as error:
            raise self._store_error(error) from error
        if path not in sizes:
            return None
        if max_bytes is not None and (sizes[path] or 0) > max_bytes:
            raise StoreError(f"the artifact has {sizes[path]} bytes, more than {max_bytes}")
        try:
            with TemporaryDirectory() as scratch:
                return Path(self._repository(run_id).download_artifacts(path, scratch)).read_bytes()
        except Exception as error:
            raise self._store_error(error) from error

    def artifacts(self, run_id: str, folder: str | None = None) -> Iterator[str]:
        """Paths of the run's artifact files; folders are listed as the paths are consumed.

        Raises:
            StoreError: the artifact store cannot be read.
        """
        try:
            found = self._repository(run_id).list_artifacts(folder)
        except Exception as error:
            raise self._store_error(error) from error
        for one in found:
            if one.is_dir:
                yield from self.artifacts(run_id, one.path)
            else:
                yield str(one.path)

    def artifact_files(self, run_id: str, folder: str) -> list[str]:
        """Paths of the artifact files in a folder, but not below it.

        Raises:
            StoreError: the artifact store cannot be read.
        """
        try:
            found = self._repository(run_id).list_artifacts(folder)
        except Exception as error:
            raise self._store_error(error) from error
        return [str(one.path) for one in found if not one.is_dir]

    def download(self, run_id: str, path: str, folder: Path) -> Path:
        """Download an artifact of any size into a folder; returns the file.

        Raises:
            StoreError: the artifact store cannot be read, or has no such artifact.
        """
        try:
            return Path(self._repository(run_id).download_artifacts(path, str(folder)))
        except Exception as error:
            raise self._store_error(error) from error

    def _repository(self, run_id: str) -> Any:
        if run_id not in self._repositories:
            self._repositories[run_id] = repository_of(self._client, run_id)
        return self._repositories[run_id]

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags of an existing run.

        Raises:
            StoreError: the store refused them.
        """
        try:
            entities = [RunTag(key, text) for key, text in tags.items()]
            self._client.log_batch(run_id, tags=entities, synchronous=True)
        except Exception as error:
            raise self._store_error(error) from error

    def _named(self, name: str, experiment_id: str) -> dict[str, StoredRun]:
        """Runs with exactly this name; if no filter can quote it, all runs are searched."""
        quotable = not re.search(r"['\"\\]", name)
        runs = self.search(f"attributes.run_name = '{name}'" if quotable else "", [experiment_id])
        few = islice((run for run in runs if run.name == name), _MAX_SHOWN)
        return {run.run_id: run for run in few}

    def share_view(self, experiment_id: str, view: str) -> bool:
        """Share a view of an experiment in the UI under the key `names.OUR_VIEW`.

        Returns:
            False if the store refuses it.
        """
        try:
            tag = f"{names.SHARED_VIEW}.{names.OUR_VIEW}"
            self._client.set_experiment_tag(experiment_id, tag, view)
        except Exception:
            return False
        return True

    def _matching(self, filter_string: str, experiment_ids: Sequence[str]) -> dict[str, StoredRun]:
        few = islice(self.search(filter_string, experiment_ids, page=_MAX_SHOWN), _MAX_SHOWN)
        return {run.run_id: run for run in few}

    def _store_error(self, error: Exception) -> StoreError:
        why = message(str(classified(error)))
        return StoreError(f"the store {self.shown_uri} cannot be read: {why}")


def _stored(run: Run) -> StoredRun:
    info, data = run.info, run.data
    return StoredRun(
        run_id=str(info.run_id),
        name=str(info.run_name or ""),
        experiment_id=str(info.experiment_id),
        status=str(info.status),
        start_time=int(info.start_time),
        end_time=None if info.end_time is None else int(info.end_time),
        params=colons.restored(data.params, data.tags),
        tags=unpacked(colons.restored(data.tags, data.tags)),
        metrics=colons.restored(data.metrics, data.tags),
        datasets=tuple(_datasets(run)),
        deleted=info.lifecycle_stage == LifecycleStage.DELETED,
    )


def _datasets(run: Run) -> Iterator[DatasetInput]:
    inputs: Any = run.inputs
    for one in inputs.dataset_inputs if inputs is not None else ():
        contexts = [tag.value for tag in one.tags if tag.key == names.DATASET_CONTEXT]
        yield DatasetInput(one.dataset.name, one.dataset.digest, contexts[0] if contexts else "")
