"""The trainer contract: a strict lifecycle that subclasses fill in and cannot break.

A subclass writes `check_*`, `train` and `evaluate`; the contract decides when each may run, moves
the state, and tells cooperative hooks what happened. What comes of these events is left to mixins.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

from orbiter.train._enforce import Phase, enforce, tell
from orbiter.train._log_throttle import quiet_logger
from orbiter.train._measured import UNMEASURED, NotesSetFields
from orbiter.train._runtime import runtime_of
from orbiter.train.states import TrainerError, TrainerState, require_move, require_state

__all__ = ["TrainConfig", "TrainMetrics", "Trainer", "TrainerError", "TrainerState"]

_logger = quiet_logger(__name__)


@dataclass(slots=True)
class TrainMetrics(NotesSetFields):
    """What a training or an evaluation measured.

    `loss` and `accuracy` are plain numbers, `steps` counts optimizer steps, `extra` holds whatever
    else was measured, by name; it may nest. A field that was left at its default was not measured,
    one that was set to 0.0 was; in all else the two are equal.
    """

    loss: float = UNMEASURED
    accuracy: float = UNMEASURED
    steps: int = 0
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class TrainConfig:
    """How to train. Subclass it, as a dataclass, to add typed settings; `extra` takes the rest."""

    epochs: int = 1
    batch_size: int = 8
    learning_rate: float = 1e-5
    output_dir: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


class _EnforcedAtLast:
    """Catches a class that Trainer never heard of: some `__init_subclass__` left out its `super()`.

    Not a part of `Trainer`, where a `__new__` would hide the signature of `__init__`.
    """

    def __new__(cls, /, *_args: Any, **_kwargs: Any) -> Self:
        enforce(cls, vars(Trainer))
        return super().__new__(cls)


class Trainer(_EnforcedAtLast, ABC):
    """One training of one agent: checks, `mark_validated()`, `await train()`, `await evaluate()`.

    The order is enforced here, whatever a subclass forgets:

    - `check_*` run in CREATED only, `train` in VALIDATED only, `evaluate` in any state but FAILED.
    - `train` sets TRAINING, then COMPLETED on return and FAILED on an exception, unless the
      subclass said so itself by assigning `self._state`, which is held to the same moves.
    - Of an exception that is no `TrainerError`, `train` and `evaluate` make one, with the original
      as its `__cause__`. Cancellation, `KeyboardInterrupt` and `SystemExit` pass as they are, and
      so do those of `passes_through` and those by which a known framework stops a training.

    Args:
        config: the settings of this training; `TrainConfig()` where left out.

    Raises:
        TypeError: when a subclass is made whose `train` or `evaluate` is not an `async def` method,
            whose `check_*` is one, which takes the name `_state` for itself, or whose
            `passes_through` is no tuple of exceptions.
    """

    passes_through: ClassVar[tuple[type[Exception], ...]] = ()
    """Exceptions that `train` and `evaluate` let through unchanged: no failures, they tell what
    called the trainer to stop, or to go on elsewhere. `optuna.TrialPruned` and its like are known.
    """

    def __init__(self, config: TrainConfig | None = None) -> None:
        self._config = TrainConfig() if config is None else config

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        enforce(cls, vars(Trainer))

    # -- state ---------------------------------------------------------------------------------

    @property
    def state(self) -> TrainerState:
        """The present state."""
        return self._state

    @property
    def config(self) -> TrainConfig:
        """The settings of this training; `check_config` may have replaced them."""
        if not hasattr(self, "_config"):  # a subclass whose __init__ never called ours
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
        tell(self._on_transition, before, after)

    def mark_validated(self) -> None:
        """Say that the checks have passed: CREATED to VALIDATED.

        Raises:
            TrainerError: in any other state.
        """
        if self._state is not TrainerState.CREATED:
            raise TrainerError(f"Cannot validate from state {self._state}")
        self._state = TrainerState.VALIDATED

    def _require_validated(self) -> None:
        """Refuse to go on unless validated, or inside the `train` that was admitted.

        Raises:
            TrainerError: in any other state.
        """
        if self._state is TrainerState.VALIDATED:
            return
        if self._state is TrainerState.TRAINING and runtime_of(self).training:
            return
        raise TrainerError(f"Trainer must be validated before training (state={self._state})")

    # -- what a subclass writes ----------------------------------------------------------------

    @abstractmethod
    def check_agent(self, agent: Any) -> None:
        """Check, and keep, the agent to train. Raises `TrainerError` where it will not do."""

    @abstractmethod
    def check_dataset(self, train_data: Any, test_data: Any = None) -> None:
        """Check, and keep, the data. Raises `TrainerError` where they will not do."""

    @abstractmethod
    def check_reward(self, reward_fn: Any = None) -> None:
        """Check, and keep, the reward function. Raises `TrainerError` where it will not do."""

    @abstractmethod
    def check_config(self, config: Any = None) -> None:
        """Check the settings; may replace `self._config`. Raises `TrainerError` on bad ones."""

    @abstractmethod
    async def train(self) -> TrainMetrics:
        """Train, once, and return what was measured."""

    @abstractmethod
    async def evaluate(self, test_data: Any = None) -> TrainMetrics:
        """Measure the agent on `test_data`, or on the test data of `check_dataset`."""

    # -- progress ------------------------------------------------------------------------------

    def report(
        self,
        metrics: Mapping[str, Any] | TrainMetrics,
        *,
        step: int,
        phase: Literal["train", "eval"] = "train",
        data: Any = None,
    ) -> None:
        """Tell progress from inside `train`, or an evaluation from wherever one cannot await.

        Without tracking this does nothing. It never raises: what cannot be recorded is logged as an
        error.

        Args:
            metrics: a mapping logs just its keys, a `TrainMetrics` the fields that were set.
            step: how far training is, in optimizer steps; it should grow.
            phase: `eval` for what was measured on data that are not trained on, as by a callback of
                the framework that trains.
            data: with `phase="eval"`, the data it was measured on; the test data of `check_dataset`
                where left out.
        """
        given: str = phase  # untyped code may pass anything
        if given == "eval":
            tell(self._on_evaluation_report, metrics, step, data)
        elif given != "train":
            _logger.error("not recorded: report(phase=%r) is neither 'train' nor 'eval'", given)
        elif data is not None:
            _logger.error("not recorded: report(data=...) of phase 'train'; data need phase='eval'")
        else:
            tell(self._on_report, metrics, step)

    def at_step(self, step: int) -> None:
        """Say to which step of the training belongs what comes next: `evaluate`, above all.

        An `evaluate` stands at the step that was told last, here or by `report`; before that at 0.
        It never raises.

        Args:
            step: how far training is, in optimizer steps.
        """
        tell(self._on_step, step)

    # -- hooks ---------------------------------------------------------------------------------
    # One for each event, all no-ops here. A mixin overrides those it wants and calls `super()`.
    # What a hook raises is logged and goes no further; only the two that are told a result may
    # raise, and that leaves `train` or `evaluate` as it is, with the state as it was.

    def _on_check_passed(self, check: str, arguments: Mapping[str, Any]) -> None:
        """`check` (a method's name) returned; `arguments` are those it was given, by name."""

    def _on_transition(self, before: TrainerState, after: TrainerState) -> None:
        """The state has moved."""

    def _on_report(self, metrics: Mapping[str, Any] | TrainMetrics, step: int) -> None:
        """`report` was called, of a training."""

    def _on_evaluation_report(
        self, metrics: Mapping[str, Any] | TrainMetrics, step: int, data: Any
    ) -> None:
        """`report` was called, of an evaluation on `data`: those of the checks, for None."""

    def _on_step(self, step: int) -> None:
        """`at_step` was called."""

    def _on_evaluate_started(self, test_data: Any) -> None:
        """An `evaluate` was admitted and is about to run."""

    async def _on_train_result(self, metrics: TrainMetrics) -> None:
        """The outermost `train` returned `metrics`; the state is final."""

    async def _on_evaluate_result(self, metrics: TrainMetrics, test_data: Any) -> None:
        """The outermost `evaluate` returned `metrics`."""

    async def _on_error(self, phase: Phase, error: BaseException) -> None:
        """`train` (the state is FAILED by now) or `evaluate` ends with `error`, as it was raised.

        Where `error` is no `Exception` (a cancellation, Ctrl-C), a hook must not suspend.
        """
