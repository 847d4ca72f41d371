"""The settings of the reference backend, and which values they may have."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from reprlib import repr as shortened
from typing import Any

from orbiter.train.states import TrainerError
from orbiter.train.trainer import TrainConfig


@dataclass(slots=True)
class PolicyGradientConfig(TrainConfig):
    """How to train a policy by REINFORCE. `extra` is free for the user; `output_dir` is not used.

    Attributes:
        epochs: passes over the training data, at least 1.
        batch_size: rows to an optimizer step, at least 1; the last step of an epoch may have fewer.
        learning_rate: length of an optimizer step, in units of the gradient; above 0.
        seed: of the order of rows and of the actions sampled; at least 0.
        entropy_coef: weight of the policy's entropy in the objective, at least 0; 0 turns it off.
        max_grad_norm: gradients longer than this are scaled down to it; above 0, None for never.
        weight_decay: share of the weights (not the bias) that a step of length 1 takes away, at
            least 0. Decoupled from the loss: I. Loshchilov and F. Hutter (2019), "Decoupled weight
            decay regularization", arXiv:1711.05101. Past `learning_rate * weight_decay = 2` the
            weights grow without bound.
        baseline_decay: share of the reward baseline that each step keeps; from 0 to below 1.
        report_every: optimizer steps to a point of the progress curve, at least 1.
    """

    epochs: int = 40
    batch_size: int = 32
    learning_rate: float = 0.5
    seed: int = 0
    entropy_coef: float = 0.1
    max_grad_norm: float | None = 1.0
    weight_decay: float = 0.0
    baseline_decay: float = 0.9
    report_every: int = 10


def _is_int(value: Any, least: int) -> bool:
    return not isinstance(value, bool) and isinstance(value, Integral) and int(value) >= least


def _is_real(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an int past what a float can hold
        return False


_SETTINGS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "epochs": (lambda value: _is_int(value, 1), "an int of at least 1"),
    "batch_size": (lambda value: _is_int(value, 1), "an int of at least 1"),
    "learning_rate": (lambda value: _is_real(value) and value > 0, "a finite number above 0"),
    "output_dir": (lambda value: isinstance(value, str), "a str"),
    "extra": (lambda value: isinstance(value, dict), "a dict"),
    "seed": (lambda value: _is_int(value, 0), "an int of at least 0"),
    "entropy_coef": (lambda value: _is_real(value) and value >= 0, "a finite number of at least 0"),
    "weight_decay": (lambda value: _is_real(value) and value >= 0, "a finite number of at least 0"),
    "max_grad_norm": (
        lambda value: value is None or (_is_real(value) and value > 0),
        "a finite number above 0, or None for no clipping",
    ),
    "baseline_decay": (
        lambda value: _is_real(value) and 0 <= value < 1,
        "a number from 0 to below 1",
    ),
    "report_every": (lambda value: _is_int(value, 1), "an int of at least 1"),
}
"""For each setting: whether a value will do, and what is wanted."""


def checked(config: Any) -> PolicyGradientConfig:
    """The config as it is, if it will do.

    Raises:
        TrainerError: for another type, or a value out of range.
    """
    if not isinstance(config, PolicyGradientConfig):
        raise TrainerError(
            f"config={shortened(config)} ({type(config).__name__}): wanted a PolicyGradientConfig, "
            "a mapping of its fields for check_config, or None"
        )
    for name, (will_do, wanted) in _SETTINGS.items():
        value = getattr(config, name)
        if not will_do(value):
            raise TrainerError(f"config {name}={shortened(value)}: wanted {wanted}")
    return config
