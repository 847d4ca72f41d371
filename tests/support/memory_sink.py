"""A tracking store in memory, a fake `Sink` for tests of delivery."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from orbiter_mlflow import names
from orbiter_mlflow.delivery.batches import MetricPoint
from orbiter_mlflow.delivery.checkpoints.model import CheckpointModel
from orbiter_mlflow.delivery.records import Artifact, Dataset, Head, Status, Update
from orbiter_mlflow.delivery.resumption.rewriting import RunContents, last_step, last_system_step
from orbiter_mlflow.delivery.rollout_traces import RolloutTrace
from orbiter_mlflow.errors import DeliveryError, HeldError
from orbiter_mlflow.text.packed_tags import unpacked


@dataclass
class MemoryRun:
    """One run in a `MemorySink`."""

    head: Head | None = None
    points: list[MetricPoint] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    datasets: list[Dataset] = field(default_factory=list)
    artifacts: dict[str, bytes] = field(default_factory=dict)
    traces: dict[str, RolloutTrace] = field(default_factory=dict)
    models: dict[str, CheckpointModel] = field(default_factory=dict)
    status: Status = field(default_factory=lambda: Status("RUNNING"))


@dataclass
class Trouble:
    """A failure of the next request of one kind.

    `committed`: the store did what was asked, and only its answer was lost.
    """

    error: DeliveryError
    method: str = "log_batch"
    committed: bool = False


class MemorySink:
    """A store that fails on demand.

    Attributes:
        runs: by run id.
        troubles: failures to come, first one first; each hits the next call of its method.
        calls: the methods called, in order.
    """

    def __init__(self) -> None:
        self.runs: dict[str, MemoryRun] = {}
        self.troubles: list[Trouble] = []
        self.calls: list[str] = []

    def create_run(self, head: Head) -> str:
        run_id = f"run{len(self.runs)}"
        with _Request(self, "create_run"):
            parent = {names.PARENT_RUN_ID: head.parent_run_id} if head.parent_run_id else {}
            self.runs[run_id] = MemoryRun(head, tags=head.tags | {names.UID: head.uid} | parent)
        return run_id

    def read_run(self, run_id: str) -> RunContents:
        with _Request(self, "read_run"):
            run = self._run(run_id)
            steps = [(point.key, point.step) for point in run.points]
            return RunContents(
                last_step(steps),
                dict(run.params),
                unpacked(run.tags),
                has_metrics=bool(run.points),
                status=run.status.status,
                last_system_step=last_system_step(steps),
            )

    def find_runs(self, head: Head) -> Sequence[str]:
        with _Request(self, "find_runs"):
            return [i for i, run in self.runs.items() if run.tags.get(names.UID) == head.uid]

    def find_runs_anywhere(self, uid: str) -> Sequence[str]:
        with _Request(self, "find_runs_anywhere"):
            return [i for i, run in self.runs.items() if run.tags.get(names.UID) == uid]

    def find_children(self, run_id: str) -> Mapping[str, str]:
        with _Request(self, "find_children"):
            return {
                run.tags[names.UID]: i
                for i, run in self.runs.items()
                if run.tags.get(names.PARENT_RUN_ID) == run_id
            }

    def log_batch(
        self,
        run_id: str,
        points: Sequence[MetricPoint],
        params: dict[str, str],
        tags: dict[str, str],
    ) -> None:
        with _Request(self, "log_batch"):
            run = self._run(run_id)
            run.points += points
            run.params |= params
            run.tags |= tags

    def delete_tags(self, run_id: str, tags: Collection[str]) -> None:
        with _Request(self, "delete_tags"):
            for tag in tags:
                self._run(run_id).tags.pop(tag, None)

    def log_dataset(self, run_id: str, dataset: Dataset) -> None:
        with _Request(self, "log_dataset"):
            self._run(run_id).datasets.append(dataset)

    def log_artifact(self, run_id: str, file: Path, artifact: Artifact) -> None:
        with _Request(self, "log_artifact"):
            name = "/".join(part for part in (artifact.folder, artifact.name) if part)
            self._run(run_id).artifacts[name] = file.read_bytes()

    def artifact_sizes(self, run_id: str, folder: str) -> dict[str, int]:
        with _Request(self, "artifact_sizes"):
            found = self._run(run_id).artifacts
            split = {path.rpartition("/")[::2]: len(content) for path, content in found.items()}
            return {name: size for (inside, name), size in split.items() if inside == folder}

    def read_artifact(self, run_id: str, path: str) -> bytes:
        with _Request(self, "read_artifact"):
            return self._run(run_id).artifacts[path]

    def delete_artifact(self, run_id: str, path: str) -> None:
        with _Request(self, "delete_artifact"):
            self._run(run_id).artifacts.pop(path, None)

    def log_model(self, run_id: str, model: CheckpointModel) -> None:
        with _Request(self, "log_model"):
            self._run(run_id).models[model.manifest] = model

    def delete_model(self, run_id: str, manifest: str) -> None:
        with _Request(self, "delete_model"):
            self._run(run_id).models.pop(manifest, None)

    def log_traces(self, run_id: str, traces: Sequence[RolloutTrace]) -> None:
        with _Request(self, "log_traces"):
            self._run(run_id).traces |= {trace.id: trace for trace in traces}

    def set_status(self, run_id: str, status: Status) -> None:
        with _Request(self, "set_status"):
            self._run(run_id).status = status

    def update_run(self, run_id: str, update: Update) -> None:
        with _Request(self, "update_run"):
            run = self._run(run_id)
            run.status = Status(
                update.status or run.status.status,
                run.status.end_time if update.end_time is None else update.end_time,
            )
            if update.name:
                run.tags[names.RUN_NAME] = update.name

    def delete_run(self, run_id: str) -> None:
        with _Request(self, "delete_run"):
            del self.runs[run_id]

    def _run(self, run_id: str) -> MemoryRun:
        if run_id not in self.runs:
            raise HeldError(f"run {run_id} does not exist")
        return self.runs[run_id]


class _Request:
    """One call: note it, and raise its trouble before or after it is carried out."""

    def __init__(self, sink: MemorySink, method: str) -> None:
        sink.calls.append(method)
        waiting = [trouble for trouble in sink.troubles if trouble.method == method]
        self._trouble = waiting[0] if waiting else None
        if self._trouble is not None:
            sink.troubles.remove(self._trouble)

    def __enter__(self) -> None:
        if self._trouble is not None and not self._trouble.committed:
            raise self._trouble.error

    def __exit__(self, *_: object) -> None:
        if self._trouble is not None and self._trouble.committed:
            raise self._trouble.error
