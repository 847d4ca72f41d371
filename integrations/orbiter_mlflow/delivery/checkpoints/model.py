"""A checkpoint as a logged model of MLflow."""

from collections.abc import Sequence
from dataclasses import dataclass

from orbiter_mlflow.delivery.batches import MetricPoint


@dataclass(frozen=True, slots=True)
class CheckpointModel:
    """The logged model of a checkpoint.

    Attributes:
        manifest: path of the checkpoint's manifest among the artifacts of its run.
        step: the step that it holds.
        points: the metrics of the step, as the run has them.
    """

    manifest: str
    step: int
    points: Sequence[MetricPoint] = ()

    @property
    def name(self) -> str:
        """The name that the UI shows."""
        return f"step-{self.step}"
