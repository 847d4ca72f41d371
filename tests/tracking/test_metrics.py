"""Metric keys and values: legal for MLflow, one key for one source, no value lost or fatal."""

import json
import math
import posixpath
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum, StrEnum
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orbiter.train.trainer import TrainMetrics
from orbiter_mlflow import names
from orbiter_mlflow.text.values import bounded_int, tag_value, text_of
from orbiter_mlflow.tracking.metric_keys import Flat, MetricKeys

quick = settings(derandomize=True, deadline=None, max_examples=60)

AWKWARD = st.sampled_from([*"ab/.:@ \n\x00é\ud8000f2", "::", ":2f:", ":empty:", "..", "//"])
KEYS = st.one_of(st.lists(AWKWARD, max_size=6).map("".join), st.text(max_size=8))
NESTED: st.SearchStrategy[Any] = st.recursive(
    st.integers(-5, 5) | st.text(max_size=2),
    lambda children: st.dictionaries(KEYS | st.integers(0, 3), children, max_size=4),
    max_leaves=12,
)
REPORTS = st.dictionaries(KEYS | st.integers(0, 3) | st.booleans(), NESTED, max_size=5)


def legal(key: str) -> bool:
    """What mlflow/utils/validation.py demands of a key (3.17), and no newline at its end."""
    path = posixpath.normpath(key)
    return (
        re.fullmatch(r"[/\w.\- :]+", key) is not None
        and path == key
        and path != "."
        and not path.startswith(("..", "/"))
        and len(key) <= names.MAX_KEY
    )


def flatten(metrics: Mapping[Any, Any] | TrainMetrics) -> Flat:
    return MetricKeys().flatten("train", metrics)


def only_key(key: Any) -> str:
    (logged,) = flatten({key: 1.0}).numbers
    return logged


def leaves(value: Any) -> int:
    if not isinstance(value, dict) or not value:
        return 1
    return sum(leaves(inner) for inner in value.values())


# -- keys ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "logged"),
    [
        ("loss", "train/loss"),
        ("rewards/mean", "train/rewards/mean"),
        ("größe.x-1 y:z", "train/größe.x-1 y:z"),
        ("pass@1", "train/pass:40:1"),
        ("a:b@c", "train/a:3a:b:40:c"),
        (":40:", "train/:3a:40:3a:"),
        ("", "train/:empty:"),
        (":empty:", "train/:3a:empty:3a:"),
        (".", "train/:2e:"),
        ("a/../b", "train/a/:2e::2e:/b"),
        ("/a", "train/:2f:a"),
        ("a/", "train/a:2f:"),
        ("a//b", "train/a/:2f:b"),
        ("a\n", "train/a:a:"),
        ("\ud800", "train/:d800:"),
        (1, "train/1"),
        (None, "train/None"),
    ],
)
def test_a_key_becomes_legal_and_stays_readable(key: Any, logged: str) -> None:
    assert only_key(key) == logged
    assert legal(logged)


@given(REPORTS)
@quick
def test_every_key_is_legal(report: dict[Any, Any]) -> None:
    flat = MetricKeys().flatten(("eval", "..//x@"), report)
    assert all(legal(key) for key in [*flat.numbers, *flat.texts])


@given(st.sets(KEYS, max_size=30))
@quick
def test_different_keys_stay_different_in_any_run(keys: set[str]) -> None:
    assert len({only_key(key) for key in keys}) == len(keys)
    assert len({MetricKeys().tag(key) for key in keys}) == len(keys)


@given(st.lists(REPORTS, max_size=3))
@quick
def test_in_a_run_no_two_sources_share_a_key(reports: list[dict[Any, Any]]) -> None:
    keys = MetricKeys()
    for report in reports:
        flat = keys.flatten("train", report)
        assert len(flat.numbers) + len(flat.texts) == sum(map(leaves, report.values()))


