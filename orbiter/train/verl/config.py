"""The settings of a training by verl."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from numbers import Integral, Real
from reprlib import repr as shortened
from typing import Any

from orbiter.train.legal_values import ABOVE_0, INT_FROM_1, NUMBER_FROM_0, Rule
from orbiter.train.states import TrainerError
from orbiter.train.trainer import TrainConfig


class VeRLAlgorithm(StrEnum):
    """What verl runs."""

    PPO = "ppo"
    GRPO = "grpo"
    SFT = "sft"


@dataclass(slots=True)
class VeRLConfig(TrainConfig):
    """The settings of a training by verl; `extra["verl"]` overrides any setting of verl's own.

    `extra["verl"]` is a mapping by dotted names or nested: `{"trainer.test_freq": 5}` and
    `{"trainer": {"test_freq": 5}}` are the same. It wins over the fields, which then take its
    values.

    Attributes:
        batch_size: rows to an optimizer step, verl's `data.train_batch_size`.
        output_dir: the folder for data, log, metrics and checkpoints. Without one they are in a
            temporary folder that is removed at the end, and so is the trained model.
        algorithm: `ppo` and `grpo` run `verl.trainer.main_ppo`, `sft` runs
            `verl.trainer.sft_trainer`.
        rollout_batch_size: completions to a prompt, at least 1. GRPO needs 2 or more.
        ppo_epochs: optimizer passes over each batch of rollouts, at least 1.
        kl_coeff: weight of the KL divergence from the reference model: in the loss for GRPO, in the
            reward for PPO. 0 turns it off.
        clip_range: how far the ratio of new to old probabilities may leave 1; from 0 to 1.
        gamma: discount of later rewards, from 0 to 1.
        lam: lambda of generalized advantage estimation, from 0 to 1; for PPO.
        model_name: name or path of the model; by default the agent, if that is one.
        tokenizer_name: name or path of the tokenizer; by default that of the model.
        max_prompt_length: in tokens.
        max_response_length: in tokens; `sft` limits prompt and answer to the sum of the two.
        rewards: the reward function's name with the digest of its source, which `mark_validated`
            fills in, so that two runs with different rewards differ in a param.
        composed: all of verl's settings that this config leads to, which `mark_validated` fills
            in. They are a record: what stands here before is replaced.

    Raises:
        ValueError: for a value of another type, and for `rollout_batch_size`, `ppo_epochs` or
            `clip_range` out of range; it names the field. Other values are checked by the trainer.
    """

    algorithm: VeRLAlgorithm = VeRLAlgorithm.GRPO
    rollout_batch_size: int = 4
    ppo_epochs: int = 4
    kl_coeff: float = 0.1
    clip_range: float = 0.2
    gamma: float = 1.0
    lam: float = 0.95
    model_name: str = ""
    tokenizer_name: str = ""
    max_prompt_length: int = 1024
    max_response_length: int = 512
    rewards: dict[str, str] = field(default_factory=dict)
    composed: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.algorithm = VeRLAlgorithm(self.algorithm)
        for name, kind in _KINDS.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, kind):
                raise ValueError(f"{name}={shortened(value)}: expected {_KIND_NAMES[kind]}")
        for name in ("rollout_batch_size", "ppo_epochs", "clip_range"):
            _require_legal(self, name)


_KINDS: Mapping[str, type] = {
    **dict.fromkeys(("epochs", "batch_size", "rollout_batch_size", "ppo_epochs"), Integral),
    **dict.fromkeys(("max_prompt_length", "max_response_length"), Integral),
    **dict.fromkeys(("learning_rate", "kl_coeff", "clip_range", "gamma", "lam"), Real),
    **dict.fromkeys(("output_dir", "model_name", "tokenizer_name"), str),
    **dict.fromkeys(("extra", "rewards", "composed"), dict),
}
_KIND_NAMES: Mapping[type, str] = {
    Integral: "an int",
    Real: "a number",
    str: "a str",
    dict: "a dict",
}

_SHARE: Rule = (lambda value: 0 <= value <= 1, "a number from 0 to 1")

_RULES: Mapping[str, Rule] = {
    "epochs": INT_FROM_1,
    "batch_size": INT_FROM_1,
    "learning_rate": ABOVE_0,
    "rollout_batch_size": INT_FROM_1,
    "ppo_epochs": INT_FROM_1,
    "kl_coeff": NUMBER_FROM_0,
    "clip_range": _SHARE,
    "gamma": _SHARE,
    "lam": _SHARE,
    "max_prompt_length": INT_FROM_1,
    "max_response_length": INT_FROM_1,
}
"""Setting -> a test for legal values of its kind, and their description."""


def _require_legal(config: VeRLConfig, name: str) -> None:
    """Require a setting with a legal value.

    Raises:
        ValueError: naming the field.
    """
    is_legal, expected = _RULES[name]
    value = getattr(config, name)
    if not is_legal(value):
        raise ValueError(f"{name}={shortened(value)}: expected {expected}")


def checked(config: VeRLConfig, **changes: Any) -> VeRLConfig:
    """A copy of the config with changes, if all its values are legal; fields may have been set.

    Raises:
        TrainerError: naming the first bad field.
    """
    try:
        config = replace(config, **changes)
        for name in _RULES:
            _require_legal(config, name)
    except ValueError as error:
        raise TrainerError(f"the config has a bad value: {error}") from error
    if config.algorithm is VeRLAlgorithm.GRPO and config.rollout_batch_size < 2:
        raise TrainerError(
            f"the config has a bad value: rollout_batch_size={config.rollout_batch_size}: grpo "
            "compares the completions to a prompt, expected at least 2"
        )
    return config
