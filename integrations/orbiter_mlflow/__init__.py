"""Track Orbiter trainers in MLflow: never slows training, never crashes it, never loses a point."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orbiter_mlflow.config.encoding import config_from_params, config_to_params
    from orbiter_mlflow.config.text import config_from_text
    from orbiter_mlflow.errors import (
        BlessError,
        CannotCompareError,
        ConfigError,
        DamagedLineError,
        DeliveryError,
        FilterError,
        GateError,
        GitError,
        GitHubError,
        GpuError,
        HeldError,
        JournalError,
        OrbiterMLflowError,
        PolicyError,
        ProvenanceError,
        RejectedError,
        ReportFileError,
        RunNotFoundError,
        StoreError,
        SweepError,
        TrackingError,
        TransientError,
        UnknownFormatError,
        UnreadableError,
        UnsupportedError,
    )
    from orbiter_mlflow.mixin import MLflowTrainerMixin
    from orbiter_mlflow.runs.checkpoints import newest_checkpoint
    from orbiter_mlflow.runs.load_config import load_config
    from orbiter_mlflow.settings import MLflowSettings
    from orbiter_mlflow.tracking.sweeps.sweep import Sweep

__all__ = [
    "BlessError",
    "CannotCompareError",
    "ConfigError",
    "DamagedLineError",
    "DeliveryError",
    "FilterError",
    "GateError",
    "GitError",
    "GitHubError",
    "GpuError",
    "HeldError",
    "JournalError",
    "MLflowSettings",
    "MLflowTrainerMixin",
    "OrbiterMLflowError",
    "PolicyError",
    "ProvenanceError",
    "RejectedError",
    "ReportFileError",
    "RunNotFoundError",
    "StoreError",
    "Sweep",
    "SweepError",
    "TrackingError",
    "TransientError",
    "UnknownFormatError",
    "UnreadableError",
    "UnsupportedError",
    "config_from_params",
    "config_from_text",
    "config_to_params",
    "load_config",
    "newest_checkpoint",
]

_HOMES = {
    "MLflowSettings": "settings",
    "MLflowTrainerMixin": "mixin",
    "Sweep": "tracking.sweeps.sweep",
    "config_from_params": "config.encoding",
    "config_from_text": "config.text",
    "config_to_params": "config.encoding",
    "load_config": "runs.load_config",
    "newest_checkpoint": "runs.checkpoints",
}
"""Where the public names are defined; all others are in `errors`."""


def __getattr__(name: str) -> Any:
    """Load a public name at its first use: `delivery` alone needs none of the rest."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
