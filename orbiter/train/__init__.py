"""The trainer contract: lifecycle, configuration and metrics. Imports neither mlflow nor numpy."""

from orbiter.train.trainer import (
    TrainConfig,
    Trainer,
    TrainerError,
    TrainerState,
    TrainMetrics,
)

__all__ = ["TrainConfig", "TrainMetrics", "Trainer", "TrainerError", "TrainerState"]
