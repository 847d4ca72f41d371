"""Let verl itself read what the verl backend has written for it, and write what that reads.

    python verl_reads.py FOLDER ...

prints, for each folder, what verl made of its config, data and reward, as a line of JSON.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf
from transformers import AutoTokenizer
from verl.trainer.ppo.ray_trainer import RayPPOTrainer
from verl.trainer.ppo.reward import get_custom_reward_fn
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import omega_conf_to_dataclass, validate_config
from verl.utils.dataset.rl_dataset import RLHFDataset
from verl.utils.tracking import FileLogger

from orbiter.train.verl.completions_log import CompletionsLog
from orbiter.train.verl.metrics_log import MetricsLog


def read(folder: Path) -> dict[str, Any]:
    """What verl makes of config, data and reward."""
    config = OmegaConf.load(folder / "config.yaml")
    critic, reference = need_critic(config), need_reference_policy(config)
    validate_config(config=config, use_reference_policy=reference, use_critic=critic)
    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    rollout = omega_conf_to_dataclass(config.actor_rollout_ref.rollout)
    tokenizer = AutoTokenizer.from_pretrained(config.actor_rollout_ref.model.path)
    data = RLHFDataset(config.data.train_files, tokenizer, config.data)
    reward = get_custom_reward_fn(config)
    row = data[0]
    score = reward(
        data_source=row["data_source"],
        solution_str=row["reward_model"]["ground_truth"],
        ground_truth=row["reward_model"]["ground_truth"],
        extra_info=row["extra_info"],
    )
    return {
        "critic": critic,
        "reference": reference,
        "lr": actor.optim.lr,
        "clip": [actor.clip_ratio, actor.clip_ratio_low, actor.clip_ratio_high],
        "n": rollout.n,
        "engine": rollout.name,
        "rows": len(data),
        "prompt": list(row["raw_prompt"]),
        "score": score,
    }


def write(folder: Path) -> dict[str, Any]:
    """What the backend reads of metrics and completions that verl writes."""
    os.environ["VERL_FILE_LOGGER_PATH"] = str(folder / "metrics.jsonl")
    log = MetricsLog(folder / "metrics.jsonl")
    logger = FileLogger("project", "experiment")
    logger.log({"train/loss": np.float32(1.5), "actor/entropy": float("nan")}, 1)
    logger.log({"val/loss": 2.5}, 1)
    seen = [list(entry) for entry in log.read()]
    resumed = FileLogger("project", "experiment")
    resumed.log({"train/loss": 0.5, "val-core/orbiter/reward/mean@1": 0.25}, 2)
    seen += [list(entry) for entry in log.read()]
    validation = CompletionsLog(folder / "validation")
    writer = RayPPOTrainer._write_generations
    said = {"acc": [np.float64(1.0)], "uid": ["u"]}
    writer(["1+1"], ["2"], ["2"], [1.0], said, str(folder / "validation"), 3)
    ((step, (rollout,)),) = validation.read(reached=3, ended=True)
    return {
        "entries": seen,
        "step": step,
        "rollout": [rollout.prompt, rollout.completion, rollout.rewards, rollout.extra],
    }


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(json.dumps(read(Path(name)) | write(Path(name))))
