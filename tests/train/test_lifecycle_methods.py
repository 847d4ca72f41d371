"""Methods that may implement the contract, and the names by which hooks get their arguments."""

import asyncio
import functools
from abc import ABC
from collections.abc import Callable
from typing import Any

import pytest

from lifecycle_recorder import Event, Recorder, Watched, run
from orbiter.train import Trainer, TrainerError, TrainerState, TrainMetrics

METHODS = ("check_agent", "check_dataset", "check_reward", "check_config", "train", "evaluate")


# -- decorators and descriptors --------------------------------------------------------------------


def no_grad(method: Callable[..., Any]) -> Callable[..., Any]:
    """Like torch's: wraps any function in a plain one."""

    @functools.wraps(method)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return method(*args, **kwargs)

    return inner


async def test_a_plain_decorator_on_an_async_method_hides_nothing() -> None:
    class Decorated(Recorder):
        @no_grad
        async def evaluate(self, test_data: Any = None) -> TrainMetrics:
            return self.evaluated

        @no_grad
        def check_agent(self, agent: Any) -> None: ...

    trainer = Decorated()
    assert await trainer.evaluate("data") is trainer.evaluated
    trainer.check_agent("agent")
    assert trainer.events == [
        ("evaluating", "data"),
        ("evaluated", trainer.evaluated, "data"),
        ("check", "check_agent", {"agent": "agent"}),
    ]


