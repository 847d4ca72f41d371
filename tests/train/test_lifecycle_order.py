"""Overlapping calls: super() chains, recursion, races between tasks and threads."""

import asyncio
import contextvars
import gc
import threading
import weakref
from typing import Any

import pytest

from lifecycle_recorder import Recorder, run
from orbiter.train import TrainerError, TrainerState, TrainMetrics

DEADLINE = 10.0


class Base(Recorder):
    """Logs the calls that reach it; does not call `_require_validated`."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[str] = []

    def check_config(self, config: Any = None) -> None:
        self.log.append("Base.check_config")

    async def train(self) -> TrainMetrics:
        self.log.append("Base.train")
        self._state = TrainerState.TRAINING
        self._state = TrainerState.COMPLETED
        return self.trained

    async def evaluate(self, test_data: Any = None) -> TrainMetrics:
        self.log.append("Base.evaluate")
        return self.evaluated


class Middle(Base):
    def check_config(self, config: Any = None) -> None:
        super().check_config(config)
        self.log.append("Middle.check_config")

    async def train(self) -> TrainMetrics:
        self._require_validated()
        await super().train()
        self.log.append("Middle.train")
        return TrainMetrics(steps=2)

    async def evaluate(self, test_data: Any = None) -> TrainMetrics:
        await super().evaluate(test_data)
        self.log.append("Middle.evaluate")
        return TrainMetrics(steps=2)


class Leaf(Middle):
    def check_config(self, config: Any = None) -> None:
        super().check_config({"from": "leaf"})
        self.log.append("Leaf.check_config")

    async def train(self) -> TrainMetrics:
        self._require_validated()
        await super().train()
        assert self.state is TrainerState.COMPLETED
        self.log.append("Leaf.train")
        return TrainMetrics(steps=3)

    async def evaluate(self, test_data: Any = None) -> TrainMetrics:
        await super().evaluate("narrowed")
        self.log.append("Leaf.evaluate")
        return TrainMetrics(steps=3)


def moves(trainer: Recorder) -> list[str]:
    return [after.value for _, _, after in trainer.events_of("move")]


# -- super() ---------------------------------------------------------------------------------------


async def test_a_chain_of_three_is_one_event_each_with_the_outermost_arguments() -> None:
    trainer = Leaf()
    trainer.check_config("given")
    trainer.mark_validated()
    await trainer.evaluate("asked")
    await trainer.train()
    assert trainer.log == [
        f"{level}.{name}"
        for name in ("check_config", "evaluate", "train")
        for level in ("Base", "Middle", "Leaf")
    ]
    assert trainer.events == [
        ("check", "check_config", {"config": "given"}),
        ("move", TrainerState.CREATED, TrainerState.VALIDATED),
        ("evaluating", "asked"),
        ("evaluated", TrainMetrics(steps=3), "asked"),
        ("move", TrainerState.VALIDATED, TrainerState.TRAINING),
        ("move", TrainerState.TRAINING, TrainerState.COMPLETED),
        ("trained", TrainMetrics(steps=3)),
    ]


async def test_a_child_may_fail_after_its_super_has_completed() -> None:
    class Saving(Leaf):
        async def train(self) -> TrainMetrics:
            await super().train()
            assert self.state is TrainerState.COMPLETED
            raise OSError("disk full")

    trainer = Saving()
    trainer.mark_validated()
    with pytest.raises(TrainerError, match="disk full"):
        await trainer.train()
    assert moves(trainer) == ["validated", "training", "completed", "failed"]
    assert trainer.events_of("trained") == []


async def test_an_exception_is_not_wrapped_between_the_levels_of_a_chain() -> None:
    class Fragile(Base):
        async def train(self) -> TrainMetrics:
            raise KeyError("batch")

    class Robust(Fragile):
        async def train(self) -> TrainMetrics:
            try:
                return await super().train()
            except KeyError:
                return self.trained

    trainer = Robust()
    trainer.mark_validated()
    assert await trainer.train() is trainer.trained
    assert trainer.state is TrainerState.COMPLETED
    assert trainer.events_of("error") == []


async def test_a_diamond_runs_each_level_once() -> None:
    class Left(Base):
        async def train(self) -> TrainMetrics:
            self.log.append("Left.train")
            return await super().train()

    class Right(Base):
        async def train(self) -> TrainMetrics:
            self.log.append("Right.train")
            return await super().train()

    class Bottom(Left, Right):
        pass

    trainer = Bottom()
    trainer.mark_validated()
    await trainer.train()
    assert trainer.log == ["Left.train", "Right.train", "Base.train"]
    assert moves(trainer) == ["validated", "training", "completed"]
    assert len(trainer.events_of("trained")) == 1


async def test_a_parent_called_by_its_name_is_super_too() -> None:
    class Old(Base):
        async def train(self) -> TrainMetrics:
            return await Base.train(self)

    trainer = Old()
    trainer.mark_validated()
    await trainer.train()
    assert moves(trainer) == ["validated", "training", "completed"]


async def test_super_in_a_task_or_a_worker_thread_of_train_is_still_super() -> None:
    class InTask(Base):
        async def train(self) -> TrainMetrics:
            return await asyncio.create_task(super().train())

    class InThread(Base):
        async def train(self) -> TrainMetrics:
            return await asyncio.to_thread(lambda: run(super(InThread, self).train()))

    for kind in (InTask, InThread):
        trainer = kind()
        trainer.mark_validated()
        assert await trainer.train() is trainer.trained
        assert moves(trainer) == ["validated", "training", "completed"]


def test_a_check_that_runs_the_others_and_validates() -> None:
    class AllInOne(Leaf):
        def check_config(self, config: Any = None) -> None:
            self.check_agent("agent")
            super().check_config(config)
            self.mark_validated()

    trainer = AllInOne()
    trainer.check_config("given")
    assert trainer.state is TrainerState.VALIDATED
    assert trainer.events == [
        ("check", "check_agent", {"agent": "agent"}),
        ("move", TrainerState.CREATED, TrainerState.VALIDATED),
        ("check", "check_config", {"config": "given"}),
    ]


async def test_super_from_another_method_does_not_bypass_the_order() -> None:
    class Shortcut(Leaf):
        async def quick(self) -> TrainMetrics:
            return await super().train()

        def late(self) -> None:
            super().check_config()

    trainer = Shortcut()
    with pytest.raises(TrainerError):
        await trainer.quick()
    trainer.mark_validated()
    with pytest.raises(TrainerError):
        trainer.late()
    await trainer.quick()
    with pytest.raises(TrainerError):
        await trainer.quick()
    assert trainer.log.count("Base.train") == 1


# -- recursion and concurrency ---------------------------------------------------------------------


async def test_train_inside_train_is_refused() -> None:
    refusals = []

    async def body(trainer: Recorder) -> None:
        with pytest.raises(TrainerError) as caught:
            await trainer.train()
        refusals.append(caught.value)

    trainer = Recorder(body)
    trainer.mark_validated()
    await trainer.train()
    assert len(refusals) == 1
    assert moves(trainer) == ["validated", "training", "completed"]


async def test_evaluate_inside_evaluate_is_a_separate_event() -> None:
    class Both(Recorder):
        async def evaluate(self, test_data: Any = None) -> TrainMetrics:
            if test_data == "all":
                await self.evaluate("hard")
                await self.evaluate("easy")
            return self.evaluated

    trainer = Both()
    await trainer.evaluate("all")
    assert [event[:1] + event[-1:] for event in trainer.events] == [
        ("evaluating", "all"),
        ("evaluating", "hard"),
        ("evaluated", "hard"),
        ("evaluating", "easy"),
        ("evaluated", "easy"),
        ("evaluated", "all"),
    ]


async def test_another_trainer_inside_evaluate_is_another_trainer() -> None:
    class Comparing(Leaf):
        rival: "Comparing | None" = None

        async def evaluate(self, test_data: Any = None) -> TrainMetrics:
            if self.rival is not None:
                await super(Comparing, self.rival).evaluate("rival")
            return await super().evaluate(test_data)

    trainer, rival = Comparing(), Comparing()
    trainer.rival = rival
    await trainer.evaluate("own")
    assert [event[-1] for event in trainer.events] == ["own", "own"]
    assert [event[-1] for event in rival.events] == ["rival", "rival"]


async def test_concurrent_evaluates_are_separate_events() -> None:
    everyone = asyncio.Barrier(3)

    class Meeting(Leaf):
        async def evaluate(self, test_data: Any = None) -> TrainMetrics:
            await everyone.wait()
            await super().evaluate(test_data)
            await everyone.wait()
            return TrainMetrics(extra={"of": test_data})

    trainer = Meeting()
    results = await asyncio.gather(*(trainer.evaluate(name) for name in "abc"))
    assert [result.extra["of"] for result in results] == ["a", "b", "c"]
    assert [event[1] for event in trainer.events_of("evaluating")] == ["a", "b", "c"]
    ended = [(event[1].extra["of"], event[2]) for event in trainer.events_of("evaluated")]
    assert sorted(ended) == [("a", "a"), ("b", "b"), ("c", "c")]


async def test_evaluate_in_a_task_spawned_by_train() -> None:
    async def body(trainer: Recorder) -> None:
        task = asyncio.create_task(trainer.evaluate("val"))
        await task

    trainer = Recorder(body)
    trainer.mark_validated()
    await trainer.train()
    assert [event[0] for event in trainer.events] == [
        "move",
        "move",
        "evaluating",
        "evaluated",
        "move",
        "trained",
    ]


async def test_evaluate_from_an_unrelated_task_during_train() -> None:
    started, stop = asyncio.Event(), asyncio.Event()

    async def body(_: Recorder) -> None:
        started.set()
        await stop.wait()

    trainer = Recorder(body)
    trainer.mark_validated()
    task = asyncio.create_task(trainer.train())
    await started.wait()
    assert await trainer.evaluate("probe") is trainer.evaluated
    assert trainer.state is TrainerState.TRAINING
    stop.set()
    await task
    assert trainer.events_of("evaluating") == [("evaluating", "probe")]


async def test_one_of_several_trains_in_one_loop_wins() -> None:
    gate = asyncio.Event()

    async def body(_: Recorder) -> None:
        await gate.wait()

    trainer = Recorder(body)
    trainer.mark_validated()
    tasks = [asyncio.create_task(trainer.train()) for _ in range(3)]
    done, pending = await asyncio.wait(tasks, timeout=DEADLINE, return_when="FIRST_COMPLETED")
    while len(pending) > 1:
        more, pending = await asyncio.wait(pending, timeout=DEADLINE, return_when="FIRST_COMPLETED")
        done |= more
    assert [type(task.exception()) for task in done] == [TrainerError, TrainerError]
    assert trainer.state is TrainerState.TRAINING
    gate.set()
    [winner] = pending
    assert await winner is trainer.trained
    assert moves(trainer) == ["validated", "training", "completed"]
    assert trainer.events_of("error") == []


def test_one_of_two_trains_in_two_threads_wins() -> None:
    lost = threading.Event()
    both = threading.Barrier(2)
    outcomes: list[Any] = []

    async def body(_: Recorder) -> None:
        assert await asyncio.to_thread(lost.wait, DEADLINE)

    trainer = Recorder(body)
    trainer.mark_validated()

    def train() -> None:
        both.wait(DEADLINE)
        try:
            outcomes.append(asyncio.run(trainer.train()))
        except TrainerError as error:
            outcomes.append(error)
            lost.set()

    threads = [threading.Thread(target=train) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    refused, result = outcomes
    assert isinstance(refused, TrainerError)
    assert result is trainer.trained
    assert moves(trainer) == ["validated", "training", "completed"]
    assert trainer.events_of("error") == []


# -- tasks that outlive the call that started them -------------------------------------------------


class Lingering(Base):
    """Leaves a task behind that calls `super()` later."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.left: asyncio.Task[Any] | None = None

    async def train(self) -> TrainMetrics:
        self.left = asyncio.create_task(self.later("train"))
        return await super().train()

    async def evaluate(self, test_data: Any = None) -> TrainMetrics:
        self.left = asyncio.create_task(self.later("evaluate"))
        return await super().evaluate(test_data)

    async def later(self, name: str) -> TrainMetrics:
        await self.gate.wait()
        if name == "train":
            return await super().train()
        return await super().evaluate("later")


