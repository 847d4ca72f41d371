"""`TrainMetrics` knows which of its fields were set, whatever a backend does with it."""

import copy
import inspect
import pickle
from collections.abc import Callable
from dataclasses import asdict, astuple, dataclass, field, fields, replace
from typing import Any

import pytest

from orbiter.train import TrainMetrics
from orbiter.train.metrics import left_at_default


@dataclass(slots=True)
class Slotted(TrainMetrics):
    reward: float = 0.0
    tries: int = 0
    history: list[float] = field(default_factory=list)


@dataclass
class WithDict(TrainMetrics):
    reward: float = 0.0
    tries: int = 0
    history: list[float] = field(default_factory=list)


class OwnInit(TrainMetrics):
    def __init__(self, run: str, score: float) -> None:
        super().__init__(accuracy=score)
        self.run = run


def measured(metrics: TrainMetrics) -> set[str]:
    """The fields that would be logged."""
    return {field.name for field in fields(metrics)} - left_at_default(metrics)


def assigned(**values: Any) -> TrainMetrics:
    metrics = TrainMetrics()
    for name, value in values.items():
        setattr(metrics, name, value)
    return metrics


def increased() -> TrainMetrics:
    metrics = TrainMetrics()
    metrics.loss += 0.0
    metrics.steps += 0
    return metrics


def appended() -> Slotted:
    metrics = Slotted()
    metrics.history.append(0.5)
    metrics.extra["kl"] = 0.1
    return metrics


UNSET_BY_ANOTHER = TrainMetrics(steps=3)


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        (TrainMetrics(), set()),
        (TrainMetrics(0.0), {"loss"}),
        (TrainMetrics(0.0, 0.0, 0, {}), {"loss", "accuracy", "steps"}),
        (TrainMetrics(loss=0.0, accuracy=0.0, steps=0, extra={}), {"loss", "accuracy", "steps"}),
        (TrainMetrics(steps=0), {"steps"}),
        (TrainMetrics(accuracy=0), {"accuracy"}),
        (TrainMetrics(extra={"kl": 1}), {"extra"}),
        (assigned(accuracy=0.0), {"accuracy"}),
        (assigned(steps=0), {"steps"}),
        (increased(), {"loss", "steps"}),
        (TrainMetrics(loss=UNSET_BY_ANOTHER.loss), set()),
        (assigned(loss=UNSET_BY_ANOTHER.loss), set()),
        (Slotted(), set()),
        (Slotted(reward=0.0), {"reward"}),
        (Slotted(0.0, 0.0, 0, {}, 0.0, 0), {"loss", "accuracy", "steps", "reward", "tries"}),
        (WithDict(tries=0), {"tries"}),
        (appended(), {"history", "extra"}),
        (OwnInit("a", 0.0), {"accuracy"}),
    ],
)
def test_fields_that_were_set_are_known(metrics: TrainMetrics, expected: set[str]) -> None:
    assert measured(metrics) == expected


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        (replace(TrainMetrics(loss=1.0), accuracy=0.5), {"loss", "accuracy"}),
        (replace(TrainMetrics(accuracy=1.0), loss=0.0), {"loss", "accuracy"}),
        (replace(TrainMetrics(1.0, 1.0), loss=2.0), {"loss", "accuracy"}),
        (replace(TrainMetrics(steps=0), loss=2.0), {"loss", "steps"}),
        (replace(TrainMetrics(), steps=4), {"steps"}),
        (replace(Slotted(tries=0), reward=0.5), {"tries", "reward"}),
        (replace(WithDict(1.0, 1.0), extra={"a": 1}), {"loss", "accuracy", "extra"}),
    ],
)
def test_replace_sets_the_fields_it_is_given(metrics: TrainMetrics, expected: set[str]) -> None:
    assert measured(metrics) == expected


def pickled(protocol: int) -> Callable[[Any], Any]:
    return lambda metrics: pickle.loads(pickle.dumps(metrics, protocol))


@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, replace, *map(pickled, range(2, pickle.HIGHEST_PROTOCOL + 1))],
)
@pytest.mark.parametrize(
    "metrics", [TrainMetrics(), TrainMetrics(accuracy=0.0), Slotted(tries=0), WithDict(reward=0.0)]
)
def test_a_copy_knows_its_set_fields_and_is_independent(
    duplicate: Callable[[Any], Any], metrics: TrainMetrics
) -> None:
    before = measured(metrics)
    twin = duplicate(metrics)
    assert twin == metrics
    assert measured(twin) == before
    twin.loss = 0.0
    assert measured(twin) == before | {"loss"}
    assert measured(metrics) == before


def test_the_dataclass_is_as_in_the_contract() -> None:
    assert TrainMetrics() == TrainMetrics(0.0, 0.0, 0, {})
    assert repr(TrainMetrics()) == "TrainMetrics(loss=0.0, accuracy=0.0, steps=0, extra={})"
    assert asdict(TrainMetrics()) == {"loss": 0.0, "accuracy": 0.0, "steps": 0, "extra": {}}
    assert [type(value) for value in astuple(TrainMetrics())] == [float, float, int, dict]
    slots: tuple[str, ...] = TrainMetrics.__dict__["__slots__"]
    assert slots == ("loss", "accuracy", "steps", "extra") == TrainMetrics.__match_args__
    assert [*inspect.signature(TrainMetrics).parameters] == [*slots]
    assert [field.default for field in fields(TrainMetrics)[:3]] == [0.0, 0.0, 0]
    assert not hasattr(TrainMetrics(), "__dict__")
    metrics: Any = TrainMetrics()
    with pytest.raises(AttributeError):
        metrics.reward = 1.0
    kind: Any = TrainMetrics
    with pytest.raises(TypeError):
        kind(reward=1.0)
    with pytest.raises(TypeError):
        hash(metrics)


def test_other_objects_have_no_unset_fields() -> None:
    assert left_at_default(object()) == left_at_default({"loss": 0.0}) == frozenset()
