"""Calls that fail: the exception that the caller gets, the state, the hooks."""

import asyncio
import contextvars
import traceback
from typing import Any, Literal

import pytest

from lifecycle_recorder import Recorder, raising, run
from orbiter.train import TrainerError, TrainerState, TrainMetrics
from orbiter.train._runtime import runtime_of

Phase = Literal["train", "evaluate"]
PHASES: list[Phase] = ["train", "evaluate"]
BARE = [
    asyncio.CancelledError("stop"),
    KeyboardInterrupt(),
    SystemExit(3),
    GeneratorExit(),
    BaseExceptionGroup("both", [KeyboardInterrupt(), ValueError()]),
]


class Failing(Recorder):
    """Ends `train` and `evaluate` with the same error."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(raising(error))
        self.error = error

    async def evaluate(self, test_data: Any = None) -> TrainMetrics:
        raise self.error


def validated(trainer: Recorder) -> Recorder:
    trainer.mark_validated()
    trainer.events.clear()
    return trainer


def events_of_failure(phase: Phase, error: BaseException) -> list[tuple[Any, ...]]:
    if phase == "evaluate":
        return [("evaluating", None), ("error", "evaluate", error)]
    return [
        ("move", TrainerState.VALIDATED, TrainerState.TRAINING),
        ("move", TrainerState.TRAINING, TrainerState.FAILED),
        ("error", "train", error),
    ]


def state_after(phase: Phase) -> TrainerState:
    return TrainerState.FAILED if phase == "train" else TrainerState.VALIDATED


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(
    "error", [ValueError("bad batch"), TimeoutError(), ExceptionGroup("two", [KeyError("k")])]
)
async def test_an_exception_becomes_a_trainer_error(phase: Phase, error: Exception) -> None:
    trainer = validated(Failing(error))
    with pytest.raises(TrainerError) as caught:
        await getattr(trainer, phase)()
    assert caught.value.__cause__ is error
    assert str(caught.value) == f"Failing.{phase} failed: {type(error).__name__}: {error}"
    assert trainer.state is state_after(phase)
    assert trainer.events == events_of_failure(phase, error)


@pytest.mark.parametrize("phase", PHASES)
async def test_a_trainer_error_passes_unchanged(phase: Phase) -> None:
    class NoMemoryError(TrainerError):
        pass

    error = NoMemoryError("39 GiB")
    trainer = validated(Failing(error))
    with pytest.raises(NoMemoryError) as caught:
        await getattr(trainer, phase)()
    assert caught.value is error
    assert error.__cause__ is None
    assert trainer.state is state_after(phase)
    assert trainer.events == events_of_failure(phase, error)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("error", BARE, ids=lambda error: type(error).__name__)
def test_base_exceptions_pass_unchanged(phase: Phase, error: BaseException) -> None:
    trainer = validated(Failing(error))
    with pytest.raises(type(error)) as caught:
        run(getattr(trainer, phase)())
    assert caught.value is error
    assert trainer.state is state_after(phase)
    assert trainer.events == events_of_failure(phase, error)
    assert not runtime_of(trainer).training


async def test_a_real_cancellation_fails_the_trainer_and_cancels_the_task() -> None:
    started = asyncio.Event()

    async def body(_: Recorder) -> None:
        started.set()
        await asyncio.Event().wait()

    trainer = validated(Recorder(body))
    task = asyncio.create_task(trainer.train())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert trainer.state is TrainerState.FAILED
    with pytest.raises(TrainerError):
        await trainer.evaluate()


async def test_a_timeout_around_train_is_the_callers_timeout() -> None:
    async def body(_: Recorder) -> None:
        await asyncio.Event().wait()

    trainer = validated(Recorder(body))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(trainer.train(), timeout=0.01)
    assert trainer.state is TrainerState.FAILED


async def test_a_backend_that_swallows_its_cancellation_has_completed() -> None:
    started = asyncio.Event()

    async def body(_: Recorder) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:  # some backends take it as "stop early"
            return

    trainer = validated(Recorder(body))
    task = asyncio.create_task(trainer.train())
    await started.wait()
    task.cancel()
    assert await task is trainer.trained
    assert trainer.state is TrainerState.COMPLETED


@pytest.mark.parametrize("elsewhere", [False, True], ids=["same context", "other context"])
@pytest.mark.parametrize("phase", PHASES)
def test_a_closed_coroutine_has_failed(phase: Phase, elsewhere: bool) -> None:
    async def body(_: Recorder) -> None:
        await asyncio.sleep(0)

    class Suspending(Recorder):
        async def evaluate(self, test_data: Any = None) -> TrainMetrics:
            await asyncio.sleep(0)
            return self.evaluated

    trainer = validated(Suspending(body))
    coroutine = getattr(trainer, phase)()
    context = contextvars.copy_context()
    if elsewhere:
        context.run(coroutine.send, None)
    else:
        coroutine.send(None)
    coroutine.close()
    assert trainer.state is state_after(phase)
    [(_, where, error)] = trainer.events_of("error")
    assert where == phase
    assert isinstance(error, GeneratorExit)


async def test_an_error_without_a_message_still_names_the_phase_and_type() -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    error = MuteError()
    trainer = validated(Failing(error))
    with pytest.raises(
        TrainerError, match=r"Failing.train failed: MuteError: \(its message"
    ) as caught:
        await trainer.train()
    assert caught.value.__cause__ is error
    assert trainer.state is TrainerState.FAILED


async def test_a_wrong_call_fails_like_any_other_error() -> None:
    trainer = validated(Recorder())
    with pytest.raises(TrainerError, match=r"TypeError: .* unexpected keyword") as caught:
        await trainer.evaluate(dataset=1)  # type: ignore[call-arg]
    assert isinstance(caught.value.__cause__, TypeError)
    assert trainer.state is TrainerState.VALIDATED


async def test_stop_iteration_does_not_end_train_quietly() -> None:
    trainer = validated(Failing(StopIteration()))
    with pytest.raises(TrainerError, match="RuntimeError"):
        await trainer.train()
    assert trainer.state is TrainerState.FAILED


@pytest.mark.parametrize("phase", PHASES)
async def test_the_traceback_goes_straight_to_the_users_line(phase: Phase) -> None:
    error = TrainerError("here")
    trainer = validated(Failing(error))
    with pytest.raises(TrainerError) as caught:
        await getattr(trainer, phase)()
    frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    users = ["train", "body"] if phase == "train" else ["evaluate"]
    assert frames == ["test_the_traceback_goes_straight_to_the_users_line", "wrapper", *users]


async def test_an_evaluate_that_fails_inside_train_is_an_error_of_both() -> None:
    class Measuring(Failing):
        async def train(self) -> TrainMetrics:
            return await self.evaluate()

    error = ValueError("bad split")
    trainer = validated(Measuring(error))
    with pytest.raises(TrainerError, match=r"Measuring.evaluate failed: ValueError") as caught:
        await trainer.train()
    assert trainer.events_of("error") == [
        ("error", "evaluate", error),
        ("error", "train", caught.value),
    ]
    assert trainer.state is TrainerState.FAILED


async def test_train_may_recover_from_a_failed_evaluate() -> None:
    class Patient(Failing):
        async def train(self) -> TrainMetrics:
            with pytest.raises(TrainerError):
                await self.evaluate()
            assert self.state is TrainerState.TRAINING
            return self.trained

    trainer = validated(Patient(ValueError()))
    assert await trainer.train() is trainer.trained
    assert trainer.state is TrainerState.COMPLETED


def test_a_failed_check_raises_its_own_error_and_calls_no_hook() -> None:
    class Picky(Recorder):
        def check_agent(self, agent: Any) -> None:
            raise ValueError("no policy")

    trainer = Picky()
    with pytest.raises(ValueError, match="no policy"):
        trainer.check_agent(object())
    assert trainer.state is TrainerState.CREATED
    assert trainer.events == []


# -- failing hooks ---------------------------------------------------------------------------------


class BrokenHooks(Recorder):
    """Every hook fails, except the two that get a result."""

    def _on_check_passed(self, check: str, arguments: Any) -> None:
        raise RuntimeError("hook")

    def _on_transition(self, before: TrainerState, after: TrainerState) -> None:
        raise RuntimeError("hook")

    def _on_report(self, metrics: Any, step: int) -> None:
        raise RuntimeError("hook")

    def _on_evaluation_report(self, metrics: Any, step: int, data: Any) -> None:
        raise RuntimeError("hook")

    def _on_step(self, step: int) -> None:
        raise RuntimeError("hook")

    def _on_rollouts(self, rollouts: Any, step: int, phase: Any) -> None:
        raise RuntimeError("hook")

    def _on_checkpoint(self, path: str, step: int) -> None:
        raise RuntimeError("hook")

    def _on_evaluate_started(self, test_data: Any) -> None:
        raise RuntimeError("hook")

    async def _on_error(self, phase: Phase, error: BaseException) -> None:
        raise RuntimeError("hook")


async def test_failing_hooks_are_logged_and_break_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def body(trainer: Recorder) -> None:
        trainer.at_step(1)
        trainer.report({"loss": 1.0}, step=1)
        trainer.report({"loss": 1.0}, step=1, phase="eval")
        trainer.report_rollouts([{"prompt": "2 + 2?"}], step=1)
        trainer.report_checkpoint("out", step=1)
        trainer.report_checkpoint(None, step=1)  # type: ignore[arg-type]

    trainer = BrokenHooks(body)
    trainer.check_agent(object())
    trainer.mark_validated()
    assert await trainer.evaluate() is trainer.evaluated
    assert await trainer.train() is trainer.trained
    assert trainer.state is TrainerState.COMPLETED
    said = [record.getMessage().split(".")[-1] for record in caplog.records]
    assert said == [
        "_on_check_passed failed",
        "_on_transition failed",
        "_on_evaluate_started failed",
        "_on_step failed",
        "_on_report failed",
        "_on_evaluation_report failed",
        "_report_rollouts failed",
        "_report_checkpoint failed",
    ]  # only the first of three transitions: the log is throttled


@pytest.mark.parametrize("error", [ValueError("first"), KeyboardInterrupt()])
def test_a_failing_hook_does_not_hide_the_error(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = BrokenHooks(raising(error))
    trainer.mark_validated()
    with pytest.raises((TrainerError, KeyboardInterrupt)) as caught:
        run(trainer.train())
    assert error in (caught.value, caught.value.__cause__)
    assert trainer.state is TrainerState.FAILED
    assert not runtime_of(trainer).training
    assert "BrokenHooks._on_error failed" in caplog.text


async def test_a_backend_method_with_the_name_of_a_hook_does_not_hide_the_error() -> None:
    class Legacy(Recorder):
        def _on_error(self, error: Exception) -> None:  # type: ignore[override]
            raise AssertionError("not for us")

    trainer = Legacy(raising(ValueError("first")))
    trainer.mark_validated()
    with pytest.raises(TrainerError, match="ValueError: first"):
        await trainer.train()


@pytest.mark.parametrize("phase", PHASES)
async def test_a_result_hook_may_raise_and_the_state_stays(phase: Phase) -> None:
    class UndeliveredError(Exception):
        pass

    class Strict(Recorder):
        async def _on_train_result(self, metrics: TrainMetrics) -> None:
            raise UndeliveredError

        async def _on_evaluate_result(self, metrics: TrainMetrics, test_data: Any) -> None:
            raise UndeliveredError

    trainer = validated(Strict())
    with pytest.raises(UndeliveredError):
        await getattr(trainer, phase)()
    assert trainer.events_of("error") == []
    if phase == "train":
        assert trainer.state is TrainerState.COMPLETED
    assert not runtime_of(trainer).training


async def test_a_train_cancelled_in_its_result_hook_has_completed() -> None:
    telling = asyncio.Event()

    class Slow(Recorder):
        async def _on_train_result(self, metrics: TrainMetrics) -> None:
            telling.set()
            await asyncio.Event().wait()

    trainer = validated(Slow())
    task = asyncio.create_task(trainer.train())
    await telling.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert trainer.state is TrainerState.COMPLETED
    assert trainer.events_of("error") == []


def test_ctrl_c_in_a_hook_passes_and_fails_the_train() -> None:
    class Interrupted(Recorder):
        def _on_transition(self, before: TrainerState, after: TrainerState) -> None:
            if after is TrainerState.COMPLETED:
                raise KeyboardInterrupt
            super()._on_transition(before, after)

    trainer = validated(Interrupted())
    with pytest.raises(KeyboardInterrupt):
        run(trainer.train())
    assert trainer.state is TrainerState.FAILED
    assert not runtime_of(trainer).training


# -- final states set by the subclass and by the contract ------------------------------------------


@pytest.mark.parametrize("said", [None, TrainerState.COMPLETED, TrainerState.FAILED])
async def test_train_that_returns(said: TrainerState | None) -> None:
    async def body(trainer: Recorder) -> None:
        if said:
            trainer._state = said

    trainer = validated(Recorder(body))
    assert await trainer.train() is trainer.trained
    assert trainer.state is (said or TrainerState.COMPLETED)
    assert [event[0] for event in trainer.events] == ["move", "move", "trained"]


@pytest.mark.parametrize("said", [None, TrainerState.COMPLETED, TrainerState.FAILED])
async def test_train_that_raises(said: TrainerState | None) -> None:
    async def body(trainer: Recorder) -> None:
        if said:
            trainer._state = said
        raise ValueError("late")

    trainer = validated(Recorder(body))
    with pytest.raises(TrainerError, match="late"):
        await trainer.train()
    assert trainer.state is TrainerState.FAILED
    last = trainer.events_of("move")[-1]
    before = TrainerState.COMPLETED if said == "completed" else TrainerState.TRAINING
    assert last == ("move", before, TrainerState.FAILED)


async def test_completed_may_become_failed_only_inside_train() -> None:
    trainer = validated(Recorder())
    await trainer.train()
    with pytest.raises(TrainerError, match="from state completed to failed"):
        trainer._state = TrainerState.FAILED
    assert trainer.state is TrainerState.COMPLETED


async def test_a_watchdog_may_fail_a_train_in_another_task() -> None:
    started, stop = asyncio.Event(), asyncio.Event()

    async def body(_: Recorder) -> None:
        started.set()
        await stop.wait()

    trainer = validated(Recorder(body))
    task = asyncio.create_task(trainer.train())
    await started.wait()
    trainer._state = TrainerState.FAILED
    stop.set()
    await task
    assert trainer.state is TrainerState.FAILED
