"""Make TRL's trainer for a method, and run something with it; needs TRL."""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import trl
from transformers import PrinterCallback, set_seed

from orbiter.train.states import TrainerError
from orbiter.train.trl.agent import Agent
from orbiter.train.trl.arguments import lora_config, trl_arguments
from orbiter.train.trl.config import Method, TRLConfig
from orbiter.train.trl.rewards import Reward
from orbiter.train.trl.rollouts import RolloutCollector
from orbiter.train.trl.rows import as_dataset

__all__ = ["TRLLoop", "memory_errors"]

_CLASSES: Mapping[Method, type[Any]] = {
    "sft": trl.SFTTrainer,
    "dpo": trl.DPOTrainer,
    "grpo": trl.GRPOTrainer,
    "reward": trl.RewardTrainer,
}


class TRLLoop:
    """TRL's trainer with a model, its data and its rewards.

    Args:
        report_rollouts: that of a trainer, for what grpo samples.
        reference: the model that DPO compares with; None for a copy of the agent's.

    Attributes:
        hugging: TRL's trainer.

    Raises:
        TrainerError: TRL refuses the config, or there is no reference model.
    """

    def __init__(
        self,
        config: TRLConfig,
        agent: Agent,
        train_data: Any,
        test_data: Any,
        rewards: tuple[Reward, ...],
        output_dir: str,
        report_rollouts: Callable[..., None],
        reference: Any = None,
    ) -> None:
        self._config, self._report_rollouts = config, report_rollouts
        arguments = trl_arguments(config, output_dir)
        given: dict[str, Any] = {
            "args": arguments,
            "train_dataset": as_dataset(train_data),
            "eval_dataset": _datasets(test_data),
            "processing_class": agent.tokenizer,
            "peft_config": None if _has_adapters(agent.model) else lora_config(config),
        }
        collector = RolloutCollector(report_rollouts, config.logging_steps)
        if config.method == "grpo":
            given["reward_funcs"] = collector.watched(rewards)
            _require_reference(arguments, agent)
        if config.method == "dpo":
            given["ref_model"] = reference or _reference(arguments, agent, given["peft_config"])
        self.hugging = _CLASSES[config.method](agent.model, **given)
        self.hugging.remove_callback(PrinterCallback)  # what is logged is reported
        collector.model = self.hugging.model

    @property
    def agent(self) -> Agent:
        """The model as trained so far, and its tokenizer."""
        return Agent(self.hugging.model, self.hugging.processing_class)

    @property
    def steps(self) -> int:
        """The optimizer steps so far."""
        return int(self.hugging.state.global_step)

    @property
    def ended(self) -> bool:
        """Whether the training has come to its own end."""
        return self.steps >= int(self.hugging.state.max_steps)

    def train(self, checkpoint: str | None, *callbacks: Any) -> Any:
        """Train; returns the output of transformers."""
        with self._prepared(callbacks):
            return self.hugging.train(resume_from_checkpoint=checkpoint)

    def evaluate(self, *callbacks: Any) -> dict[str, Any]:
        """Evaluate on the test data."""
        with self._prepared(callbacks):
            measured: dict[str, Any] = self.hugging.evaluate()
        return measured

    def save_checkpoint(self) -> None:
        """Save a checkpoint of the present step."""
        self.hugging._save_checkpoint(self.hugging.model_wrapped, trial=None)

    def other(self, data: Any, rewards: tuple[Reward, ...], output_dir: str) -> "TRLLoop":
        """A loop with the same model that has prepared other data to evaluate on."""
        first = next(iter(data.values())) if isinstance(data, Mapping) else data
        reference = getattr(self.hugging, "ref_model", None)
        return TRLLoop(
            self._config,
            self.agent,
            first,
            data,
            rewards,
            output_dir,
            self._report_rollouts,
            reference,
        )

    @contextmanager
    def _prepared(self, callbacks: tuple[Any, ...]) -> Iterator[None]:
        """With these callbacks, on this thread, and with random numbers as at the start."""
        device = self.hugging.args.device
        if device.type == "cuda":
            torch.cuda.set_device(device)  # each thread has a device of its own
        set_seed(self._config.seed)
        for callback in callbacks:
            self.hugging.add_callback(callback)
        try:
            yield
        finally:
            for callback in callbacks:
                self.hugging.remove_callback(callback)


def _datasets(data: Any) -> Any:
    if data is None or not isinstance(data, Mapping):
        return None if data is None else as_dataset(data)
    return {name: as_dataset(part) for name, part in data.items()}


def _has_adapters(model: Any) -> bool:
    return hasattr(model, "peft_config")


def _reference(arguments: Any, agent: Agent, peft_config: Any) -> Any:
    """The model that DPO starts from, or None where TRL has another way to it."""
    if isinstance(agent.model, str) or arguments.precompute_ref_log_probs:
        return None
    if peft_config is not None or _has_adapters(agent.model):  # the model without its adapters
        return None
    reference = copy.deepcopy(agent.model)
    # An earlier training by TRL has put a `forward` there that is bound to the original.
    vars(reference).pop("forward", None)
    return reference


def _require_reference(arguments: Any, agent: Agent) -> None:
    if isinstance(agent.model, str) or _has_adapters(agent.model):
        return
    if arguments.beta and not getattr(agent.model.config, "_name_or_path", ""):
        raise TrainerError(
            f"beta={arguments.beta} needs a reference model, which TRL loads by the name or path "
            "of the agent's model, and this model has none: save it, and give its path"
        )


@contextmanager
def memory_errors(config: TRLConfig) -> Iterator[None]:
    """Say what to lower when an accelerator is out of memory.

    Raises:
        TrainerError: in the place of torch's error, which is its cause.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        lower = [f"batch_size (now {config.batch_size})"]
        if config.method == "grpo":
            lower.append(f"max_completion_length (now {config.max_completion_length})")
        elif config.max_length is not None:
            lower.append(f"max_length (now {config.max_length})")
        else:
            lower.append("the length of rows, by max_length")
        advice = [] if config.lora is not None else ["lora={...} trains adapters only"]
        if config.args.get("gradient_checkpointing") is False:
            advice.append("without args['gradient_checkpointing'] = False activations take less")
        raise TrainerError(
            f"the accelerator is out of memory: lower {' or '.join(lower)}, and raise "
            f"gradient_accumulation_steps (now {config.gradient_accumulation_steps}) to keep the "
            f"rows of a step{''.join('; ' + one for one in advice)}. torch says: {error}"
        ) from error