async def test_an_async_decorator_on_a_plain_method() -> None:
    def in_thread(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        async def inner(*args: Any, **kwargs: Any) -> Any:
            return await asyncio.to_thread(method, *args, **kwargs)

        return inner

    class Blocking(Recorder):
        @in_thread
        def train(self) -> TrainMetrics:
            self._require_validated()
            return self.trained

    trainer = Blocking()
    trainer.mark_validated()
    assert await trainer.train() is trainer.trained


def test_a_parents_method_may_be_decorated_again() -> None:
    class Taken(Recorder):
        train = no_grad(Recorder.train)

    trainer = Taken()
    trainer.mark_validated()
    assert run(trainer.train()) is trainer.trained
    assert [event[0] for event in trainer.events] == ["move", "move", "move", "trained"]


async def test_a_class_decorator_that_replaces_the_methods_keeps_the_order() -> None:
    def traced(cls: Any) -> Any:
        cls.evaluate = no_grad(cls.evaluate)
        return cls

    @traced
    class Traced(Recorder):
        async def evaluate(self, test_data: Any = None) -> TrainMetrics:
            if test_data == "again":
                return await self.evaluate("once")
            return self.evaluated

    trainer = Traced()
    await trainer.evaluate("again")
    assert trainer.events_of("evaluating") == [("evaluating", "again"), ("evaluating", "once")]


async def test_static_and_class_methods_are_methods() -> None:
    class Stateless(Watched):
        @classmethod
        def check_agent(cls, agent: Any) -> None:
            assert issubclass(cls, Stateless)

        @staticmethod
        def check_dataset(train_data: Any, test_data: Any = None) -> None: ...

        @staticmethod
        def check_reward(reward_fn: Any = None) -> None: ...

        def check_config(self, config: Any = None) -> None: ...

        async def train(self) -> TrainMetrics:
            return TrainMetrics()

        @staticmethod
        async def evaluate(test_data: Any = None) -> TrainMetrics:
            return TrainMetrics(extra={"on": test_data})

    class Child(Stateless):
        def check_reward(self, reward_fn: Any = None) -> None:  # type: ignore[override]
            super().check_reward(reward_fn)

    trainer = Child()
    trainer.check_agent("a")
    trainer.check_dataset("d", test_data="t")
    trainer.check_reward(len)
    assert await trainer.evaluate("e") == TrainMetrics(extra={"on": "e"})
    trainer.mark_validated()
    with pytest.raises(TrainerError):
        trainer.check_dataset("d")
    assert [event[1:] for event in trainer.events_of("check", "evaluating")] == [
        ("check_agent", {"agent": "a"}),
        ("check_dataset", {"train_data": "d", "test_data": "t"}),
        ("check_reward", {"reward_fn": len}),
        ("e",),
    ]


# -- classes that are refused ----------------------------------------------------------------------


def plain(self: Any, *args: Any) -> Any: ...


async def coroutine(self: Any, *args: Any) -> Any: ...


async def generator(self: Any, *args: Any) -> Any:
    yield 1


class Callme:
    async def __call__(self, *args: Any) -> Any: ...


ASYNC = ("train", "evaluate")
CHECKS = METHODS[:4]


@pytest.mark.parametrize(
    ("name", "method"),
    [
        *((name, method) for name in ASYNC for method in (plain, no_grad(plain), generator)),
        *((name, staticmethod(plain)) for name in ASYNC),
        *((name, method) for name in CHECKS for method in (coroutine, staticmethod(coroutine))),
        *((name, functools.partialmethod(coroutine, 1)) for name in ASYNC),
        *((name, method) for name in METHODS for method in (None, Callme(), property(plain))),
    ],
)
def test_a_method_of_the_wrong_kind_is_refused_by_name(name: str, method: Any) -> None:
    expected = "async def" if name in ASYNC else "def"
    says = rf"^Wrong\.{name} must be a method written `{expected} {name}\(\.\.\.\)`$"
    with pytest.raises(TypeError, match=says):
        type("Wrong", (Recorder,), {name: method})
    mixin = type("Mixin", (), {name: method})
    with pytest.raises(TypeError, match=says):
        type("Wrong", (mixin, Recorder), {})


@pytest.mark.parametrize("value", [TrainerState.CREATED, property(plain), None])
def test_a_class_must_not_define_the_state(value: Any) -> None:
    with pytest.raises(TypeError, match="Taker defines `_state`"):
        type("Taker", (Recorder,), {"_state": value})
    mixin = type("Mixin", (), {"_state": value})
    with pytest.raises(TypeError, match="Taker defines `_state`"):
        type("Taker", (mixin, Recorder), {})


def test_a_class_may_annotate_the_state() -> None:
    class Typed(Recorder):
        _state: TrainerState

    trainer = Typed()
    trainer.mark_validated()
    assert trainer.state is TrainerState.VALIDATED


def test_the_abstract_trainer_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Trainer()  # type: ignore[abstract]
    assert issubclass(Trainer, ABC)


# -- the names of arguments ------------------------------------------------------------------------


def as_declared(self: Any, train_data: Any, test_data: Any = None) -> None: ...
def renamed(self: Any, training: Any, held_out: Any = None) -> None: ...
def renamed_this(this: Any, training: Any, held_out: Any = None) -> None: ...
def half_renamed(self: Any, data: Any, test_data: Any = None) -> None: ...
def swapped(self: Any, test_data: Any, train_data: Any = None) -> None: ...
def positional(self: Any, training: Any, held_out: Any = None, /) -> None: ...
def keyword_only(self: Any, *, train_data: Any, test_data: Any = None) -> None: ...
def anything(self: Any, *args: Any, **kwargs: Any) -> None: ...
def and_more(self: Any, train_data: Any, *more: Any, **options: Any) -> None: ...
def extended(self: Any, train_data: Any, split: str = "a", test_data: Any = None) -> None: ...
def options_only(self: Any, train_data: Any, *, split: str = "a") -> None: ...


BOTH = {"train_data": 1, "test_data": 2}


@pytest.mark.parametrize(
    ("method", "args", "kwargs", "expected"),
    [
        (as_declared, (1,), {}, {"train_data": 1}),
        (as_declared, (1, 2), {}, BOTH),
        (as_declared, (1,), {"test_data": 2}, BOTH),
        (as_declared, (), {"test_data": 2, "train_data": 1}, BOTH),
        (renamed, (1, 2), {}, BOTH),
        (renamed, (1,), {"held_out": 2}, BOTH),
        (renamed, (), {"held_out": 2, "training": 1}, BOTH),
        (renamed_this, (1,), {"held_out": 2}, BOTH),
        (half_renamed, (), {"data": 1, "test_data": 2}, BOTH),
        (swapped, (2, 1), {}, BOTH),
        (positional, (1, 2), {}, BOTH),
        (keyword_only, (), BOTH, BOTH),
        (anything, (1,), {"test_data": 2}, BOTH),
        (anything, (1, 2), {"split": "b"}, {**BOTH, "split": "b"}),
        (and_more, (1, 2), {"split": "b"}, {**BOTH, "split": "b"}),
        (extended, (1, "b"), {}, {"train_data": 1, "split": "b"}),
        (extended, (1, "b", 2), {}, {**BOTH, "split": "b"}),
        (options_only, (1,), {"split": "b"}, {"train_data": 1, "split": "b"}),
    ],
)
def test_hooks_get_arguments_by_the_contracts_names(
    method: Any, args: tuple[Any, ...], kwargs: dict[str, Any], expected: dict[str, Any]
) -> None:
    kind: Any = type("Named", (Recorder,), {"check_dataset": method})
    trainer = kind()
    trainer.check_dataset(*args, **kwargs)
    events: list[Event] = [("check", "check_dataset", expected)]
    assert trainer.events == events


async def evaluate_renamed(self: Any, samples: Any = None) -> TrainMetrics:
    return TrainMetrics()


async def evaluate_by_split(
    self: Any, split: str = "dev", test_data: Any = None, **options: Any
) -> TrainMetrics:
    return TrainMetrics()


@pytest.mark.parametrize(
    ("method", "args", "kwargs", "expected"),
    [
        (evaluate_renamed, (), {}, None),
        (evaluate_renamed, (1,), {}, 1),
        (evaluate_renamed, (), {"samples": 1}, 1),
        (evaluate_by_split, ("test",), {}, None),
        (evaluate_by_split, ("test",), {"test_data": 1, "k": 5}, 1),
    ],
)
async def test_hooks_get_the_test_data_of_evaluate(
    method: Any, args: tuple[Any, ...], kwargs: dict[str, Any], expected: Any
) -> None:
    kind: Any = type("Named", (Recorder,), {"evaluate": method})
    trainer = kind()
    await trainer.evaluate(*args, **kwargs)
    assert trainer.events == [("evaluating", expected), ("evaluated", TrainMetrics(), expected)]


def test_hooks_get_the_very_objects() -> None:
    trainer, data = Recorder(), object()
    trainer.check_dataset(data)
    assert trainer.events[0][2]["train_data"] is data


def test_a_method_without_a_readable_signature_still_runs() -> None:
    def check_agent(self: Any, agent: Any) -> None: ...

    vars(check_agent)["__signature__"] = "none of the kind"
    kind: Any = type("Odd", (Recorder,), {"check_agent": check_agent})
    trainer = kind()
    trainer.check_agent("agent")
    assert trainer.events == [("check", "check_agent", {})]