@given(REPORTS, st.randoms(use_true_random=False))
@quick
def test_a_source_keeps_its_key(report: dict[Any, Any], random: Any) -> None:
    keys = MetricKeys()
    first = keys.flatten("train", report)
    again = keys.flatten("train", report)
    assert (again.numbers, again.texts, again.renamed) == (first.numbers, first.texts, {})
    assert math.isfinite(sum(again.numbers.values()))


def test_sources_that_meet_are_numbered_in_order() -> None:
    keys = MetricKeys()
    flat = keys.flatten("train", {"a/b": 1.0, "a": {"b": 2.0}, 1: 3.0, "1": 4.0, "1:2": 5.0})
    assert flat.numbers == {
        "train/a/b": 1.0,
        "train/a/b:2": 2.0,
        "train/1": 3.0,
        "train/1:2": 4.0,
        "train/1:2:2": 5.0,
    }
    assert flat.renamed == {
        "train/a/b:2": "train/a/b",
        "train/1:2": "train/1",
        "train/1:2:2": "train/1:2",
    }
    assert keys.flatten("train", {"a": {"b": 9}}).numbers == {"train/a/b:2": 9.0}


def test_equal_keys_of_other_types_are_other_sources() -> None:
    keys = MetricKeys()
    logged = [*keys.flatten("train", {1: 0.0}).numbers, *keys.flatten("train", {1.0: 0.0}).numbers]
    logged += keys.flatten("train", {True: 0.0}).numbers
    assert logged == ["train/1", "train/1.0", "train/True"]


def test_keys_that_read_alike_are_told_apart_and_found_again() -> None:
    class Key:
        def __str__(self) -> str:
            return "k"

    keys = MetricKeys()
    for _ in range(3):
        assert list(keys.flatten("train", {Key(): 1, Key(): 2}).numbers) == ["train/k", "train/k:2"]


def test_a_string_enum_is_its_string() -> None:
    class Name(StrEnum):
        LOSS = "loss"

    class Old(str, Enum):  # noqa: UP042  the old spelling
        LOSS = "loss"

    assert only_key(Name.LOSS) == only_key(Old.LOSS) == only_key(np.str_("loss")) == "train/loss"


def test_prefixes_do_not_meet() -> None:
    keys = MetricKeys()
    report = {"loss": 1.0}
    logged = [
        *keys.flatten("eval", {"a": report, "2": report}).numbers,
        *keys.flatten(("eval", "a"), report).numbers,
        *keys.flatten(("eval", 2), report).numbers,
        *keys.flatten(("eval", "2"), report).numbers,
        *keys.flatten("eval/a", report).numbers,
    ]
    assert len(set(logged)) == len(logged) == 6
    assert keys.flatten(("eval",), report).numbers == {"eval/loss": 1.0}
    assert keys.flatten("eval", report).numbers == {"eval/loss": 1.0}


def test_long_keys_are_cut_but_stay_apart() -> None:
    keys = MetricKeys()
    flat = keys.flatten("train", {"x" * 300 + "a": 1, "x" * 300 + "b": 2, "y" * 244: "t" * 9})
    assert len(flat.numbers) == 2
    assert all(legal(key) for key in [*flat.numbers, *flat.texts])
    assert all(re.search(r"x:[0-9a-f]{16}\Z", key) for key in flat.numbers)
    assert flat.numbers == flatten({"x" * 300 + "b": 2, "x" * 300 + "a": 1}).numbers


def test_a_number_beside_a_cut_key_still_fits() -> None:
    key = "/".join("x" * 121 for _ in range(2))
    flat = flatten({key: 1, "x" * 121: {"x" * 121: 2}})
    assert len(flat.numbers) == 2
    assert all(legal(logged) for logged in flat.numbers)


def test_tags_of_the_user_never_meet_ours_or_each_other() -> None:
    keys = MetricKeys()
    assert keys.tag("team") == keys.tag("team") == "team"
    assert keys.tag("e@mail") == "e:40:mail"
    assert keys.tag("orbiter.train.note") == "orbiter.train.note"
    assert list(keys.flatten("train", {"note": "x"}).texts) == ["orbiter.train.note:2"]


