"""The settings of a training by verl."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

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
        gamma: discount of later rewards.
        lam: lambda of generalized advantage estimation; for PPO.
        model_name: name or path of the model; by default the agent, if that is one.
        tokenizer_name: name or path of the tokenizer; by default that of the model.
        max_prompt_length: in tokens.
        max_response_length: in tokens; `sft` limits prompt and answer to the sum of the two.
        rewards: the reward function's name with the digest of its source, which `mark_validated`
            fills in, so that two runs with different rewards differ in a param.
        composed: all of verl's settings that this config leads to, which `mark_validated` fills
            in. They are a record: what stands here before is replaced.

    Raises:
        ValueError: for a value out of range; it names the field.
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
        for name in ("rollout_batch_size", "ppo_epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)!r}: expected at least 1")
        if not 0 <= self.clip_range <= 1:
            raise ValueError(f"clip_range={self.clip_range!r}: expected a number from 0 to 1")
