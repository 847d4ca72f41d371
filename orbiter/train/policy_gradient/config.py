"""The settings of the reference backend and their legal values."""

from collections.abc import Mapping
from dataclasses import dataclass
from reprlib import repr as shortened
from typing import Any

from orbiter.train.legal_values import (
    A_DICT,
    A_STR,
    ABOVE_0,
    INT_FROM_0,
    INT_FROM_1,
    NUMBER_FROM_0,
    Rule,
    is_real,
    or_none,
    require_legal,
)
from orbiter.train.states import TrainerError
from orbiter.train.trainer import TrainConfig


@dataclass(slots=True)
class PolicyGradientConfig(TrainConfig):
    """Settings of a REINFORCE training. `extra` is free for the user; `output_dir` is not used.

    Attributes:
        epochs: passes over the training data, at least 1.
        batch_size: rows to an optimizer step, at least 1; the last step of an epoch may have fewer.
        learning_rate: length of an optimizer step, in units of the gradient; above 0.
        seed: for the order of rows and the sampled actions; at least 0.
        entropy_coef: weight of the policy's entropy in the objective, at least 0; 0 turns it off.
        max_grad_norm: longer gradients are scaled down to this; above 0, None for no clipping.
        weight_decay: share of the weights (not the bias) that a step of length 1 removes, at
            least 0. Decoupled from the loss: I. Loshchilov and F. Hutter (2019), "Decoupled weight
            decay regularization", arXiv:1711.05101. Past `learning_rate * weight_decay = 2` the
            weights grow without bound.
        baseline_decay: share of the reward baseline that each step keeps; from 0 to below 1.
        report_every: optimizer steps from one report to the next, at least 1.
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


_RULES: Mapping[str, Rule] = {
    "epochs": INT_FROM_1,
    "batch_size": INT_FROM_1,
    "learning_rate": ABOVE_0,
    "output_dir": A_STR,
    "extra": A_DICT,
    "seed": INT_FROM_0,
    "entropy_coef": NUMBER_FROM_0,
    "weight_decay": NUMBER_FROM_0,
    "max_grad_norm": or_none(ABOVE_0, "no clipping"),
    "baseline_decay": (
        lambda value: is_real(value) and 0 <= value < 1,
        "a number from 0 to below 1",
    ),
    "report_every": INT_FROM_1,
}


def checked(config: Any) -> PolicyGradientConfig:
    """Return the config if all its values are legal.

    Raises:
        TrainerError: for another type, or a value out of range.
    """
    if not isinstance(config, PolicyGradientConfig):
        raise TrainerError(
            f"config={shortened(config)} ({type(config).__name__}): "
            "expected a PolicyGradientConfig, a mapping of its fields for check_config, or None"
        )
    require_legal(config, _RULES)
    return config
