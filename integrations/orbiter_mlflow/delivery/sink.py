"""A tracking store as delivery needs it: what `MLflowSink` is for MLflow, and `MemorySink` for
tests."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Protocol

from orbiter_mlflow.delivery.batches import Point
from orbiter_mlflow.delivery.records import Artifact, Dataset, Head, Status
from orbiter_mlflow.delivery.resumption import Earlier


class Sink(Protocol):
    """A tracking store, as the drain needs it. Every method may raise a `DeliveryError`."""

    def create_run(self, head: Head) -> str: ...
    def read_run(self, run_id: str) -> Earlier:
        """What a run holds by now; a `HeldError` where there is no such run."""

    def find_runs(self, head: Head) -> Sequence[str]:
        """The runs that carry the head's uid."""

    def delivered(self, run_id: str) -> str:
        """The run's tag `names.DELIVERED`; empty where there is none."""

    def log_batch(
        self, run_id: str, points: Sequence[Point], params: dict[str, str], tags: dict[str, str]
    ) -> None: ...
    def delete_tags(self, run_id: str, tags: Collection[str]) -> None:
        """Delete those of the tags that are there."""

    def log_dataset(self, run_id: str, dataset: Dataset) -> None: ...
    def log_artifact(self, run_id: str, file: Path, artifact: Artifact) -> None: ...
    def set_status(self, run_id: str, status: Status) -> None: ...
    def delete_run(self, run_id: str) -> None: ...
