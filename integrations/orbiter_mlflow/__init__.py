"""Track Orbiter trainers in MLflow: never slows training, never crashes it, never loses a point."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orbiter_mlflow.config.codec.config_error import ConfigError
    from orbiter_mlflow.config.encoding import config_from_params, config_to_params
    from orbiter_mlflow.config.text import config_from_text
    from orbiter_mlflow.mixin import MLflowTrainerMixin, TrackingError
    from orbiter_mlflow.runs.load_config import load_config
    from orbiter_mlflow.settings import MLflowSettings

__all__ = [
    "ConfigError",
    "MLflowSettings",
    "MLflowTrainerMixin",
    "TrackingError",
    "config_from_params",
    "config_from_text",
    "config_to_params",
    "load_config",
]

_HOMES = {
    "ConfigError": "config.codec.config_error",
    "MLflowSettings": "settings",
    "MLflowTrainerMixin": "mixin",
    "TrackingError": "mixin",
    "config_from_params": "config.encoding",
    "config_from_text": "config.text",
    "config_to_params": "config.encoding",
    "load_config": "runs.load_config",
}


def __getattr__(name: str) -> Any:
    """Load what is asked for when it is: `delivery` alone needs none of the rest."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
