"""Track Orbiter trainers in MLflow: never slows training, never crashes it, never loses a point."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orbiter_mlflow.codec.config_error import ConfigError
    from orbiter_mlflow.config_text import config_from_text
    from orbiter_mlflow.mixin import MLflowTrainerMixin, TrackingError
    from orbiter_mlflow.params import config_from_params, config_to_params
    from orbiter_mlflow.reproduce import load_config
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
    "ConfigError": "codec.config_error",
    "MLflowSettings": "settings",
    "MLflowTrainerMixin": "mixin",
    "TrackingError": "mixin",
    "config_from_params": "params",
    "config_from_text": "config_text",
    "config_to_params": "params",
    "load_config": "reproduce",
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
