"""`VeRLTrainer`: the trainer contract around verl's own entry points."""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orbiter.train._log_throttle import quiet_logger
from orbiter.train.states import TrainerError, TrainerState
from orbiter.train.trainer import TrainConfig, Trainer, TrainMetrics
from orbiter.train.verl import fields
from orbiter.train.verl.checkpoints_log import CheckpointsLog
from orbiter.train.verl.completions_log import CompletionsLog
from orbiter.train.verl.composition import Composition, compose
from orbiter.train.verl.config import VeRLAlgorithm, VeRLConfig, checked
from orbiter.train.verl.installation import _check_verl_available, verl_available
from orbiter.train.verl.launch import INSIDE, LaunchPlan, plan_launch
from orbiter.train.verl.metrics_log import MetricsLog
from orbiter.train.verl.overrides import overrides_of
from orbiter.train.verl.process import last_lines, run_guarded
from orbiter.train.verl.reward import RewardSpec
from orbiter.train.verl.reward_file import reward_source
from orbiter.train.verl.rows import table_of, verl_rows, write_parquet

if TYPE_CHECKING:
    from pyarrow import Table

__all__ = ["VeRLTrainer"]

_logger = quiet_logger(__name__)

_FOLDER = "verl"


class VeRLTrainer(Trainer):
    """Trains a language model with verl: PPO, GRPO or supervised fine-tuning.

    verl's loop stays verl's. `mark_validated` composes verl's config from a `VeRLConfig`, and
    `train` starts verl's entry point with it in a process of its own, which ends with `train`,
    however that ends. verl's metrics are reported while they come in, by verl's names without the
    prefixes `train/` and `val/`; those of a validation, and its completions, with `phase="eval"`.

    The folder `verl` of `output_dir` then has `config.yaml` and the data as verl has read them,
    `verl.log`, `metrics.jsonl`, and verl's `checkpoints`, from which verl resumes.

    Args:
        config: `VeRLConfig()` by default; a plain `TrainConfig` sets what it has.
    """

    _config: VeRLConfig

    def __init__(self, config: TrainConfig | None = None) -> None:
        super().__init__(VeRLConfig())
        self._agent: Any = None
        self._train_data: Sequence[dict[str, Any]] = ()
        self._test_data: Sequence[dict[str, Any]] = ()
        self._reward_spec: RewardSpec | None = None
        self._validation: Mapping[str, Any] = {}
        self._config = _merged(self._config, config)

    @property
    def verl_config(self) -> VeRLConfig:
        """The settings of this training; `check_config` may have replaced them."""
        return self._config

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(algorithm={self._config.algorithm}, "
            f"epochs={self._config.epochs}, state={self.state})"
        )

    # -- checks --------------------------------------------------------------------------------

    def check_agent(self, agent: Any) -> None:
        """Keep the agent: the name or path of a model, unless the config has `model_name`.

        Raises:
            TrainerError: for None.
        """
        if agent is None:
            raise TrainerError("VeRLTrainer requires a non-None agent")
        self._agent = agent

    def check_dataset(self, train_data: Any, test_data: Any = None) -> None:
        """Keep the data.

        Args:
            train_data: a list or tuple of rows, dicts with the key `input`.
            test_data: the same, for validation during the training; optional.

        Raises:
            TrainerError: for other data; it names the first bad row.
        """
        if not train_data:
            raise TrainerError("VeRLTrainer requires a non-empty train_data")
        _check_rows("train_data", train_data)
        if test_data is not None:
            _check_rows("test_data", test_data)
        self._train_data, self._test_data = train_data, test_data or ()

    def check_reward(self, reward_fn: Any = None) -> None:
        """Keep the reward function.

        Args:
            reward_fn: a function, a `RewardSpec`, or None for verl's own rewards.

        Raises:
            TrainerError: for anything else, a `RewardSpec` that leads to no function, or when the
                algorithm is `sft`, which takes no reward.
            ImportError: of the module that a `RewardSpec` names.
        """
        spec: RewardSpec | None = None
        if isinstance(reward_fn, RewardSpec):
            reward_fn.resolve()
            spec = reward_fn
        elif callable(reward_fn):
            spec = RewardSpec(callable=reward_fn)
        elif reward_fn is not None:
            raise TrainerError(
                f"reward_fn is a {type(reward_fn).__name__}: expected a callable or RewardSpec"
            )
        _require_fit(self._config, spec)
        self._reward_spec = spec

    def check_config(self, config: Any = None) -> None:
        """Change the settings.

        Args:
            config: None keeps them, a `VeRLConfig` replaces them. A plain `TrainConfig` sets
                `epochs`, `batch_size` and `learning_rate`, and `output_dir` unless that is empty. A
                dict is merged into `extra`, and its overrides under `verl` into those that it has.

        Raises:
            TrainerError: for another type, a value out of range, or where verl is installed, a
                setting in `extra["verl"]` that verl does not have.
        """
        merged = _merged(self._config, config)
        _require_fit(checked(merged), self._reward_spec)
        if merged.extra.get("verl") and verl_available():
            compose(merged, rows=1, tested=False, rewarded=False)
        self._config = merged

    def mark_validated(self) -> None:
        """Declare that the checks have passed; where verl is installed, compose its config.

        `config.composed` then has all of verl's settings, and the fields the values that
        `extra["verl"]` has overridden them with.

        Raises:
            TrainerError: in any state but CREATED, or when config, data and reward do not fit.
        """
        if self.state is TrainerState.CREATED and verl_available():
            config = self._composition().config
            self._tables(config)
            if self._reward_spec is not None:
                reward_source(self._reward_spec)
            self._config = config
        elif self.state is TrainerState.CREATED:
            _require_fit(checked(self._config), self._reward_spec)
        super().mark_validated()

    # -- training ------------------------------------------------------------------------------

    async def train(self) -> TrainMetrics:
        """Run verl until it ends.

        Returns:
            The last metrics of the training: `loss` where verl has one, `steps`, the others in
            `extra`.

        Raises:
            TrainerError: verl is missing, or ends with an error: then with the last lines of its
                log. Also under torchrun, since verl starts its own processes.
        """
        self._require_validated()
        try:
            _check_verl_available()
        except ImportError as error:
            raise TrainerError(str(error)) from error
        if INSIDE in os.environ:
            raise TrainerError(
                "verl has imported this script for its reward, and would train in a process of a "
                'training: put the training under `if __name__ == "__main__":`'
            )
        if os.environ.get("WORLD_SIZE", "1") != "1":
            raise TrainerError(
                "verl starts its own processes: start this script once, without torchrun, and set "
                "trainer.n_gpus_per_node in extra['verl']"
            )
        composition = self._composition()
        with _run_folder(composition.config.output_dir) as folder:
            plan = self._prepared(composition, folder)
            return await self._run(plan)

    async def _run(self, plan: LaunchPlan) -> TrainMetrics:
        measured = MetricsLog(plan.metrics)
        saved = None if plan.checkpoints is None else CheckpointsLog(plan.checkpoints)
        said = {phase: CompletionsLog(folder) for phase, folder in plan.completions.items()}
        last: Mapping[str, Any] = {}
        steps = 0
        reached = -1

        def report(ended: bool) -> None:
            nonlocal last, steps, reached
            for step, train, validation in measured.read():
                reached = step
                if train:
                    self.report(train, step=step)
                    last, steps = train, step
                if validation:
                    self.report(validation, step=step, phase="eval")
                    self._validation = validation
            if saved is not None and (checkpoint := saved.read()) is not None:
                path, at = checkpoint
                self.report_checkpoint(path, step=at)
            for phase, completions in said.items():
                try:
                    for step, rollouts in completions.read(reached=reached, ended=ended):
                        self.report_rollouts(rollouts, step=step, phase=phase)
                except Exception:  # a record of the training, not a part of it
                    _logger.exception("completions of phase %r could not be read", phase)

        _logger.info("verl prints to %s", plan.log)
        code = await run_guarded(
            plan.command, environment=plan.environment, log=plan.log, on_tick=report
        )
        if code != 0:
            raise TrainerError(f"verl ended with exit code {code}:\n{last_lines(plan.log)}")
        if not steps:
            raise TrainerError(
                f"verl ended without a step. It resumes from {fields.CHECKPOINTS!r} in output_dir: "
                "to train on, raise epochs by two or more, since verl 0.9 spends one of them on "
                "the epoch that had ended; else choose another folder"
            )
        return _result(last, steps)

    def _prepared(self, composition: Composition, folder: Path) -> LaunchPlan:
        """Write what verl reads into the folder of the run."""
        for file, table in self._tables(composition.config).items():
            write_parquet(folder / file, table)
        if self._reward_spec is not None:
            source = reward_source(self._reward_spec)
            (folder / fields.REWARD_FILE).write_text(source, encoding="utf-8")
        config = composition.config
        plan = plan_launch(config.algorithm, composition.tree, folder, dict(os.environ))
        inside = plan.checkpoints is not None and plan.checkpoints.is_relative_to(folder)
        return replace(plan, checkpoints=None) if inside and not config.output_dir else plan

    def _filled_in(self) -> VeRLConfig:
        """The config with its model and reward."""
        spec = self._reward_spec
        config = checked(self._config, rewards={} if spec is None else spec.fingerprint())
        _require_fit(config, spec)
        if not config.model_name and isinstance(self._agent, str | os.PathLike):
            config = replace(config, model_name=os.fspath(self._agent))
        return config

    def _composition(self) -> Composition:
        composition = compose(
            self._filled_in(),
            rows=len(self._train_data),
            tested=bool(self._test_data),
            rewarded=self._reward_spec is not None,
        )
        if not composition.config.model_name:
            raise TrainerError(
                "no model: set model_name in VeRLConfig, or give check_agent a name or path"
            )
        return composition

    def _tables(self, config: VeRLConfig) -> dict[str, "Table"]:
        """The data for verl, by the names of their files."""
        rewarded = self._reward_spec is not None
        _require_batches("train_data", len(self._train_data), config)
        if self._test_data and config.algorithm is VeRLAlgorithm.SFT:
            _require_batches("test_data", len(self._test_data), config)
        given = {
            fields.TRAIN_FILE: ("train_data", self._train_data),
            fields.TEST_FILE: ("test_data", self._test_data),
        }
        return {
            file: table_of(name, verl_rows(config.algorithm, name, rows, rewarded=rewarded))
            for file, (name, rows) in given.items()
            if rows
        }

    # -- evaluation ----------------------------------------------------------------------------

    async def evaluate(self, test_data: Any = None) -> TrainMetrics:
        """Count the rows of an evaluation, which verl itself does while it trains.

        Args:
            test_data: by default the test data of `check_dataset`.

        Returns:
            The number of rows as `steps` and as `eval_items` in `extra`. By default, after a
            training with test data, also the metrics of verl's last validation; then the rows are
            those that verl has measured, which for `sft` are full batches.

        Raises:
            TrainerError: for data that are no list or tuple of rows.
        """
        measured = self._validation if test_data is None else {}
        rows = self._test_data if test_data is None else test_data
        _check_rows("test_data", rows)
        count = len(rows)
        if measured and self._config.algorithm == VeRLAlgorithm.SFT:
            count -= count % self._config.batch_size
        result = _result(measured, count)
        result.extra["eval_items"] = count
        return result


