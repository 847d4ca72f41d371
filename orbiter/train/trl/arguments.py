"""TRL's own config for a training, made from ours; needs TRL."""

import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from importlib.metadata import version
from typing import Any

from orbiter.train.states import TrainerError
from orbiter.train.trl.config import ONLY_FOR, Method, TRLConfig

__all__ = ["lora_config", "require_arguments", "require_trl", "trl_arguments"]

_CLASSES: Mapping[Method, str] = {
    "sft": "SFTConfig",
    "dpo": "DPOConfig",
    "grpo": "GRPOConfig",
    "reward": "RewardConfig",
}
_SAME = ("learning_rate", "seed", "max_steps", "gradient_accumulation_steps", "logging_steps")
"""Fields that every method has, and TRL calls the same."""
_OURS: Mapping[str, str] = {
    "num_train_epochs": "epochs",
    "per_device_train_batch_size": "batch_size",
    "output_dir": "output_dir",
    "eval_steps": "eval_steps",
    "save_steps": "save_steps",
    **{name: name for name in (*_SAME, *ONLY_FOR)},
}
"""Names in TRL that have a field of ours."""


def require_trl() -> None:
    """Require that TRL can be imported.

    Raises:
        TrainerError: it is not installed.
    """
    if importlib.util.find_spec("trl") is None:
        raise TrainerError("TRL is required: pip install 'orbiter[trl]'")


def require_arguments(config: TRLConfig) -> None:
    """Check `args` and `lora` against the classes that they are for.

    Raises:
        TrainerError: naming the first setting that the class does not have, or that is set twice.
    """
    if config.args:
        import trl

        kind = getattr(trl, _CLASSES[config.method])
        for name in config.args:
            if name in _OURS:
                ours = f"{type(config).__name__}.{_OURS[name]}"
                raise TrainerError(f"config args has {name!r}: set {ours} instead")
        _require_known("args", config.args, kind, f"trl {version('trl')}")
        reported = config.args.get("report_to", "none")
        named = {reported} if isinstance(reported, str) else set(reported)
        if named & {"mlflow", "all"}:
            raise TrainerError(
                f"config args has report_to={reported!r}: the mixin tracks this training, and "
                "MLflow would get it twice"
            )
    if config.lora is not None:
        if importlib.util.find_spec("peft") is None:
            raise TrainerError("config lora needs PEFT: pip install peft")
        import peft

        _require_known("lora", config.lora, peft.LoraConfig, f"peft {version('peft')}")


def _require_known(field: str, names: Iterable[str], kind: Any, package: str) -> None:
    known = [one.name for one in fields(kind) if one.init]
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise TrainerError(
                f"config {field} has {name!r}, which {kind.__name__} of {package} does not "
                f"have{hint}"
            )


def trl_arguments(config: TRLConfig, output_dir: str) -> Any:
    """Make TRL's config for the method.

    Nothing is reported elsewhere (`report_to="none"`). Where there is no accelerator, numbers are
    in float32 and memory is not pinned: TRL's own defaults there are an error and a warning.

    Raises:
        TrainerError: TRL refuses a value, or two that do not go together.
    """
    import torch
    import trl

    ours = {
        "num_train_epochs": config.epochs,
        "per_device_train_batch_size": config.batch_size,
        "per_device_eval_batch_size": config.batch_size,
        "output_dir": output_dir,
        "report_to": "none",
        **{name: getattr(config, name) for name in _SAME},
        **_periodic("eval", config.eval_steps),
        **_periodic("save", config.save_steps),
    }
    for name, methods in ONLY_FOR.items():
        value = getattr(config, name)
        if config.method in methods and (name, value) != ("beta", None):
            ours[name] = value
    if not torch.accelerator.is_available():
        ours |= {"bf16": False, "dataloader_pin_memory": False}
    try:
        return getattr(trl, _CLASSES[config.method])(**{**ours, **config.args})
    except (TypeError, ValueError) as error:
        raise TrainerError(f"TRL refuses the config: {error}") from error


def _periodic(what: str, steps: int) -> dict[str, Any]:
    if steps == 0:
        return {f"{what}_strategy": "no"}
    return {f"{what}_strategy": "steps", f"{what}_steps": steps}


def lora_config(config: TRLConfig) -> Any:
    """The config of PEFT, or None.

    Raises:
        TrainerError: PEFT refuses a value.
    """
    if config.lora is None:
        return None
    import peft

    kinds = {"sft": "CAUSAL_LM", "dpo": "CAUSAL_LM", "grpo": "CAUSAL_LM", "reward": "SEQ_CLS"}
    try:
        return peft.LoraConfig(**{"task_type": kinds[config.method], **config.lora})
    except (TypeError, ValueError) as error:
        raise TrainerError(f"PEFT refuses config lora: {error}") from error