def test_dotted_tags_never_meet() -> None:
    flat = flatten({"a/b": "1", "a.b": "2", "a": {"b": "3"}})
    assert flat.texts == {
        "orbiter.train.a.b": "1",
        "orbiter.train.a.b:2": "2",
        "orbiter.train.a.b:3": "3",
    }
    assert flat.renamed == {
        "orbiter.train.a.b:2": "train/a.b",
        "orbiter.train.a.b:3": "train/a/b",
    }


def test_threads_agree_on_keys() -> None:
    keys = MetricKeys()
    found: list[Flat] = []

    def report() -> None:
        found.append(keys.flatten("train", {f"k/{n}": {"x": n} for n in range(200)}))

    threads = [threading.Thread(target=report) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(flat.numbers == found[0].numbers for flat in found)


# -- what is reported ----------------------------------------------------------------------------


def test_train_metrics_give_all_fields_and_extra_beside_them() -> None:
    metrics = TrainMetrics(0.5, 0.25, 7, {"kl": 0.1, "lora": {"r": 8}, "loss": 2, "extra": 3})
    assert flatten(metrics).numbers == {
        "train/loss": 0.5,
        "train/accuracy": 0.25,
        "train/steps": 7.0,
        "train/kl": 0.1,
        "train/lora/r": 8.0,
        "train/extra/loss": 2.0,
        "train/extra/extra": 3.0,
    }


def test_a_mapping_and_train_metrics_continue_one_series() -> None:
    keys = MetricKeys()
    first = keys.flatten("train", {"loss": 1.0, "kl": 2.0}).numbers
    last = keys.flatten("train", TrainMetrics(loss=0.5, extra={"kl": 1.0})).numbers
    assert first.keys() <= last.keys()


@dataclass(slots=True)
class RewardMetrics(TrainMetrics):
    reward: float = 1.5
    history: list[float] = field(default_factory=list)


def test_a_subclass_gives_its_own_fields() -> None:
    flat = flatten(RewardMetrics(extra={"reward": 9}, reward=1.5, history=[0.5]))
    assert flat.numbers == {"train/reward": 1.5, "train/extra/reward": 9.0}
    assert flat.texts == {"orbiter.train.history": "[0.5]"}


def test_odd_train_metrics_survive() -> None:
    unset: Any = object.__new__(TrainMetrics)
    unset.loss = 1.0
    flat = flatten(unset)
    assert flat.numbers == {"train/loss": 1.0}
    assert "AttributeError" in flat.texts["orbiter.train.steps"]
    odd: Any = TrainMetrics(loss=1.0, extra=None)  # type: ignore[arg-type]
    assert flatten(odd).texts == {"orbiter.train.extra": "null"}


@pytest.mark.parametrize("metrics", [None, 0.5, "loss", TrainMetrics, [("loss", 1)]])
def test_what_is_no_metrics_is_refused(metrics: Any) -> None:
    with pytest.raises(TypeError, match="must be a mapping or a TrainMetrics"):
        flatten(metrics)


# -- numbers -------------------------------------------------------------------------------------


class Tensor:
    """As of torch or jax: a shape, an `item`, and nothing that is registered as a number."""

    def __init__(self, value: Any, shape: tuple[int, ...] = ()) -> None:
        self.value = value
        self.shape = shape

    def item(self) -> Any:
        if isinstance(self.value, Exception):
            raise self.value
        return self.value

    def __int__(self) -> int:
        return int(self.value)

    def __repr__(self) -> str:
        return f"tensor({self.value})"


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (True, 1.0),
        (3, 3.0),
        (10**400, math.inf),
        (-(10**400), -math.inf),
        (Decimal("0.5"), 0.5),
        (Fraction(10**400), math.inf),
        (np.float32(0.5), 0.5),
        (np.float64(0.5), 0.5),
        (np.int64(7), 7.0),
        (np.bool_(True), 1.0),
        (np.array(2.5), 2.5),
        (np.longdouble(2), 2.0),
        (Tensor(1.5), 1.5),
        (Tensor(np.longdouble(2)), 2.0),
        (math.inf, math.inf),
    ],
)
def test_numbers_are_plain_floats(value: Any, number: float) -> None:
    keys = MetricKeys()
    for _ in range(2):  # the second time by the short way
        flat = keys.flatten("train", {"x": value})
        assert flat.numbers == {"train/x": number}
        assert type(flat.numbers["train/x"]) is float
        assert not flat.texts


