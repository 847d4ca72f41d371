"""The trainer contract: lifecycle, config, metrics, rollouts. Imports neither mlflow nor numpy.

`states` holds the lifecycle as tables, `hooks` the interface for integrations.
"""

from orbiter.train.metrics import TrainMetrics
from orbiter.train.rollouts import Rollout
from orbiter.train.states import TrainerError, TrainerState
from orbiter.train.trainer import TrainConfig, Trainer

__all__ = ["Rollout", "TrainConfig", "TrainMetrics", "Trainer", "TrainerError", "TrainerState"]