def _require_fit(config: VeRLConfig, reward: RewardSpec | None) -> None:
    if reward is not None and config.algorithm == VeRLAlgorithm.SFT:
        raise TrainerError("reward_fn is for ppo and grpo, and the algorithm is sft")


def _require_batches(name: str, rows: int, config: VeRLConfig) -> None:
    if not 1 <= config.batch_size <= rows:
        raise TrainerError(
            f"{name} has {rows} rows, with batch_size={config.batch_size}: verl leaves out a batch "
            "that is not full, so expected at least 1 and at most as many as there are rows"
        )


def _result(metrics: Mapping[str, Any], steps: int) -> TrainMetrics:
    extra = dict(metrics)
    if "loss" not in extra:
        return TrainMetrics(steps=steps, extra=extra)
    return TrainMetrics(loss=extra.pop("loss"), steps=steps, extra=extra)


@contextmanager
def _run_folder(output_dir: str) -> Iterator[Path]:
    """The folder of a run: `verl` in `output_dir`, or one that is removed at the end."""
    if not output_dir:
        with tempfile.TemporaryDirectory(prefix="orbiter-verl-") as temporary:
            yield Path(temporary).resolve()
        return
    folder = Path(output_dir).resolve() / _FOLDER
    folder.parent.mkdir(exist_ok=True, parents=True)
    folder.mkdir(mode=0o700, exist_ok=True)  # config and log may have secrets
    yield folder


def _merged(current: VeRLConfig, config: Any) -> VeRLConfig:
    if config is None:
        return current
    if isinstance(config, VeRLConfig):
        return config
    if isinstance(config, dict):
        return checked(current, extra=_with_overrides(current.extra, config))
    if isinstance(config, TrainConfig):
        return checked(
            current,
            epochs=config.epochs,
            batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            output_dir=config.output_dir or current.output_dir,
        )
    raise TrainerError(
        f"config is a {type(config).__name__}: expected a VeRLConfig, TrainConfig, dict or None"
    )


def _with_overrides(extra: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """`extra` with more, of which overrides of verl's settings leave other ones as they are."""
    merged = {**extra, **more}
    if extra.get("verl") and more.get("verl"):
        merged["verl"] = overrides_of(extra) | overrides_of(more)
    return merged


def _check_rows(name: str, rows: Any) -> None:
    if not isinstance(rows, list | tuple):
        raise TrainerError(f"{name} is a {type(rows).__name__}: expected a list or tuple of rows")
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise TrainerError(f"{name}[{index}] is a {type(row).__name__}: it must be a dict")
        if "input" not in row:
            raise TrainerError(
                f"{name}[{index}] is missing required 'input' (has {sorted(map(str, row))})"
            )
