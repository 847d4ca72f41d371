"""The tracking store as delivery sees it: `MLflowSink` implements it, and tests use a fake."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from orbiter_mlflow.delivery.batches import MetricPoint
from orbiter_mlflow.delivery.checkpoints.model import CheckpointModel
from orbiter_mlflow.delivery.records import Artifact, Dataset, Head, Status, Update
from orbiter_mlflow.delivery.resumption.rewriting import RunContents
from orbiter_mlflow.delivery.rollout_traces import RolloutTrace


class Sink(Protocol):
    """A tracking store.

    Every method sends one or a few requests and returns once the store has answered. Each may raise
    a `DeliveryError`, whose class says what the drain does next: retry (`TransientError`), retry
    and then quarantine (`RejectedError`), skip (`UnsupportedError`), or hold (`HeldError`), which
    is also raised for a run that does not exist.
    """

    def create_run(self, head: Head) -> str:
        """Create the run of a head, with its tags and its uid as a tag; return the run id."""

    def read_run(self, run_id: str) -> RunContents:
        """Read the params, the tags, the status and the last step of a run."""

    def find_runs(self, head: Head) -> Sequence[str]:
        """Find the runs in the head's experiment that carry its uid, oldest first."""

    def find_runs_anywhere(self, uid: str) -> Sequence[str]:
        """Find the runs of any experiment that carry a uid, oldest first."""

    def find_children(self, run_id: str) -> Mapping[str, str]:
        """The runs of its experiment that are nested under a run: uid -> run id."""

    def log_batch(
        self,
        run_id: str,
        points: Sequence[MetricPoint],
        params: dict[str, str],
        tags: dict[str, str],
    ) -> None:
        """Log a batch within MLflow's limits. A failed batch may be committed in part."""

    def delete_tags(self, run_id: str, tags: Collection[str]) -> None:
        """Delete those of the tags that the run has."""

    def log_dataset(self, run_id: str, dataset: Dataset) -> None:
        """Log a dataset input; doing it twice is harmless."""

    def log_artifact(self, run_id: str, file: Path, artifact: Artifact) -> None:
        """Upload `file` under the name and into the folder of `artifact`."""

    def artifact_sizes(self, run_id: str, folder: str) -> dict[str, int]:
        """The files in a folder of the run's artifacts: name -> bytes."""

    def read_artifact(self, run_id: str, path: str) -> bytes:
        """The content of a small artifact."""

    def delete_artifact(self, run_id: str, path: str) -> None:
        """Delete an artifact, if it is there."""

    def log_model(self, run_id: str, model: CheckpointModel) -> None:
        """Log a checkpoint as a model of the run; doing it twice is harmless."""

    def delete_model(self, run_id: str, manifest: str) -> None:
        """Delete the model of a checkpoint, if there is one."""

    def log_traces(self, run_id: str, traces: Sequence[RolloutTrace]) -> None:
        """Log the traces of rollouts, linked to the run; doing it twice is harmless."""

    def set_status(self, run_id: str, status: Status) -> None:
        """Set the status of a run, and its end time if it has ended."""

    def update_run(self, run_id: str, update: Update) -> None:
        """Set status, end time and name of a run as MLflow's `update_run_info` does; what is None
        stays."""

    def delete_run(self, run_id: str) -> None:
        """Delete a run."""
