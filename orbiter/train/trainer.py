"""The trainer contract: a strict lifecycle that subclasses fill in and cannot break.

A subclass writes `check_*`, `train` and `evaluate`. The contract decides when each may run, moves
the state (`orbiter.train.states`) and calls the hooks of integrations (`orbiter.train.hooks`).
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from orbiter.train._enforce import Enforced, enforce, notify
from orbiter.train._log_throttle import quiet_logger
from orbiter.train._runtime import runtime_of
from orbiter.train.metrics import TrainMetrics
from orbiter.train.rollouts import Rollout, usable
from orbiter.train.states import CALLS, TrainerError, TrainerState, require_move, require_state

__all__ = ["TrainConfig", "TrainMetrics", "Trainer", "TrainerError", "TrainerState"]

_logger = quiet_logger(__name__)


@dataclass(slots=True)
class TrainConfig:
    """The settings of a training. Subclass it as a dataclass to add typed settings.

    Attributes:
        epochs: passes over the training data.
        batch_size: rows to an optimizer step.
        learning_rate: of the optimizer.
        output_dir: where a backend writes its files; empty for nowhere.
        extra: settings without a field of their own.
    """

    epochs: int = 1
    batch_size: int = 8
    learning_rate: float = 1e-5
    output_dir: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


class _EnforcedAtLast:
    """Enforces the order in a class whose `__init_subclass__` forgot its `super()`.

    Apart from `Trainer`, where a `__new__` would hide the signature of `__init__`.
    """

    def __new__(cls, /, *_args: Any, **_kwargs: Any) -> Self:
        enforce(cls, vars(Trainer))
        return super().__new__(cls)


class Trainer(_EnforcedAtLast, Enforced, ABC):
    """One training of one agent: checks, `mark_validated()`, `await train()`, `await evaluate()`.

    The order is enforced, whatever a subclass forgets:

    - `check_*` run in CREATED only, `train` in VALIDATED only, `evaluate` in any state but FAILED.
    - `train` sets TRAINING, then COMPLETED on return and FAILED on an exception. A subclass may
      also set these itself by assigning `self._state`, which is held to the same moves.
    - `train` and `evaluate` wrap an exception in a `TrainerError` with the original as its
      `__cause__`. Unchanged are a `TrainerError`, cancellation, `KeyboardInterrupt`, `SystemExit`,
      the exceptions of `passes_through`, and those by which a known framework stops a training.

    Args:
        config: the settings of this training; `TrainConfig()` by default.

    Raises:
        TypeError: when a subclass is defined whose `train` or `evaluate` is not an `async def`
            method, whose `check_*` is one, which defines `_state`, or whose `passes_through` is no
            tuple of exceptions.
    """

    def __init__(self, config: TrainConfig | None = None) -> None:
        self._config = TrainConfig() if config is None else config

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        enforce(cls, vars(Trainer))

    # -- state ---------------------------------------------------------------------------------

    @property
    def state(self) -> TrainerState:
        """The current state."""
        return self._state

    @property
    def config(self) -> TrainConfig:
        """The settings of this training; `check_config` may have replaced them."""
        if not hasattr(self, "_config"):  # a subclass whose __init__ skips this one
            self._config = TrainConfig()
        return self._config

    @property
    def _state(self) -> TrainerState:
        return require_state(self.__dict__.get("_state", TrainerState.CREATED))

    @_state.setter
    def _state(self, state: TrainerState) -> None:
        before, after = self._state, require_state(state)
        if after is before:
            return
        require_move(before, after, inside_train=runtime_of(self).training)
        self.__dict__["_state"] = after
        notify(self._on_transition, before, after)

    def mark_validated(self) -> None:
        """Declare that the checks have passed: CREATED to VALIDATED.

        Raises:
            TrainerError: in any other state.
        """
        if self._state not in CALLS["mark_validated"]:
            raise TrainerError(f"Cannot validate from state {self._state}")
        self._state = TrainerState.VALIDATED

    def _require_validated(self) -> None:
        """Require VALIDATED, or TRAINING inside the `train` that was admitted.

        Raises:
            TrainerError: in any other state.
        """
        if self._state in CALLS["train"]:
            return
        if self._state is TrainerState.TRAINING and runtime_of(self).training:
            return
        raise TrainerError(f"Trainer must be validated before training (state={self._state})")

    # -- for subclasses to write ---------------------------------------------------------------

    @abstractmethod
    def check_agent(self, agent: Any) -> None:
        """Check and keep the agent to train. Raises `TrainerError` if it is unusable."""

    @abstractmethod
    def check_dataset(self, train_data: Any, test_data: Any = None) -> None:
        """Check and keep the data. Raises `TrainerError` if they are unusable."""

    @abstractmethod
    def check_reward(self, reward_fn: Any = None) -> None:
        """Check and keep the reward function. Raises `TrainerError` if it is unusable."""

    @abstractmethod
    def check_config(self, config: Any = None) -> None:
        """Check the settings; may replace `self._config`. Raises `TrainerError` on bad ones."""

    @abstractmethod
    async def train(self) -> TrainMetrics:
        """Train, once, and return the final metrics."""

    @abstractmethod
    async def evaluate(self, test_data: Any = None) -> TrainMetrics:
        """Measure the agent on `test_data`, by default the test data of `check_dataset`."""

    # -- progress ------------------------------------------------------------------------------

    def report(
        self,
        metrics: Mapping[str, Any] | TrainMetrics,
        *,
        step: int,
        phase: Literal["train", "eval"] = "train",
        data: Any = None,
    ) -> None:
        """Report metrics from inside `train`, or of an evaluation in code that cannot await.

        Without an integration this does nothing. It never raises: metrics that cannot be recorded
        are logged as an error.

        Args:
            metrics: a mapping reports its keys, a `TrainMetrics` the fields that were set.
            step: the optimizer steps so far; it should increase.
            phase: `eval` for metrics measured on data that are not trained on, for example in a
                callback of the training framework.
            data: the data of an evaluation; by default the test data of `check_dataset`.
        """
        given: str = phase  # untyped code may pass anything
        if given == "eval":
            notify(self._on_evaluation_report, metrics, step, data)
        elif given != "train":
            _logger.error("not recorded: report(phase=%r) is neither 'train' nor 'eval'", given)
        elif data is not None:
            _logger.error("not recorded: report(data=...) of phase 'train'; data need phase='eval'")
        else:
            notify(self._on_report, metrics, step)

    def at_step(self, step: int) -> None:
        """Set the step of the training that the next `evaluate` belongs to.

        An `evaluate` is recorded at the step given last, here or to `report`; before that at 0.
        This never raises.

        Args:
            step: the optimizer steps so far.
        """
        notify(self._on_step, step)

    def report_rollouts(
        self,
        rollouts: Iterable[Rollout | Mapping[str, Any]],
        *,
        step: int,
        phase: Literal["train", "eval"] = "train",
    ) -> None:
        """Report what the agent said at a step, with its rewards.

        Without an integration this does nothing. It never raises: what is no rollout is logged as
        an error, and its neighbours are recorded.

        Args:
            rollouts: each a `Rollout`, or a mapping with the names of its attributes.
            step: the optimizer steps so far.
            phase: `eval` for rollouts of an evaluation.
        """
        given: str = phase  # untyped code may pass anything
        if given not in ("train", "eval"):
            _logger.error(
                "not recorded: report_rollouts(phase=%r) is neither 'train' nor 'eval'", given
            )
        else:
            notify(self._report_rollouts, rollouts, step, phase)

    def report_checkpoint(self, path: str | os.PathLike[str], *, step: int) -> None:
        """Report a checkpoint that is completely written.

        Without an integration this does nothing. It never raises: what is no path is logged as an
        error. The checkpoint has the metrics that are reported for its step, before or after this
        call. It may be removed or replaced later, but no file in it may be written to again.

        Args:
            path: its folder, or its only file.
            step: the optimizer steps that it holds.
        """
        notify(self._report_checkpoint, path, step)

    def _report_checkpoint(self, path: str | os.PathLike[str], step: int) -> None:
        self._on_checkpoint(os.fsdecode(path), step)

    def _report_rollouts(
        self,
        rollouts: Iterable[Rollout | Mapping[str, Any]],
        step: int,
        phase: Literal["train", "eval"],
    ) -> None:
        found = [*usable(rollouts)]
        if found:
            self._on_rollouts(found, step, phase)