@pytest.mark.parametrize("value", [math.nan, Decimal("NaN"), Decimal("sNaN"), np.float32("nan")])
def test_nan_is_a_number(value: Any) -> None:
    assert math.isnan(flatten({"x": value}).numbers["train/x"])


def test_keys_that_are_not_finite_are_told_once() -> None:
    keys = MetricKeys()
    assert keys.flatten("train", {"a": 1e308, "b": 1e308}).nonfinite == []
    assert keys.flatten("train", {"a": math.nan, "b": 1.0}).nonfinite == ["train/a"]
    assert keys.flatten("train", {"a": -math.inf, "b": math.inf}).nonfinite == ["train/b"]
    assert keys.flatten("train", {"a": 1.0}).nonfinite == []


# -- texts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("warm up", "warm up"),
        (None, "null"),
        ([1, "é", None], '[1,"é",null]'),
        ((1, 2), "[1,2]"),
        ([math.nan], "[NaN]"),
        (b"x", "b'x'"),
        (1j, "1j"),
        ({1}, "{1}"),
        ([1j], "[1j]"),
        ({}, "{}"),
        (np.array([1, 2]), "array([1, 2])"),
        (np.str_("s"), "s"),
        (np.ma.masked, "masked"),
        (Tensor([1], (1,)), "tensor([1])"),
        (Tensor("s"), '"s"'),
        ("a\x00b\ud800", "a\\x00b\\ud800"),
    ],
)
def test_what_is_no_number_is_kept_as_text(value: Any, text: str) -> None:
    flat = flatten({"x": value, "y": 1})
    assert flat.texts == {"orbiter.train.x": text}
    assert flat.numbers == {"train/y": 1.0}


class Hostile:
    """Raises from wherever it is touched."""

    def __repr__(self) -> str:
        raise ValueError

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise RuntimeError

    def __getattr__(self, name: str) -> Any:
        raise OSError(name)


class BadFloat(float):
    def __float__(self) -> float:
        raise ArithmeticError


class Lazy(Mapping[str, float]):
    """A mapping of which one value cannot be had."""

    def __getitem__(self, key: str) -> float:
        if key == "bad":
            raise LookupError
        return 1.0

    def __iter__(self) -> Iterator[str]:
        yield from ("good", "bad", "fine")

    def __len__(self) -> int:
        return 3


class Broken(Lazy):
    def __iter__(self) -> Iterator[str]:
        raise OSError


@pytest.mark.parametrize(
    "make",
    [Hostile, lambda: BadFloat(1), lambda: Tensor(RuntimeError()), lambda: [Hostile()]],
    ids=["hostile", "float", "tensor", "list"],
)
def test_a_bad_value_is_named_and_costs_no_neighbour(make: Callable[[], Any]) -> None:
    flat = flatten({"a": 1, "x": make(), "b": 2})
    assert flat.numbers == {"train/a": 1.0, "train/b": 2.0}
    assert re.fullmatch(r"<[\w.<>]+: unreadable, \w+>", flat.texts["orbiter.train.x"])


def test_a_bad_key_is_named() -> None:
    class Key:
        def __str__(self) -> str:
            raise ValueError

    assert "unreadable" in next(iter(flatten({Key(): 1}).renamed.values()))


