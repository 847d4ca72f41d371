"""Config classes as people write them, and generators of values and of classes."""

import math
import uuid
from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field, fields, make_dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag, IntEnum, StrEnum
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal, NamedTuple, Optional, TypedDict, Union
from zoneinfo import ZoneInfo

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from orbiter.train.trainer import TrainConfig

thorough = settings(
    deadline=None,
    derandomize=True,
    max_examples=80,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


class Color(Enum):
    RED = "red"
    ONE = 1


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Mode(StrEnum):
    FAST = "fast"


class Perm(Flag):
    R = 1
    W = 2


class Point(NamedTuple):
    x: float
    y: Any = None


class Shape(TypedDict, total=False):
    size: tuple[int, int]


@dataclass
class Lora:
    r: int = 8
    alpha: float = 0.5
    targets: tuple[str, ...] = ("q", "v")


@dataclass
class DeepLora(Lora):
    depth: int = 2


@dataclass(frozen=True, slots=True)
class Frozen:
    path: Path = Path("/data")
    inner: Lora | None = None
    when: datetime | None = None


@dataclass
class Doubling:
    lr: float = 1.0
    layers: list[int] = field(default_factory=list)
    derived: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.lr *= 2
        self.layers.append(9)
        self.derived += len(self.layers)


@dataclass
class Strict:
    low: int = 0
    high: int = 1

    def __post_init__(self) -> None:
        if self.low >= self.high:
            raise ValueError("low >= high")


@dataclass
class WithInitVar:
    scale: InitVar[int]
    size: int = 0

    def __post_init__(self, scale: int) -> None:
        self.size = scale * 2


@dataclass(slots=True)
class Config(TrainConfig):
    lora: Lora = field(default_factory=Lora)
    maybe: Optional[Lora] = None  # noqa: UP045 - many configs use the old spelling
    frozen: Frozen = field(default_factory=Frozen)
    doubling: Doubling = field(default_factory=lambda: Doubling(1.0))
    either: Lora | Frozen | None = None
    mixed: Lora | dict[str, Any] | str | None = None
    data: Path = Path("/data/x")
    color: Color = Color.RED
    mode: Literal["a", "b", 1] | Mode = "a"
    level: Level | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    names: set[str] = field(default_factory=set)
    when: datetime | date | None = None
    wait: timedelta = timedelta(seconds=1)
    exact: Decimal = Decimal("0.10")
    by_epoch: dict[int, float] = field(default_factory=dict)
    paths: dict[str, Path] = field(default_factory=dict)
    loras: list[Lora] = field(default_factory=list)
    point: Point | None = None
    shape: Shape = field(default_factory=Shape)
    seq: Sequence[int] = field(default_factory=list)
    number: int | float | None = None
    flag: bool = False
    old_union: Union[int, Path, None] = None  # noqa: UP007  the old spelling


class Undecorated(Config):
    pass


class Login(NamedTuple):
    user: str
    password: str


@dataclass
class Client:
    url: str = "https://host"
    api_key: str | None = None


@dataclass
class Secretive(TrainConfig):
    hf_token: str | None = None
    client: Client = field(default_factory=Client)
    clients: list[Client] = field(default_factory=list)
    login: Login | None = None
    secrets: dict[str, Any] = field(default_factory=dict)
    use_auth_token: bool | str = False
    headers: dict[str, str] = field(default_factory=dict)


# -- generators --------------------------------------------------------------------------------

characters = st.one_of(
    st.characters(), st.sampled_from("\ud800\udc00\0\ud83d\ude00"), st.sampled_from('.:/$"[]{} \n')
)
texts = st.one_of(
    st.text(characters, max_size=8),
    st.sampled_from(
        ["", "null", "1", "NaN", "-Infinity", " [1] ", "a.b", "$type", "..", "r", "1e999"]
    ),
)
numbers = st.one_of(
    st.booleans(),
    st.integers(),
    st.floats(),
    st.sampled_from([0, 1, 0.0, -0.0, 1.0, math.nan, math.inf, 1 << 3000, -(1 << 3000)]),
)
zones = st.sampled_from(
    [
        None,
        UTC,
        timezone(timedelta(hours=2)),
        timezone(timedelta(0), "Z"),
        ZoneInfo("Europe/Berlin"),
    ]
)
atoms: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    texts,
    numbers,
    st.binary(max_size=4),
    st.datetimes(timezones=zones),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.decimals(),
    st.uuids(),
    st.complex_numbers(),
    st.sampled_from([*Color, *Level, *Mode, Perm.R, Perm.R | Perm.W, Perm(0)]),
    st.sampled_from([Path("/a"), Path("a//b"), PurePosixPath("x"), PureWindowsPath("c:\\x")]),
    st.sampled_from([np.float32(1.5), np.int8(-1), np.float64(0.1), np.bool_(False), np.str_("x")]),
)
hashable = st.one_of(texts, numbers, st.tuples(numbers), st.dates(), st.sampled_from([*Color]))
loras = st.builds(Lora, st.one_of(st.integers(), texts), numbers, st.tuples(texts))
deep_loras = st.builds(DeepLora, numbers)
trees = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.sets(hashable, max_size=3),
        st.frozensets(hashable, max_size=3),
        st.dictionaries(texts, inner, max_size=4),
        st.dictionaries(st.sampled_from(["a", "b", "a.b", "a b", "$tuple", "$json"]), inner),
        st.dictionaries(hashable, inner, max_size=3),
        st.builds(Point, inner, inner),
        st.builds(Frozen, inner, inner, inner),
        st.builds(Doubling, st.just(1.0), st.lists(st.integers(), max_size=2)),
        loras,
        deep_loras,
    ),
    max_leaves=12,
)
nested = st.one_of(loras, deep_loras, st.builds(Frozen, st.just(Path("/x")), loras), trees)


