"""Which of verl's own settings the fields of a `VeRLConfig` decide, and which follow from them."""

from collections.abc import Mapping
from typing import Any

from orbiter.train.verl.config import VeRLAlgorithm, VeRLConfig

TRAIN_FILE, TEST_FILE, REWARD_FILE = "train.parquet", "test.parquet", "reward.py"
CHECKPOINTS, VALIDATION = "checkpoints", "validation"
"""Names in the folder of a run, which `composed` has without that folder."""

REWARD_NAME = "reward"
FILE_LOGGER = "file"
"""verl's logger that metrics are read from."""

_LOGGERS = ["console", FILE_LOGGER]
_ALL = ["model", "optimizer", "extra"]
"""What is loaded from a checkpoint; by default verl loads what it saves."""

_SFT = {
    "epochs": "trainer.total_epochs",
    "batch_size": "data.train_batch_size",
    "learning_rate": "optim.lr",
    "model_name": "model.path",
    "tokenizer_name": "model.tokenizer_path",
}
_RL = {
    "epochs": "trainer.total_epochs",
    "batch_size": "data.train_batch_size",
    "learning_rate": "actor_rollout_ref.actor.optim.lr",
    "model_name": "actor_rollout_ref.model.path",
    "tokenizer_name": "actor_rollout_ref.model.tokenizer_path",
    "rollout_batch_size": "actor_rollout_ref.rollout.n",
    "ppo_epochs": "actor_rollout_ref.actor.ppo_epochs",
    "clip_range": "actor_rollout_ref.actor.clip_ratio",
    "gamma": "algorithm.gamma",
    "lam": "algorithm.lam",
    "max_prompt_length": "data.max_prompt_length",
    "max_response_length": "data.max_response_length",
}
_LEAVES: Mapping[VeRLAlgorithm, Mapping[str, str]] = {
    VeRLAlgorithm.SFT: _SFT,
    VeRLAlgorithm.GRPO: _RL | {"kl_coeff": "actor_rollout_ref.actor.kl_loss_coef"},
    VeRLAlgorithm.PPO: _RL | {"kl_coeff": "algorithm.kl_ctrl.kl_coef"},
}
"""Field -> the one setting of verl that has the same meaning."""

_ON_CPU = {
    "data.num_workers": 0,
    "data.pad_mode": "no_padding",
    "engine.strategy": "fsdp2",
    "engine.dtype": "float32",
    "engine.model_dtype": "fp32",
    "engine.use_torch_compile": False,
    "model.override_config.attn_implementation": "eager",
    "model.use_remove_padding": False,
}
"""What `sft` needs on a machine without a GPU."""


def settings_of(
    config: VeRLConfig, *, rows: int, tested: bool, rewarded: bool, saved: bool, device: str
) -> dict[str, Any]:
    """The settings of verl, by dotted names, that follow from a config and its data.

    Args:
        config: of the training.
        rows: of the training data.
        tested: whether there are test data: then verl validates before RL, and after each epoch.
        rewarded: whether there is a reward function.
        saved: whether checkpoints are kept.
        device: where verl is to run.
    """
    settings = {leaf: getattr(config, field) for field, leaf in _LEAVES[config.algorithm].items()}
    settings = {leaf: value for leaf, value in settings.items() if value != ""}
    each_epoch = max(1, rows // max(1, config.batch_size))
    settings |= {
        "data.train_files": TRAIN_FILE,
        "data.val_files": TEST_FILE if tested else None,
        "trainer.default_local_dir": CHECKPOINTS,
        "trainer.device": device,
        "trainer.experiment_name": config.algorithm.value,
        "trainer.logger": _LOGGERS,
        "trainer.project_name": "orbiter",
        "trainer.test_freq": each_epoch if tested else -1,
    }
    longest = config.max_prompt_length + config.max_response_length
    if config.algorithm is VeRLAlgorithm.SFT:
        settings |= {
            "data.max_length": longest,
            "data.max_token_len_per_gpu": max(8192, longest),
        }
        if not saved:  # verl always saves at the end
            settings |= {"checkpoint.save_contents": [], "checkpoint.load_contents": _ALL}
        return settings | (_ON_CPU if device == "cpu" else {})
    settings["actor_rollout_ref.actor.ppo_max_token_len_per_gpu"] = max(16384, longest)
    settings["trainer.save_freq"] = each_epoch if saved else -1
    return settings | _reinforced(config, tested, rewarded)


def _reinforced(config: VeRLConfig, tested: bool, rewarded: bool) -> dict[str, Any]:
    grpo = config.algorithm is VeRLAlgorithm.GRPO
    settings = {
        "algorithm.adv_estimator": "grpo" if grpo else "gae",
        "actor_rollout_ref.actor.clip_ratio_low": config.clip_range,
        "actor_rollout_ref.actor.clip_ratio_high": config.clip_range,
        "actor_rollout_ref.actor.ppo_mini_batch_size": config.batch_size,
        "actor_rollout_ref.actor.use_dynamic_bsz": True,
        "actor_rollout_ref.rollout.name": "vllm",
        "actor_rollout_ref.rollout.tensor_model_parallel_size": 1,
        "data.val_files": TEST_FILE if tested else TRAIN_FILE,  # verl requires some
        "trainer.n_gpus_per_node": 1,
        "trainer.val_before_train": tested,
        "trainer.validation_data_dir": VALIDATION if tested else None,
    }
    if grpo:
        settings["actor_rollout_ref.actor.use_kl_loss"] = config.kl_coeff > 0
    else:
        settings["algorithm.use_kl_in_reward"] = config.kl_coeff > 0
        if config.model_name:
            settings["critic.model.path"] = config.model_name
    if rewarded:
        settings["reward.custom_reward_function.path"] = REWARD_FILE
        settings["reward.custom_reward_function.name"] = REWARD_NAME
    return settings


def fields_of(algorithm: VeRLAlgorithm, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that overrides of verl's settings decide, with their values."""
    return {
        field: "" if overrides[leaf] is None else overrides[leaf]
        for field, leaf in _LEAVES[algorithm].items()
        if leaf in overrides
    }
