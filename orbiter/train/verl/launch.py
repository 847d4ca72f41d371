"""The launch of verl: its files in the folder of the run, its command, its environment."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from orbiter.train.states import TrainerError
from orbiter.train.verl import fields
from orbiter.train.verl.config import VeRLAlgorithm

if TYPE_CHECKING:
    from omegaconf import DictConfig

INSIDE = "ORBITER_INSIDE_VERL"
"""Set in the processes of verl: a script that verl imports for its reward must not train again."""

_ENTRY_POINTS = {
    VeRLAlgorithm.SFT: "verl.trainer.sft_trainer",
    VeRLAlgorithm.GRPO: "verl.trainer.main_ppo",
    VeRLAlgorithm.PPO: "verl.trainer.main_ppo",
}
_OF_A_RANK = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_CPU_PLATFORM = "orbiter.train.verl.cpu_platform"
_CONFIG = "config"
Phase = Literal["train", "eval"]
_COMPLETIONS: Mapping[Phase, str] = {
    "eval": "trainer.validation_data_dir",
    "train": "trainer.rollout_data_dir",
}


@dataclass(frozen=True)
class LaunchPlan:
    """How verl is started.

    Attributes:
        command: the program and its arguments.
        environment: all of its environment variables.
        log: the file for what it prints.
        metrics: the file that verl writes its metrics to.
        completions: the folders that verl writes completions to, by phase; they may not exist yet.
        checkpoints: the folder that verl writes checkpoints to, which may not exist yet; None if
            they are not kept.
    """

    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    metrics: Path
    completions: Mapping[Phase, Path]
    checkpoints: Path | None = None


def plan_launch(
    algorithm: VeRLAlgorithm, tree: "DictConfig", folder: Path, environment: Mapping[str, str]
) -> LaunchPlan:
    """Write verl's config into the folder of the run, and say how to start verl with it.

    Args:
        algorithm: of the training.
        tree: verl's config; the names of files in the folder become paths here.
        folder: absolute; it has the data and the reward.
        environment: of this process.

    Raises:
        TrainerError: verl is to run on several machines, which takes one launch on each.
    """
    from omegaconf import OmegaConf

    if algorithm is VeRLAlgorithm.SFT and tree.trainer.nnodes != 1:
        raise TrainerError(
            f"trainer.nnodes={tree.trainer.nnodes}: sft runs on one machine here; start "
            "verl.trainer.sft_trainer by torchrun on each machine instead"
        )
    for name, value in _paths(tree, folder).items():
        OmegaConf.update(tree, name, value)
    metrics = folder / "metrics.jsonl"
    own = {"VERL_FILE_LOGGER_PATH": str(metrics), INSIDE: str(os.getpid())}
    if algorithm is not VeRLAlgorithm.SFT:  # workers on another machine of a Ray cluster, too
        for name, text in own.items():
            OmegaConf.update(
                tree, f"ray_kwargs.ray_init.runtime_env.env_vars.{name}", text, force_add=True
            )
    OmegaConf.save(tree, folder / f"{_CONFIG}.yaml", resolve=False)
    metrics.unlink(missing_ok=True)
    inherited = {name: text for name, text in environment.items() if name not in _OF_A_RANK}
    return LaunchPlan(
        command=[
            *(sys.executable, *_torchrun(algorithm, tree), "-m", _ENTRY_POINTS[algorithm]),
            *("--config-path", str(folder), "--config-name", _CONFIG),
            *(f"hydra.run.dir={_quoted(folder / 'hydra')}", "hydra.output_subdir=null"),
        ],
        environment=inherited
        | {"PYTHONUNBUFFERED": "1"}
        | own
        | (_on_cpu(environment) if tree.trainer.device == "cpu" else {}),
        log=folder / "verl.log",
        metrics=metrics,
        completions={
            phase: Path(written)
            for phase, name in _COMPLETIONS.items()
            if (written := OmegaConf.select(tree, name))
        },
        checkpoints=Path(tree.trainer.default_local_dir),
    )


def _torchrun(algorithm: VeRLAlgorithm, tree: "DictConfig") -> list[str]:
    if algorithm is not VeRLAlgorithm.SFT:
        return []
    count = str(tree.trainer.n_gpus_per_node)
    return ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", count]


def _paths(tree: "DictConfig", folder: Path) -> dict[str, str]:
    """The settings that name files in the folder of the run, and a local model, as full paths."""
    from omegaconf import OmegaConf

    in_folder = {
        "data.train_files": {fields.TRAIN_FILE},
        "data.val_files": {fields.TRAIN_FILE, fields.TEST_FILE},
        "trainer.default_local_dir": {fields.CHECKPOINTS},
        "trainer.validation_data_dir": {fields.VALIDATION},
        "reward.custom_reward_function.path": {fields.REWARD_FILE},
    }
    found = {}
    for name, ours in in_folder.items():
        value: Any = OmegaConf.select(tree, name)
        if value in ours:
            found[name] = str(folder / value)
    for name in _COMPLETIONS.values():
        value = OmegaConf.select(tree, name)
        if value and name not in found:
            found[name] = str(Path(value).resolve())
    for name in ("model.path", "actor_rollout_ref.model.path", "critic.model.path"):
        value = OmegaConf.select(tree, name)
        if value and Path(value).is_dir():
            found[name] = str(Path(value).resolve())
    return found


def _on_cpu(environment: Mapping[str, str]) -> dict[str, str]:
    modules = [environment.get("VERL_USE_EXTERNAL_MODULES", ""), _CPU_PLATFORM]
    return {
        "CUDA_VISIBLE_DEVICES": "",
        "VERL_ENGINE_DEVICE": "cuda",  # verl registers its engine under this name only
        "VERL_PLATFORM": "cpu",
        "VERL_USE_EXTERNAL_MODULES": ",".join(filter(None, modules)),
    }


def _quoted(path: Path) -> str:
    """A path as a value in hydra's grammar of overrides."""
    escaped = str(path).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
