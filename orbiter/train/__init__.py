"""The trainer contract: lifecycle, config, metrics, rollouts. Imports neither mlflow nor numpy.

`states` holds the lifecycle as tables, `hooks` the interface for integrations. The names of the
backends are loaded when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from orbiter.train.metrics import TrainMetrics
from orbiter.train.rollouts import Rollout
from orbiter.train.states import TrainerError, TrainerState
from orbiter.train.trainer import TrainConfig, Trainer

if TYPE_CHECKING:
    from orbiter.train.trl import TRLConfig, TRLTrainer
    from orbiter.train.verl import RewardSpec, VeRLAlgorithm, VeRLConfig, VeRLTrainer

__all__ = [
    "RewardSpec",
    "Rollout",
    "TRLConfig",
    "TRLTrainer",
    "TrainConfig",
    "TrainMetrics",
    "Trainer",
    "TrainerError",
    "TrainerState",
    "VeRLAlgorithm",
    "VeRLConfig",
    "VeRLTrainer",
]

_BACKENDS = {
    "RewardSpec": "orbiter.train.verl",
    "TRLConfig": "orbiter.train.trl",
    "TRLTrainer": "orbiter.train.trl",
    "VeRLAlgorithm": "orbiter.train.verl",
    "VeRLConfig": "orbiter.train.verl",
    "VeRLTrainer": "orbiter.train.verl",
}
"""Name -> the package of the backend that defines it."""


def __getattr__(name: str) -> Any:
    if name not in _BACKENDS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_BACKENDS[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_BACKENDS})
