"""The TRL backend: SFT, DPO, GRPO and reward models by TRL's own trainers.

TRL's loop runs unchanged on a thread; metrics come from its log, the end from its own stop flag.
"""

import asyncio
import os
import shutil
import tempfile
import weakref
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orbiter.train.blocking import run_blocking
from orbiter.train.trainer import Trainer, TrainerError, TrainMetrics
from orbiter.train.trl.agent import Agent, agent_of
from orbiter.train.trl.arguments import require_arguments, require_trl
from orbiter.train.trl.config import TRLConfig, checked
from orbiter.train.trl.rewards import Reward, rewards_of, try_reward
from orbiter.train.trl.rows import first_row, require_rows

__all__ = ["TRLTrainer"]

if TYPE_CHECKING:
    from orbiter.train.huggingface import StopCallback
    from orbiter.train.trl.loop import TRLLoop


class TRLTrainer(Trainer):
    """Trains a language model with TRL: `method` of the config says how.

        trainer = TRLTrainer(TRLConfig(method="grpo", output_dir="out"))
        trainer.check_agent("Qwen/Qwen2.5-0.5B-Instruct")
        trainer.check_dataset([{"prompt": "2+3=", "answer": "5"}, ...])
        trainer.check_reward(lambda completion, row: float(completion.strip() == row["answer"]))
        trainer.mark_validated()
        await trainer.train()

    The checks may come in any order; of two arguments that do not fit each other, the later one is
    refused. A model that is given is trained in place. The event loop stays live. On cancellation
    and on one Ctrl-C the training ends after its present step, with a checkpoint if there is an
    `output_dir`. With `torchrun` or `accelerate launch` all ranks end at the same step, and an
    integration tracks rank 0.

    **Metrics** are TRL's own, under its names without the prefixes `train_` and `eval_`.

    The same config, seed, model and data give the same metrics on a CPU, bit for bit; times apart.

    Args:
        config: `TRLConfig()` by default.
        resume: True continues from the last checkpoint in `output_dir`, a path from that one. The
            steps go on where the checkpoint ends.

    Raises:
        TrainerError: for a config of another type, or a value out of range.
    """

    _config: TRLConfig

    def __init__(
        self, config: TRLConfig | None = None, *, resume: bool | str | os.PathLike[str] = False
    ) -> None:
        super().__init__(checked(TRLConfig() if config is None else config))
        self._resume = resume
        self._agent: Agent | None = None
        self._train_data: Any = None
        self._test_data: Any = None
        self._rewards: tuple[Reward, ...] = ()
        self._loop: TRLLoop | None = None
        self._folder: str | None = None

    @property
    def config(self) -> TRLConfig:
        """The settings of this training; checks replace it by one that names model and rewards."""
        return self._config

    @property
    def model(self) -> Any:
        """The model as trained so far; None as long as only its name is known."""
        agent = self._present_agent
        return None if agent is None or isinstance(agent.model, str) else agent.model

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the model; None as long as only its name is known.

        With both attributes this trainer is an agent for another one: SFT first, then DPO.
        """
        agent = self._present_agent
        return None if agent is None else agent.tokenizer

    @property
    def _present_agent(self) -> Agent | None:
        return self._agent if self._loop is None else self._loop.agent

    # -- checks --------------------------------------------------------------------------------

    def check_agent(self, agent: Any) -> None:
        """Keep the model to train.

        Args:
            agent: name or path of a model, a pair (model, tokenizer), or an object with the
                attributes `model` and `tokenizer`.

        Raises:
            TrainerError: for anything else.
        """
        require_trl()
        self._agent = agent_of(agent)
        self._config = replace(self._config, model=self._agent.name)
        self._loop = None

    def check_dataset(self, train_data: Any, test_data: Any = None) -> None:
        """Keep the data, in a format of TRL's for the method.

        Args:
            train_data: a list of dicts, or a dataset of Hugging Face. Columns: for sft `messages`,
                `prompt` and `completion`, or `text`; for dpo and reward `chosen` and `rejected`;
                for grpo `prompt`, and any others, which the reward functions get.
            test_data: the same, for `evaluate` and `eval_steps`, or a dict of several by name.

        Raises:
            TrainerError: naming the first bad row.
        """
        require_trl()
        _require_fit(self._config, train_data, test_data, self._rewards)
        _try_rewards(self._rewards, train_data)
        self._train_data, self._test_data = train_data, test_data
        self._loop = None

    def check_reward(self, reward_fn: Any = None) -> None:
        """Keep the reward functions of grpo, after calling each on the first row of the data.

        Without data yet, `check_dataset` calls them.

        Args:
            reward_fn: a function `(completion, row) -> float`, called for each completion with its
                text and the row of the data; or one with TRL's signature, `(prompts, completions,
                **columns) -> list`; or a reward model or its name; or a list of these. None for
                the other methods.

        Raises:
            TrainerError: for anything else, when a function raises or returns something else than
                one number, or when the method takes no reward.
        """
        require_trl()
        rewards = rewards_of(reward_fn)
        _require_fit(self._config, self._train_data, self._test_data, rewards)
        _try_rewards(rewards, self._train_data)
        self._rewards = rewards
        self._config = replace(self._config, rewards={one.name: one.digest for one in rewards})
        self._loop = None

    def check_config(self, config: Any = None) -> None:
        """Check the settings, after replacing those that are given.

        Args:
            config: None to keep the current ones, a `TRLConfig` to use instead, or a mapping of
                single settings to change.

        Raises:
            TrainerError: for another type, a value out of range, or a name that neither we nor TRL
                have; the message has the nearest name.
        """
        require_trl()
        if config is None:
            config = self._config
        elif isinstance(config, Mapping):
            known = [one.name for one in fields(self._config) if one.init]
            for key in config:
                if key not in known:
                    raise TrainerError(f"config has {key!r}: expected one of {', '.join(known)}")
            config = replace(self._config, **config)
        config = checked(config)
        require_arguments(config)
        _require_fit(config, self._train_data, self._test_data, self._rewards)
        names = {} if self._agent is None else {"model": self._agent.name}
        self._config = replace(
            config, rewards={one.name: one.digest for one in self._rewards}, **names
        )
        self._loop = None

    # -- training ------------------------------------------------------------------------------

    async def train(self) -> TrainMetrics:
        """Run TRL's training.

        Reports what TRL logs, every `logging_steps` steps, and evaluations every `eval_steps`.

        Returns:
            The mean loss over all steps and the number of steps.

        Raises:
            TrainerError: when a check is missing, there is no checkpoint to resume from, TRL
                refuses something, or the accelerator is out of memory.
        """
        from orbiter.train.huggingface import StopCallback

        self._require_validated()
        config = checked(self._config)  # mutable: it may have changed since its check
        if self._train_data is None:
            raise TrainerError("train needs train_data: call check_dataset(train_data) first")
        if config.eval_steps and self._test_data is None:
            raise TrainerError(
                f"eval_steps={config.eval_steps} needs test_data: "
                "call check_dataset(train_data, test_data)"
            )
        if config.method == "grpo" and not self._rewards:
            raise TrainerError("grpo needs a reward function: call check_reward(reward_fn) first")
        checkpoint = self._checkpoint(config)
        stop = StopCallback(save=bool(config.output_dir))
        done = await run_blocking(lambda: self._train(config, checkpoint, stop), stop=stop.request)
        return TrainMetrics(loss=done.training_loss, steps=done.global_step)

    def _train(self, config: TRLConfig, checkpoint: str | None, stop: "StopCallback") -> Any:
        from orbiter.train.huggingface import ReportCallback, report_checkpoint
        from orbiter.train.trl.loop import memory_errors

        with memory_errors(config):
            loop = self._main_loop(config)
            if stop.requested:
                raise asyncio.CancelledError("the training was ended before its first step")
            try:
                done = loop.train(checkpoint, ReportCallback(self), stop)
            except asyncio.CancelledError:  # in the midst of an evaluation
                if config.output_dir:
                    loop.save_checkpoint()
                    report_checkpoint(self, config.output_dir, loop.steps)
                raise
            if config.output_dir and loop.ended:
                loop.hugging.save_model(config.output_dir)
            return done

    def _main_loop(self, config: TRLConfig) -> "TRLLoop":
        """The loop with the training data."""
        from orbiter.train.trl.loop import TRLLoop

        if self._agent is None:
            raise TrainerError("TRL needs a model: call check_agent(agent) first")
        if self._loop is None:
            self._loop = TRLLoop(
                config,
                self._agent,
                self._train_data,
                self._test_data,
                self._rewards,
                self._output_dir(config),
                self.report_rollouts,
            )
        return self._loop

    def _output_dir(self, config: TRLConfig) -> str:
        """The folder for TRL, which always writes something; a temporary one by default."""
        if config.output_dir:
            return config.output_dir
        if self._folder is None:
            self._folder = tempfile.mkdtemp(prefix="orbiter-trl-")
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        return self._folder

    def _checkpoint(self, config: TRLConfig) -> str | None:
        """The checkpoint to resume from."""
        if not self._resume:
            return None
        if self._resume is not True:
            path = Path(self._resume)
            if not path.is_dir():
                raise TrainerError(f"resume={os.fspath(path)!r}: there is no such checkpoint")
            return str(path)
        from transformers.trainer_utils import get_last_checkpoint

        last = None
        if config.output_dir and Path(config.output_dir).is_dir():
            last = get_last_checkpoint(config.output_dir)
        if last is None:
            raise TrainerError(
                f"resume=True: there is no checkpoint in output_dir={config.output_dir!r}"
            )
        return str(last)

    # -- evaluation ----------------------------------------------------------------------------

    async def evaluate(self, test_data: Any = None) -> TrainMetrics:
        """Measure the model by TRL's own evaluation.

        Args:
            test_data: as in `check_dataset`; by default that check's test data.

        Returns:
            The loss, the optimizer steps so far, and in `extra` what else TRL measures.

        Raises:
            TrainerError: when the agent or the test data are missing, or TRL refuses something.
        """
        from orbiter.train.huggingface import StopCallback, evaluation_metrics

        require_trl()
        config = checked(self._config)
        data = self._test_data if test_data is None else test_data
        if data is None:
            raise TrainerError(
                "evaluate needs test_data: give it, or call check_dataset(train_data, test_data)"
            )
        _require_fit(config, None, data, self._rewards)
        stop = StopCallback(save=False)
        measured = await run_blocking(lambda: self._evaluate(config, data, stop), stop=stop.request)
        steps = 0 if self._loop is None else self._loop.steps
        extra = evaluation_metrics(measured)
        if "loss" not in extra:
            return TrainMetrics(steps=steps, extra=extra)
        return TrainMetrics(loss=extra.pop("loss"), steps=steps, extra=extra)

    def _evaluate(self, config: TRLConfig, data: Any, stop: "StopCallback") -> dict[str, Any]:
        from orbiter.train.trl.loop import TRLLoop, memory_errors

        with memory_errors(config):
            if self._train_data is None:  # TRL needs some to train on
                if self._agent is None:
                    raise TrainerError("TRL needs a model: call check_agent(agent) first")
                first = next(iter(_parts(data).values()))
                folder = self._output_dir(config)
                loop = TRLLoop(
                    config, self._agent, first, data, self._rewards, folder, self.report_rollouts
                )
                return loop.evaluate(stop)
            loop = self._main_loop(config)
            if data is self._test_data:
                return loop.evaluate(stop)
            return loop.other(data, self._rewards, self._output_dir(config)).evaluate(stop)


def _require_fit(
    config: TRLConfig, train_data: Any, test_data: Any, rewards: tuple[Reward, ...]
) -> None:
    if rewards and config.method != "grpo":
        raise TrainerError(f"reward_fn is for grpo, and the method is {config.method}")
    column = str(config.args.get("dataset_text_field", "text"))
    if train_data is not None:
        require_rows("train_data", train_data, config.method, column)
    for name, data in _parts(test_data).items():
        require_rows(name, data, config.method, column)


def _try_rewards(rewards: tuple[Reward, ...], train_data: Any) -> None:
    row = first_row(train_data)
    if row is not None:
        for reward in rewards:
            try_reward(reward, row)


def _parts(test_data: Any) -> dict[str, Any]:
    """The data sets of an evaluation by the names for messages."""
    if test_data is None:
        return {}
    if isinstance(test_data, Mapping):
        return {f"test_data[{name!r}]": part for name, part in test_data.items()}
    return {"test_data": test_data}