st.register_type_strategy(Path, st.sampled_from([Path("/x"), Path("1"), Path()]))
st.register_type_strategy(Point, st.builds(Point, st.floats(), numbers))


def values_for(annotation: Any) -> st.SearchStrategy[Any]:
    return st.one_of(st.from_type(annotation), trees, nested)


config_fields: dict[str, st.SearchStrategy[Any]] = {
    f.name: values_for(annotation)
    for f, annotation in zip(
        fields(Config),
        [
            *(int, int, float, str, dict[str, int], Lora, Lora, Frozen, Doubling, Lora, Lora, Path),
            *(Color, Mode, Level, tuple[float, float], set[str], datetime, timedelta, Decimal),
            *(dict[int, float], dict[str, date], list[Lora], Point, Shape, list[int], float, bool),
            Path,
        ],
        strict=True,
    )
}
configs = st.fixed_dictionaries({}, optional=config_fields).map(lambda given: Config(**given))

annotations = st.sampled_from(
    [
        *(
            int,
            float,
            str,
            bool,
            Any,
            object,
            None,
            Path,
            Decimal,
            Color,
            Level,
            Lora,
            Point,
            Frozen,
        ),
        *(datetime, date, timedelta, bytes, complex, uuid.UUID, Literal["a", 1], Literal[True]),
    ]
)
annotations = st.recursive(
    annotations,
    lambda inner: st.one_of(
        inner.map(lambda a: list[a]),  # type: ignore[valid-type]  # made as it runs
        inner.map(lambda a: dict[str, a]),  # type: ignore[valid-type]  # made as it runs
        inner.map(lambda a: tuple[a, ...]),  # type: ignore[valid-type]  # made as it runs
        inner.map(lambda a: Optional[a]),  # noqa: UP045  the old spelling
        st.tuples(inner, inner).map(lambda pair: Union[pair]),  # noqa: UP007  the old spelling
    ),
    max_leaves=3,
)


def class_of(
    members: list[tuple[Any, Any, Any]], *, frozen: bool, slots: bool, inherits: bool
) -> Any:
    """A dataclass with a field for each annotation."""
    names = ["a", "b", "größe"]
    cls = make_dataclass(
        "Made",
        [(name, hint, None) for name, (hint, _, _) in zip(names, members, strict=False)],
        frozen=frozen,
        slots=slots,
    )
    if inherits:
        cls = make_dataclass("Child", [("more", int, 1)], bases=(cls,), frozen=frozen, slots=slots)
    return cls


class_members = st.lists(st.tuples(annotations, trees, trees), min_size=1, max_size=3)
"""Annotations, each with two values that may break it."""
