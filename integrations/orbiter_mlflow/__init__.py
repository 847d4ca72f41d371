"""Track Orbiter trainers in MLflow: never slows training, never crashes it, never loses a point."""

from orbiter_mlflow.mixin import MLflowTrainerMixin, TrackingError
from orbiter_mlflow.params import ConfigError, config_from_params, config_to_params
from orbiter_mlflow.settings import MLflowSettings

__all__ = [
    "ConfigError",
    "MLflowSettings",
    "MLflowTrainerMixin",
    "TrackingError",
    "config_from_params",
    "config_to_params",
]
