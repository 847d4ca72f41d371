"""Values that configs hold, from the standard library and small third-party libraries."""

import argparse
import enum
import functools
import math
import operator
import random
import re
from collections import ChainMap, Counter, OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable
from dataclasses import KW_ONLY, InitVar, dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any, ClassVar

import attr
import ml_collections
import numpy as np
import pydantic
from omegaconf import OmegaConf

from orbiter.train import TrainConfig

__all__ = ["ALIKE", "LIGHT"]


@dataclass
class Plain:
    r: int = 8
    targets: tuple[str, ...] = ("q", "v")


class Subclass(Plain):
    """A plain subclass of a dataclass."""

    def __init__(self, r: int, note: str) -> None:
        super().__init__(r)
        self.note = note


@dataclass
class WithInitVar:
    scale: InitVar[int]
    size: int = 0

    def __post_init__(self, scale: int) -> None:
        self.size = scale * 2


@dataclass
class Derived:
    size: int = 2
    area: int = field(init=False)
    _: KW_ONLY
    unit: str = "m"

    def __post_init__(self) -> None:
        self.area = self.size**2
        self.hidden = self.size * 10


@dataclass
class Refusing:
    """Refuses its own values, like bf16 on a machine without a GPU."""

    low: int = 0
    allowed: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not Refusing.allowed:
            raise ValueError("no GPU here")
        self.derived = self.low + 1


@dataclass
class OverClassVar:
    common: ClassVar[int] = 1
    own: int = 2


@dataclass(slots=True)
class Slotted:
    a: int = 1


class MoreSlots(Slotted):
    __slots__ = ("more",)


@dataclass(frozen=True)
class FrozenOne:
    a: Any = 1


@dataclass
class Computed:
    a: int = 3

    @functools.cached_property
    def twice(self) -> int:
        return self.a * 2


@dataclass
class OwnProperty:
    """Has a property over another attribute: libraries deprecate fields like this."""

    rate: float = 0.5

    def __post_init__(self) -> None:
        self._four_bit = False

    @property
    def four_bit(self) -> bool:
        return self._four_bit

    @four_bit.setter
    def four_bit(self, value: bool) -> None:
        self._four_bit = value


class Model(pydantic.BaseModel):
    a: int = 1
    b: list[int] = [1]
    nested: Plain | None = None


