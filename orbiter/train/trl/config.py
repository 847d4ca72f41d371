"""The settings of a TRL training and their legal values."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from reprlib import repr as shortened
from typing import Any, Literal, get_args

from orbiter.train.legal_values import (
    A_DICT,
    A_STR,
    ABOVE_0,
    INT_FROM_0,
    INT_FROM_1,
    NUMBER_FROM_0,
    Rule,
    is_int,
    or_none,
    require_legal,
)
from orbiter.train.states import TrainerError
from orbiter.train.trainer import TrainConfig

__all__ = ["Method", "TRLConfig", "checked"]

Method = Literal["sft", "dpo", "grpo", "reward"]


@dataclass(slots=True)
class TRLConfig(TrainConfig):
    """Settings of a training by TRL. What has no field here goes into `args`.

    The defaults are TRL's own, but for `epochs`, `learning_rate` and those that say so.

    Attributes:
        epochs: passes over the training data; `max_steps` overrides it.
        batch_size: rows to a device in one pass, for GRPO completions; the rows to an optimizer
            step are this, times `gradient_accumulation_steps`, times the devices.
        learning_rate: of the optimizer. TRL's defaults are 2e-5 for sft, 1e-4 for reward, 1e-6 for
            dpo and grpo; with `lora` about ten times as much.
        output_dir: where checkpoints go, and at the end the model and its tokenizer; empty for
            nowhere.
        method: `sft` (`trl.SFTTrainer`), `dpo`, `grpo` or `reward`, the training of a reward model.
        model: name or path of the model. `check_agent` sets it, so that the run has it.
        rewards: for each reward function the digest of its source. `check_reward` sets it, so that
            the run has it.
        seed: for the order of rows, dropout and sampled completions.
        max_steps: optimizer steps; -1 for as many as `epochs` has.
        gradient_accumulation_steps: passes to an optimizer step. 1.
        max_length: tokens of a row, longer ones are cut; None for no limit. Not for grpo.
        beta: weight of the distance to the reference model, for dpo (0.1) and grpo (0.0, which is
            without a reference model); None for these.
        num_generations: completions to a prompt, for grpo; it divides the completions of a step.
        max_completion_length: tokens of a completion, for grpo.
        temperature: of sampled completions, for grpo.
        logging_steps: steps from one report to the next.
        eval_steps: steps from one evaluation on the test data to the next; 0 for none.
        save_steps: steps from one checkpoint to the next; 0 for none but that of a cancelled
            training. TRL's default is 500.
        lora: settings of `peft.LoraConfig`, to train adapters only; None to train the model.
        args: any other setting of TRL's config class for the method, by its name there.
    """

    method: Method = "sft"
    model: str = ""
    rewards: dict[str, str] = field(default_factory=dict)
    seed: int = 42
    max_steps: int = -1
    gradient_accumulation_steps: int = 1
    max_length: int | None = 1024
    beta: float | None = None
    num_generations: int = 8
    max_completion_length: int = 256
    temperature: float = 1.0
    logging_steps: int = 10
    eval_steps: int = 0
    save_steps: int = 0
    lora: dict[str, Any] | None = None
    args: dict[str, Any] = field(default_factory=dict)


ONLY_FOR: Mapping[str, tuple[Method, ...]] = {
    "max_length": ("sft", "dpo", "reward"),
    "beta": ("dpo", "grpo"),
    "num_generations": ("grpo",),
    "max_completion_length": ("grpo",),
    "temperature": ("grpo",),
}
"""Settings that some methods do not have."""


_NAMED: Rule = (
    lambda value: isinstance(value, dict) and all(isinstance(key, str) for key in value),
    "a dict with names",
)

_RULES: Mapping[str, Rule] = {
    "epochs": INT_FROM_1,
    "batch_size": INT_FROM_1,
    "learning_rate": ABOVE_0,
    "output_dir": A_STR,
    "extra": A_DICT,
    "method": (lambda value: value in get_args(Method), f"one of {', '.join(get_args(Method))}"),
    "seed": INT_FROM_0,
    "max_steps": (
        lambda value: value == -1 or is_int(value, 1),
        "an int of at least 1, or -1 for as many as the epochs have",
    ),
    "gradient_accumulation_steps": INT_FROM_1,
    "max_length": or_none(INT_FROM_1, "no limit"),
    "beta": or_none(NUMBER_FROM_0, "TRL's default"),
    "num_generations": (lambda value: is_int(value, 2), "an int of at least 2"),
    "max_completion_length": INT_FROM_1,
    "temperature": ABOVE_0,
    "logging_steps": INT_FROM_1,
    "eval_steps": INT_FROM_0,
    "save_steps": INT_FROM_0,
    "lora": (
        lambda value: value is None or _NAMED[0](value),
        "a dict with settings of peft.LoraConfig, or None",
    ),
    "args": _NAMED,
}


def checked(config: Any) -> TRLConfig:
    """Return the config if all its values are legal.

    Raises:
        TrainerError: for another type, a value out of range, or a setting that the method lacks.
    """
    if not isinstance(config, TRLConfig):
        raise TrainerError(
            f"config={shortened(config)} ({type(config).__name__}): "
            "expected a TRLConfig, a mapping of its fields for check_config, or None"
        )
    require_legal(config, _RULES)
    defaults = {one.name: one.default for one in fields(config) if one.default is not MISSING}
    for name, methods in ONLY_FOR.items():
        value = getattr(config, name)
        if config.method not in methods and value != defaults[name]:
            raise TrainerError(
                f"config {name}={shortened(value)}: this is a setting of {' and '.join(methods)}, "
                f"and the method is {config.method}"
            )
    if config.save_steps and not config.output_dir:
        raise TrainerError(
            f"config save_steps={config.save_steps}: expected an output_dir for the checkpoints"
        )
    return config
