"""The trainer contract: lifecycle, configuration and metrics. Imports neither mlflow nor numpy.

`states` holds the lifecycle as tables, `hooks` the interface for integrations.
"""

from orbiter.train.metrics import TrainMetrics
from orbiter.train.states import TrainerError, TrainerState
from orbiter.train.trainer import TrainConfig, Trainer

__all__ = ["TrainConfig", "TrainMetrics", "Trainer", "TrainerError", "TrainerState"]