class Extra(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    a: int = 1


class Private(pydantic.BaseModel):
    a: int = 1
    _seen: int = pydantic.PrivateAttr(default=0)


class Refined(pydantic.BaseModel):
    a: int = 1

    @pydantic.model_validator(mode="after")
    def doubled(self) -> "Refined":
        object.__setattr__(self, "a", self.a * 2)
        return self


@pydantic.dataclasses.dataclass(config=pydantic.ConfigDict(extra="allow"))
class LooseData:
    a: int = 1


@attr.define
class Attrs:
    x: int = 1
    y: list[int] = attr.field(factory=list)
    _private: int = 3


@attr.s(auto_attribs=True, frozen=True)
class OldAttrs:
    x: int = 1


class Color(enum.Enum):
    RED = "red"


class Kind(enum.Flag):
    A = 1
    B = 2


Pair = namedtuple("Pair", ["one", "two"])


class OwnInit(TrainConfig):
    """A config with an `__init__` of its own."""

    def __init__(self, temperature: float = 0.7, **rest: Any) -> None:
        super().__init__(**rest)
        self.temperature = temperature


def collate(batch: Any) -> Any:
    return batch


def together(*args: Any, **keywords: Any) -> Any:
    return args, keywords


def with_attributes(value: Any, **attributes: Any) -> Any:
    for name, item in attributes.items():
        object.__setattr__(value, name, item)
    return value


class Box:
    """A plain class."""

    def __init__(self, item: Any) -> None:
        self.item = item


def boxes(depth: int, item: Any) -> Any:
    for _ in range(depth):
        item = Box(item)
    return item


def local_function(size: int) -> Callable[[], int]:
    return lambda: size


def more_slots() -> Any:
    return with_attributes(MoreSlots(4), more=5)


def four_bit() -> OwnProperty:
    made = OwnProperty()
    made.four_bit = True
    return made


def private() -> Private:
    made = Private(a=2)
    made._seen = 7
    return made


def used() -> Computed:
    made = Computed(4)
    assert made.twice == 8
    return made


def flagged(config: Any, **flags: bool) -> Any:
    if "struct" in flags:
        OmegaConf.set_struct(config, flags["struct"])
    if "readonly" in flags:
        OmegaConf.set_readonly(config, flags["readonly"])
    return config


def locked() -> Any:
    return ml_collections.ConfigDict({"b": {"z": 1, "a": (1, 2)}, "a": None}).lock()


def referring() -> Any:
    config = ml_collections.ConfigDict({"a": 1})
    config.b = config.get_ref("a") * 2
    return config


LIGHT: dict[str, Callable[[], Any]] = {
    "nothing": lambda: None,
    "nan": lambda: math.nan,
    "minus zero": lambda: -0.0,
    "huge": lambda: 1 << 5000,
    "text": lambda: "é\n\0",
    "surrogate": lambda: "\ud800",
    "bytes": lambda: b"\x00\xff",
    "bytearray": lambda: bytearray(b"x"),
    "complex": lambda: complex(-0.0, 1),
    "decimal": lambda: Decimal("1.50"),
    "fraction": lambda: Fraction(1, 3),
    "range": lambda: range(1, 9, 2),
    "slice": lambda: slice(None, 3, (1, 2)),
    "pattern": lambda: re.compile("a+", re.IGNORECASE),
    "bytes pattern": lambda: re.compile(b"a+"),
    "ellipsis": lambda: ...,
    "date": lambda: date(2024, 1, 2),
    "datetime": lambda: datetime(2024, 1, 2, tzinfo=UTC),
    "time": lambda: time(1, 2),
    "timedelta": lambda: timedelta(days=-1, microseconds=1),
    "path": lambda: Path("/x//y"),
    "enum": lambda: Color.RED,
    "flags": lambda: Kind.A | Kind.B,
    "tuple": lambda: (1, (2.0, None)),
    "set": lambda: {3, 1, "a"},
    "frozenset": lambda: frozenset({(1, 2)}),
    "nested set": lambda: {frozenset({1}), frozenset({2, 3})},
    "namedtuple": lambda: Pair(1, [2]),
    "dict in its order": lambda: {"z": 1, "a": {"y": (1,), "b": 2}, "m": 3},
    "dict with odd keys in its order": lambda: {"z.z": 1, "a": {"y": 1, "": 2}, "b": 0},
    "dict with keys of all types": lambda: {2: "b", "1": 0, 1: "a", (3,): None, 0.5: 1},
    "list of dicts in their order": lambda: [{"z": 1, "a": 2}, {"a": 1, "z": 2}],
    "dict that looks like a marker": lambda: {"$type": "os:system", "$items": [1]},
    "ordered dict": lambda: OrderedDict(z=1, a=OrderedDict(y=(1,), b=2)),
    "defaultdict": lambda: defaultdict(list, z=[1], a=[]),
    "defaultdict of nothing": lambda: defaultdict(None, {1: 2}),
    "deque": lambda: deque([1, (2,)], maxlen=3),
    "counter": lambda: Counter({"z": 2, "a": -1}),
    "namespace": lambda: SimpleNamespace(z=1, a=SimpleNamespace(y=(1,), b=2)),
    "arguments": lambda: argparse.Namespace(lr=1e-4, path=Path("x"), nested={"z": 1, "a": 2}),
    "a class": lambda: Plain,
    "a built-in class": lambda: int,
    "a method of a class": lambda: Attrs.__init__,
    "a function": lambda: collate,
    "a built-in function": lambda: operator.add,
    "partial": lambda: functools.partial(together, 1, key={"z": 1, "a": 2}),
    "partial of partial": lambda: functools.partial(functools.partial(int, base=2), "1"),
    "partial of a local function": lambda: functools.partial(local_function(1)),
    "lambda": lambda: lambda batch: batch,
    "a bound method": lambda: [].append,
    "chain map": lambda: ChainMap({"a": 1}),
    "mapping proxy": lambda: MappingProxyType({"a": 1}),
    "iterator": lambda: iter([1, 2]),
    "object": object,
    "dataclass": lambda: Plain(4, targets=["q"]),  # type: ignore[arg-type]  # as it happens
    "dataclass with an attribute set later": lambda: with_attributes(Plain(4), note="x"),
    "dataclass with a nested attribute": lambda: with_attributes(Plain(4), deep={"z": Path("x")}),
    "dataclass with an attribute of an odd name": lambda: with_attributes(Plain(4), größe=1),
    "dataclass with a local function": lambda: with_attributes(Plain(4), fn=local_function(3)),
    "subclass of a dataclass": lambda: Subclass(3, "x"),
    "init var": lambda: WithInitVar(3),
    "derived attributes": lambda: Derived(3, unit="cm"),
    "refuses its values": lambda: Refusing(3),
    "over a class variable": lambda: with_attributes(OverClassVar(), common=9),
    "slots": lambda: Slotted(3),
    "slots beyond": more_slots,
    "frozen": lambda: FrozenOne((1, FrozenOne())),
    "cached property": used,
    "property over an attribute": four_bit,
    "list of dataclasses": lambda: [Plain(1), with_attributes(Plain(2), x=1), Subclass(1, "a")],
    "model": lambda: Model(a=3, nested=Plain(2)),
    "model with all fields set": lambda: Model(a=1, b=[1], nested=None),
    "model with extra": lambda: Extra(a=2, z=[1], b={"z": 1, "a": 2}),  # type: ignore[call-arg]
    "model with private": private,
    "model that refines": lambda: Refined(a=3),
    "model built past its validators": lambda: Model.model_construct(a="no int"),
    "pydantic dataclass with extra": lambda: LooseData(a=2, more=3),  # type: ignore[call-arg]
    "secret string": lambda: pydantic.SecretStr("hunter2-8f3a"),
    "attrs": lambda: Attrs(2, [1], 5),
    "frozen attrs": lambda: OldAttrs(2),
    "numpy float": lambda: np.float32(0.1),
    "numpy datetime": lambda: np.datetime64("2024-01-01"),
    "numpy string": lambda: np.str_("x"),
    "dtype": lambda: np.dtype("float32"),
    "structured dtype": lambda: np.dtype([("a", "i4")]),
    "array": lambda: np.array([[1.5, math.nan], [-0.0, math.inf]]),
    "half array": lambda: np.array([1, 2, 3], np.float16),
    "empty array": lambda: np.zeros((0, 3), np.int8),
    "boolean array": lambda: np.array([True, False]),
    "string array": lambda: np.array(["a", "bc"]),
    "bytes array": lambda: np.array([b"a", b"bc"]),
    "date array": lambda: np.array(["2024-01-01"], "datetime64[D]"),
    "scalar array": lambda: np.array(3),
    "object array": lambda: np.array([None, 1], dtype=object),
    "large array": lambda: np.arange(5_000),
    "masked array": lambda: np.ma.masked_array([1, 2], [True, False]),
    "numpy class": lambda: np.float32,
    "numpy function": lambda: np.tanh,
    "omegaconf": lambda: OmegaConf.create({"z": {"y": "${a}", "b": [1, {"c": "???"}]}, "a": 1}),
    "omegaconf struct": lambda: flagged(OmegaConf.create({"z": 1, "a": {"c": 2}}), struct=True),
    "omegaconf readonly": lambda: flagged(OmegaConf.create({"a": 1}), readonly=True),
    "omegaconf list": lambda: OmegaConf.create([1, {"z": "x", "a": None}]),
    "omegaconf with odd keys": lambda: OmegaConf.create({1: "a", "b.c": 2, Color.RED: 3}),
    "omegaconf resolved": lambda: OmegaConf.to_container(
        OmegaConf.create({"z": "${a}", "a": 1}), resolve=True
    ),
    "omegaconf part": lambda: OmegaConf.create({"z": {"y": "${a}"}, "a": 1}).z,
    "omegaconf part without interpolation": lambda: OmegaConf.create({"z": {"y": 1}}).z,
    "omegaconf structured": lambda: OmegaConf.structured(Plain),
    "omegaconf missing": lambda: OmegaConf.create("${a}"),
    "ml_collections": lambda: ml_collections.ConfigDict({"b": {"z": 1, "a": (1, 2)}, "a": None}),
    "ml_collections locked": locked,
    "ml_collections frozen": lambda: ml_collections.FrozenConfigDict({"b": {"z": [1]}, "a": 2}),
    "ml_collections with references": referring,
}
"""Label -> makes the value; each process makes its own."""

ALIKE: dict[str, tuple[Callable[[], Any], ...]] = {
    "attributes": (
        lambda: Plain(4),
        lambda: with_attributes(Plain(4), note=1),
        lambda: with_attributes(Plain(4), note=1.0),
    ),
    "properties": (OwnProperty, four_bit),
    "order": (lambda: {"a": 1, "b": 2}, lambda: {"b": 2, "a": 1}),
    "order inside": (lambda: [{"a": 1, "b": 2}], lambda: [{"b": 2, "a": 1}]),
    "model fields set": (lambda: Model(), lambda: Model(a=1), lambda: Model(b=[1])),
    "private": (lambda: Private(a=2), private),
    "closures": (lambda: local_function(1), lambda: local_function(2)),
    "lambdas": (lambda: lambda: 1, lambda: lambda: 2),
    "large arrays": (
        lambda: np.arange(5_000),
        lambda: np.arange(5_000) + (np.arange(5_000) == 3_000),
    ),
    "arrays": (lambda: np.zeros(2), lambda: np.zeros(2, np.float32), lambda: np.zeros((2, 1))),
    "unknown objects": (
        lambda: with_attributes(argparse.ArgumentParser(), x=1),
        lambda: with_attributes(argparse.ArgumentParser(), x=2),
    ),
    "long texts": (
        lambda: deque([object(), "x" * 5_000 + "a"]),
        lambda: deque([object(), "x" * 5_000 + "b"]),
    ),
    "flags": (
        lambda: OmegaConf.create({"a": 1}),
        lambda: flagged(OmegaConf.create({"a": 1}), struct=True),
        lambda: {"a": 1},
        lambda: OrderedDict(a=1),
        lambda: SimpleNamespace(a=1),
        lambda: argparse.Namespace(a=1),
        lambda: ml_collections.ConfigDict({"a": 1}),
    ),
    "deep objects": (lambda: boxes(5, 1), lambda: boxes(5, 2)),
    "objects of many attributes": (
        lambda: boxes(1, list(range(3_000))),
        lambda: boxes(1, [*range(2_999), 0]),
        lambda: with_attributes(boxes(1, 1), **{f"a{n:03}": n for n in range(300)}),
        lambda: with_attributes(boxes(1, 1), **{f"a{n:03}": n for n in range(299)}, a299=0),
    ),
    "order inside what is text": (
        lambda: boxes(1, {"a": 1, "b": 2}),
        lambda: boxes(1, {"b": 2, "a": 1}),
    ),
    "containers of what is text": (
        lambda: defaultdict(lambda: 0, a=1),
        lambda: defaultdict(lambda: 0, a=2),
        lambda: functools.partial(lambda x: x, 1),
        lambda: functools.partial(lambda x: x, 2),
        lambda: functools.partial(lambda x: x, x=2),
    ),
    "functions with attributes": (
        lambda: with_attributes(local_function(1), note=1),
        lambda: with_attributes(local_function(1), note=2),
    ),
    "generators": (
        lambda: random.Random(1),
        lambda: random.Random(2),
        lambda: np.random.default_rng(1),
        lambda: np.random.default_rng(2),
        lambda: np.random.RandomState(1),
        lambda: np.random.RandomState(2),
    ),
    "roots": (
        lambda: OwnInit(temperature=0.2),
        lambda: OwnInit(temperature=0.3),
    ),
}
"""Label -> make values that must not share a digest."""
