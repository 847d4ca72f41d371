"""All that a tracking store holds of its runs, as text, so that two stores can be compared.

What two runs of one program cannot have in common is left out or made alike: times, ids, run names
that MLflow made up, and the two tags that delivery needs.
"""

import hashlib
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, Run

from orbiter_mlflow import names

OURS = {names.UID, names.DELIVERED}
"""The tags of a journaled run that the same run with the plain URI does not have."""
_MADE_UP_NAME = re.compile(r"^[a-z]+-[a-z]+-\d+$")
_OF_THE_DAY = re.compile(r"(utc_time_created: '|model_size_bytes: )[\d :.T-]+")
"""What varies in an `MLmodel`; the size does, because checkpoints hold times as text."""


@dataclass(frozen=True)
class Varying:
    """What differs from one run of a program to the next, plain URI or not.

    Attributes:
        values: names of metrics, params and tags; only that they are there is compared.
        files: a pattern for paths of artifacts; only that they are there is compared.
    """

    values: frozenset[str] = frozenset()
    files: str = r"(?!)"


def contents(uri: str, varying: Varying = Varying()) -> dict[str, str]:
    """What the store at a plain tracking URI holds: a text for each entity and field."""
    return _Contents(uri, varying).found


def differences(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    """One line for each entity that only one store has, or that differs."""
    return [
        f"{key}: expected {expected.get(key)!r}, found {found.get(key)!r}"
        for key in sorted(expected.keys() | found.keys())
        if expected.get(key) != found.get(key)
    ]


class _Contents:
    def __init__(self, uri: str, varying: Varying) -> None:
        self._uri = uri
        self._client = MlflowClient(uri)
        self._varying = varying
        self._ids: dict[str, str] = {}
        self.found: dict[str, str] = {}
        for experiment in self._client.search_experiments():
            where = f"experiment {experiment.name}"
            self.found[where] = str([experiment.lifecycle_stage, dict(experiment.tags)])
            runs = self._client.search_runs([experiment.experiment_id])
            runs.sort(key=lambda run: (run.info.start_time, run.info.run_name))
            models = self._client.search_logged_models([experiment.experiment_id])
            models.sort(key=lambda model: model.creation_timestamp)
            for n, run in enumerate(runs):
                self._name(f"<run {n}>", run.info.artifact_uri, run.info.run_id)
            for n, model in enumerate(models):
                self._name(f"<model {n}>", model.artifact_location, model.model_id)
            for run in runs:
                self._add(f"{where}, {self._ids[run.info.run_id]}", self._run(run))
            for model in models:
                self._add(f"{where}, {self._ids[model.model_id]}", self._model(model))

    def _name(self, name: str, location: str, identity: str) -> None:
        """Let a name stand for the id of a run or model, and for where its files are."""
        for text in (location, location.removeprefix("file://"), identity):
            self._ids[text] = name

    def _add(self, where: str, fields: Iterator[tuple[str, Any]]) -> None:
        for name, value in fields:
            key = f"{where}, {self._alike(name)}"
            assert key not in self.found, f"twice: {key}"
            self.found[key] = self._alike(str(value))

    def _run(self, run: Run) -> Iterator[tuple[str, Any]]:
        info = run.info
        yield "status", (info.status, info.lifecycle_stage, info.user_id)
        yield "name", _MADE_UP_NAME.sub("(made up)", info.run_name)
        yield "ended", info.end_time is not None and info.end_time >= info.start_time
        yield from self._values("param", run.data.params)
        tags = {key: _MADE_UP_NAME.sub("(made up)", value) for key, value in run.data.tags.items()}
        yield from self._values("tag", {key: tags[key] for key in tags.keys() - OURS})
        yield from self._values("latest", run.data.metrics)
        for key in run.data.metrics:
            points = self._client.get_metric_history(info.run_id, key)
            assert all(point.timestamp >= info.start_time for point in points)
            yield f"points {key}", [(point.step, self._value(key, point.value)) for point in points]
        for given in run.inputs.dataset_inputs if run.inputs else ():
            tags = {tag.key: tag.value for tag in given.tags}
            yield f"dataset {given.dataset.name} {tags}", given.dataset.to_dictionary()
        for model in run.inputs.model_inputs if run.inputs else ():
            yield f"model input {model.model_id}", ""
        for output in run.outputs.model_outputs if run.outputs else ():
            yield f"model output {output.model_id}", output.step
        if paths := set(self._paths(info.run_id)):
            with tempfile.TemporaryDirectory() as folder:
                self._client.download_artifacts(info.run_id, "", folder)
                files = dict(self._files(Path(folder)))
            assert files.keys() == {f"file {path}" for path in paths}
            yield from files.items()

    def _model(self, model: LoggedModel) -> Iterator[tuple[str, Any]]:
        yield "status", model.status
        yield "name", (model.name, model.model_type or None, model.source_run_id)  # servers say ""
        yield from self._values("param", model.params)
        yield from self._values("tag", model.tags)
        for metric in model.metrics or ():
            which = (metric.step, metric.run_id, metric.dataset_name, metric.dataset_digest)
            yield f"metric {metric.key} {which}", self._value(metric.key, metric.value)
        with tempfile.TemporaryDirectory() as folder:
            mlflow.artifacts.download_artifacts(
                model.artifact_location, dst_path=folder, tracking_uri=self._uri
            )
            yield from self._files(Path(folder))

    def _values(self, kind: str, values: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        for key, value in values.items():
            yield f"{kind} {key}", self._value(key, value)

    def _value(self, key: str, value: Any) -> Any:
        return "(varies)" if key in self._varying.values else value

    def _paths(self, run_id: str, folder: str | None = None) -> Iterator[str]:
        for file in self._client.list_artifacts(run_id, folder):
            if file.is_dir:
                yield from self._paths(run_id, file.path)
            else:
                yield file.path

    def _files(self, folder: Path) -> Iterator[tuple[str, str]]:
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            path = file.relative_to(folder).as_posix()
            yield f"file {path}", self._content(path, file.read_bytes())

    def _content(self, path: str, content: bytes) -> str:
        if re.search(self._varying.files, path):
            return "(varies)"
        try:
            return self._alike(content.decode())
        except UnicodeDecodeError:
            return f"{len(content)} bytes, {hashlib.sha256(content).hexdigest()}"

    def _alike(self, text: str) -> str:
        for one, name in self._ids.items():
            text = text.replace(one, name)
        return _OF_THE_DAY.sub(r"\1(varies)", text)