def test_a_bad_mapping_gives_what_it_can() -> None:
    flat = flatten(Lazy())
    assert flat.numbers == {"train/good": 1.0, "train/fine": 1.0}
    assert "LookupError" in flat.texts["orbiter.train.bad"]
    assert flatten({"x": Broken(), "y": 1}).numbers == {"train/y": 1.0}
    assert flatten(Broken()).texts


def test_cycles_end() -> None:
    cyclic: dict[str, Any] = {"a": 1}
    cyclic["self"] = cyclic["again"] = cyclic
    items: list[Any] = [1]
    items.append(items)
    flat = flatten({"x": cyclic, "items": items})
    assert flat.numbers == {"train/x/a": 1.0}
    assert flat.texts["orbiter.train.x.self"] == "<dict: contains itself>"
    assert len(flat.texts["orbiter.train.items"]) <= names.MAX_TAG_VALUE


def test_deep_nesting_survives() -> None:
    deep: Any = 1.0
    for _ in range(10 * sys.getrecursionlimit()):
        deep = {"x": deep}
    flat = flatten({"deep": deep, "y": 1})
    assert flat.numbers == {"train/y": 1.0}
    (key,) = flat.texts
    assert legal(key)
    while isinstance(deep, dict):  # else it is freed recursively, too deep for some versions
        deep = deep.pop("x")


def test_sixty_levels_are_flattened() -> None:
    deep: Any = 1.0
    for _ in range(60):
        deep = {"x": deep}
    assert list(flatten(deep).numbers.values()) == [1.0]


@pytest.mark.parametrize(
    ("value", "note"),
    [
        (["x" * 7996], "]"),
        (["x" * 7997], "... (8001 characters)"),
        (["\ud800" * 7000], "... (7004 characters)"),
        ([1.25] * 3000, f"... ({len(json.dumps([1.25] * 3000)) - 2999} characters)"),
        ([1] * 10**6, " characters)"),
        ({n: n for n in range(10**5)}, " characters)"),
        (b"x" * 10**6, " characters)"),
    ],
)
def test_long_texts_say_that_they_are_cut(value: Any, note: str) -> None:
    text = text_of(value)
    assert len(text) == names.MAX_TAG_VALUE
    assert text.endswith(note)


def test_long_strings_say_that_they_are_cut() -> None:
    (text,) = flatten({"x": "y" * 9000}).texts.values()
    assert text == "y" * 7979 + "... (9000 characters)"


@given(st.text(st.characters(exclude_categories=[]), max_size=50) | st.just("é" * 8000))
@quick
def test_tag_values_can_be_stored(text: str) -> None:
    stored = tag_value(text)
    assert "\x00" not in stored
    assert stored.encode() is not None
    assert tag_value(stored) == stored


# -- steps ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "step"),
    [
        (3, 3),
        (True, 1),
        (3.0, 3),
        ("12", 12),
        (Decimal(4), 4),
        (np.int32(5), 5),
        (np.array(6), 6),
        (np.float32(7), 7),
        (Tensor(8), 8),
        (2**70, 2**63 - 1),
        (-(2**70), -(2**63)),
        (1e300, 2**63 - 1),
    ],
)
def test_steps_are_bounded_plain_ints(value: Any, step: int) -> None:
    assert bounded_int(value) == step
    assert type(bounded_int(value)) is int


@pytest.mark.parametrize("value", [0.5, math.nan, math.inf, "x", Decimal("1.5"), Tensor(0.5)])
def test_steps_that_are_not_whole_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="a step must be a whole number, not"):
        bounded_int(value)


@pytest.mark.parametrize("value", [None, [3], np.array([3]), 1j, Tensor(OSError())])
def test_steps_that_are_no_numbers_are_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="a step must be an int, not"):
        bounded_int(value)


def test_a_step_that_raises_is_refused() -> None:
    with pytest.raises(TypeError, match="a step must be an int, not"):
        bounded_int(Hostile())
