"""A backend for verl: PPO, GRPO and supervised fine-tuning by verl's own entry points.

It composes verl's config from a `VeRLConfig`, starts verl in a process of its own, and reports its
metrics while they come in. verl itself is imported in that process only.
"""

from orbiter.train.verl.config import VeRLAlgorithm, VeRLConfig
from orbiter.train.verl.installation import _check_verl_available
from orbiter.train.verl.params import _build_verl_params
from orbiter.train.verl.reward import RewardSpec
from orbiter.train.verl.trainer import VeRLTrainer

__all__ = [
    "RewardSpec",
    "VeRLAlgorithm",
    "VeRLConfig",
    "VeRLTrainer",
    "_build_verl_params",
    "_check_verl_available",
]
