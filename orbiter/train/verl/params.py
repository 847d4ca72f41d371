"""The settings of a training as one flat mapping."""

from typing import Any

from orbiter.train.verl.config import VeRLAlgorithm, VeRLConfig
from orbiter.train.verl.reward import RewardSpec

_ALWAYS = (
    "epochs",
    "batch_size",
    "learning_rate",
    "rollout_batch_size",
    "ppo_epochs",
    "kl_coeff",
    "clip_range",
    "gamma",
    "lam",
    "max_prompt_length",
    "max_response_length",
)
_UNLESS_EMPTY = ("model_name", "tokenizer_name", "output_dir")


def _build_verl_params(config: VeRLConfig, reward_spec: RewardSpec | None) -> dict[str, Any]:
    """The settings of a training as a mapping, without those that are empty.

    Args:
        config: of the training.
        reward_spec: becomes `reward_fn`, the name of a callable, or `reward_module` and
            `reward_func`.
    """
    params: dict[str, Any] = {"algorithm": VeRLAlgorithm(config.algorithm).value}
    params |= {name: getattr(config, name) for name in _ALWAYS}
    params |= {name: value for name in _UNLESS_EMPTY if (value := getattr(config, name))}
    if reward_spec is not None:
        params |= reward_spec.described()
    if config.extra:
        params["extra"] = config.extra
    return params