async def test_a_task_that_outlives_train_does_not_train_again() -> None:
    trainer = Lingering()
    trainer.mark_validated()
    await trainer.train()
    trainer.gate.set()
    assert trainer.left is not None
    with pytest.raises(TrainerError, match="a trainer trains once"):
        await trainer.left
    assert trainer.log == ["Base.train"]


async def test_an_evaluate_that_outlives_another_is_a_separate_event() -> None:
    trainer = Lingering()
    await trainer.evaluate("now")
    trainer.gate.set()
    assert trainer.left is not None
    await trainer.left
    assert trainer.events_of("evaluating") == [("evaluating", "now"), ("evaluating", "later")]
    assert len(trainer.events_of("evaluated")) == 2


def test_a_context_that_outlives_a_call_does_not_keep_the_trainer_alive() -> None:
    kept: list[contextvars.Context] = []

    async def body(_: Recorder) -> None:
        kept.append(contextvars.copy_context())

    trainer = Recorder(body)
    trainer.mark_validated()
    run(trainer.train())
    alive = weakref.ref(trainer)
    del trainer
    gc.collect()
    assert alive() is None


async def test_a_chain_of_tasks_does_not_accumulate_finished_calls() -> None:
    sizes: list[int] = []

    class Handing(Recorder):
        async def evaluate(self, test_data: Any = None) -> TrainMetrics:
            sizes.append(
                sum(
                    len(value)
                    for variable, value in contextvars.copy_context().items()
                    if variable.name == "orbiter_inside"
                )
            )
            if test_data:
                over = asyncio.Event()
                self.next = asyncio.create_task(self.hand_on(over, test_data - 1))
                asyncio.get_running_loop().call_soon(over.set)
            return self.evaluated

        async def hand_on(self, over: asyncio.Event, left: int) -> None:
            await over.wait()
            await self.evaluate(left)

    trainer = Handing()
    await trainer.evaluate(5)
    while len(sizes) < 6:
        await trainer.next
    assert sizes == [1] * 6
