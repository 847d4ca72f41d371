"""What MLflow is told of data: equal for equal data, in bounded time, no side effects."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
from pydantic import BaseModel

from orbiter_mlflow import names
from orbiter_mlflow.tracking.datasets import DatasetInfo, describe
from orbiter_mlflow.tracking.fingerprint import spread

pandas: Any = pytest.importorskip("pandas")


def described(data: Any, role: str = "train") -> DatasetInfo:
    info = describe(data, role=role)
    assert info is not None
    return info


def digest(data: Any) -> str:
    return described(data).record.digest


def profile(data: Any) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(described(data).record.profile)
    return told


@dataclass
class Example:
    prompt: str
    answer: int


@dataclass(slots=True)
class SlottedExample:
    prompt: str
    answer: int


class ModelExample(BaseModel):
    prompt: str
    answer: int


class Pair(NamedTuple):
    prompt: str
    answer: int


class Split(Enum):
    TRAIN = 1
    TEST = 2


# -- digests -------------------------------------------------------------------------------------

PAIRS: list[tuple[Callable[[], Any], Callable[[], Any]]] = [
    (lambda: [1, 2], lambda: [1, 3]),
    (lambda: [1, 2], lambda: [1.0, 2.0]),
    (lambda: [1, 2], lambda: (1, 2)),
    (lambda: [12], lambda: [1, 2]),
    (lambda: [[1], [2]], lambda: [[1, 2], []]),
    (lambda: ["ab", "c"], lambda: ["a", "bc"]),
    (lambda: ["a"], lambda: [b"a"]),
    (lambda: [True], lambda: [1]),
    (lambda: [None], lambda: ["None"]),
    (lambda: [{"a": 1, "b": 2}], lambda: [{"a": 2, "b": 1}]),
    (lambda: {"a": [1, 2]}, lambda: {"a": [1, 3]}),
    (lambda: [-0.5, float("nan")], lambda: [-0.5, float("inf")]),
    (lambda: [10**5000], lambda: [10**5000 + 1]),
    (lambda: ["\ud800"], lambda: ["\ud801"]),
    (lambda: [1j], lambda: [2j]),
    (lambda: [Decimal(1)], lambda: [Decimal(2)]),
    (lambda: [datetime(2024, 1, 1)], lambda: [datetime(2024, 1, 2)]),
    (lambda: [Split.TRAIN], lambda: [Split.TEST]),
    (lambda: [Example("a", 1)], lambda: [Example("a", 2)]),
    (lambda: [ModelExample(prompt="a", answer=1)], lambda: [ModelExample(prompt="a", answer=2)]),
    (lambda: range(3), lambda: range(4)),
    (lambda: "a.jsonl", lambda: "b.jsonl"),
    (lambda: Path("a.jsonl"), lambda: Path("b.jsonl")),
    (lambda: np.arange(6), lambda: np.arange(1, 7)),
    (lambda: np.arange(6), lambda: np.arange(6).reshape(2, 3)),
    (lambda: np.zeros(4, "i4"), lambda: np.zeros(4, "f4")),
    (lambda: np.zeros(0, "i4"), lambda: np.zeros(0, "f4")),
    (lambda: np.array(["a", "b"]), lambda: np.array(["a", "c"])),
    (lambda: np.array(["a", {}], object), lambda: np.array(["b", {}], object)),
    (lambda: np.array(["2024"], "M8[D]"), lambda: np.array(["2025"], "M8[D]")),
    (lambda: [np.float32(1)], lambda: [np.float32(2)]),
    (lambda: (np.zeros((3, 2)), np.zeros(3)), lambda: (np.zeros((3, 2)), np.ones(3))),
    (lambda: pandas.DataFrame({"a": [1, 2]}), lambda: pandas.DataFrame({"a": [1, 3]})),
    (lambda: pandas.DataFrame({"a": [1, 2]}), lambda: pandas.DataFrame({"b": [1, 2]})),
    (lambda: pandas.DataFrame({"a": [1, 2]}), lambda: pandas.DataFrame({"a": [1.0, 2.0]})),
    (lambda: pandas.DataFrame({"a": ["x"]}), lambda: pandas.DataFrame({"a": ["y"]})),
    (lambda: pandas.DataFrame({"a": [["x"]]}), lambda: pandas.DataFrame({"a": [["y"]]})),
    (lambda: pandas.Series(["x", None]), lambda: pandas.Series(["x", "None"])),
    (
        lambda: pandas.Series(["x"], dtype="category"),
        lambda: pandas.Series(["y"], dtype="category"),
    ),
    (lambda: pandas.Series([1, None], dtype="Int64"), lambda: pandas.Series([1, 2], dtype="Int64")),
    (lambda: pandas.Series([1], index=["a"]), lambda: pandas.Series([1], index=["b"])),
]


@pytest.mark.parametrize("number", range(len(PAIRS)))
def test_equal_data_have_equal_digests_and_other_data_others(number: int) -> None:
    make, make_other = PAIRS[number]
    assert digest(make()) == digest(make())
    assert digest(make()) != digest(make_other())
    assert described(make()).certain
    assert 0 < len(digest(make())) <= names.MAX_DATASET_DIGEST


def test_equal_dicts_in_another_order_are_equal() -> None:
    assert digest([{"a": 1, "b": 2}]) == digest([{"b": 2, "a": 1}])
    assert digest({1: "x", "1": "y"}) == digest({"1": "y", 1: "x"})


def test_the_layout_in_memory_does_not_matter() -> None:
    array = np.arange(12.0).reshape(3, 4)
    assert digest(array) == digest(np.asfortranarray(array))
    assert digest(array[:, ::2]) == digest(array[:, ::2].copy())


TYPES_NOT_READ: list[Callable[[], Any]] = [
    lambda: [SlottedExample("a", 1)],
    lambda: [Pair("a", 1)],
    lambda: np.array([(1, 2.0)], "i4,f8"),
    lambda: [{1, 2}],
    lambda: [Fraction(1, 2)],
    lambda: np.zeros(2, np.longdouble),
]


@pytest.mark.parametrize("number", range(len(TYPES_NOT_READ)))
def test_a_type_that_is_not_read_is_named_and_leaves_the_digest_uncertain(number: int) -> None:
    make = TYPES_NOT_READ[number]
    assert digest(make()) == digest(make())
    assert not described(make()).certain
    assert profile(make())["digest"] == "all; some objects by type only"


PUBLISHED: list[tuple[Callable[[], Any], str]] = [
    (lambda: ["a", b"b", 1, True, None, 1.5, -(10**30)], "629a575466b6e812badd33bf27a27b3d"),
    (
        lambda: [{"prompt": "a" * n, "tags": ("x", None), "score": n / 7} for n in range(50)],
        "e9226a42819b46beef8cc80bb97b8e5c",
    ),
    (lambda: {"a": 1, 2: "b", None: 3.5, ("t",): 4}, "7314afb0055e6f136473e330be208eec"),
    (lambda: list(range(50_000)), "2404e95cbbfb606b1a83247e7e72733e"),
    (lambda: ["x" * 20_000_000], "c10e387a8d65bb8e49978d0294854e47"),
    (lambda: {str(n): n for n in range(200_000)}, "45a0c489156fafe6d273f0527777ae58"),
    (lambda: (np.arange(10.0).reshape(5, 2), np.arange(5)), "180515697962187f6f05e56f4a41545f"),
    (lambda: np.zeros((4_000_000, 4), "f4"), "2eb355027c8bce784f13d73465f04630"),
    (lambda: np.zeros((4, 3_000_000)), "ba83b47dbb8051197e25a8289c242598"),
    (lambda: np.array(["a", None, 1], object), "2a9e6f82b9b07af1ab0b423674574528"),
]


@pytest.mark.parametrize("number", range(len(PUBLISHED)))
def test_digests_in_stores_stay_valid(number: int) -> None:
    make, published = PUBLISHED[number]
    assert digest(make()) == published


STABLE = """
import numpy as np, pandas as pd
from pathlib import Path
from orbiter_mlflow.tracking.datasets import describe
data = [
    [{"prompt": "a" * n, "tags": ("x", None), "score": n / 7} for n in range(50)],
    {"a": 1, 2: "b", None: 3.5, ("t",): 4},
    (np.arange(10.0).reshape(5, 2), np.arange(5)),
    pd.DataFrame({"a": [1, 2], "b": ["x", "y"], "c": pd.Timestamp("2024-01-01")}),
    Path("x.jsonl"),
    (n for n in range(3)),
    [object()],
]
for one in data:
    print(describe(one, role="train").record.digest)
"""


def test_digests_are_the_same_in_each_process() -> None:
    def digests(seed: str) -> list[str]:
        environment = os.environ | {
            "PYTHONHASHSEED": seed,
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        done = subprocess.run(
            [sys.executable, "-c", STABLE],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stdout.split()

    first, second = digests("1"), digests("2")
    assert len(first) == 7
    assert first == second


# -- size, and how much was read -----------------------------------------------------------------


READ: list[tuple[Callable[[], Any], int | None, str]] = [
    (lambda: [1, 2, 3], 3, "all"),
    (lambda: list(range(50_000)), 50_000, "sample of 1000 of 50000 rows"),
    (list, 0, "all"),
    (lambda: range(7), 7, "all"),
    (lambda: np.zeros((5, 2)), 5, "all"),
    (lambda: np.zeros((0, 2)), 0, "all"),
    (lambda: np.zeros((4_000_000, 4), "f4"), 4_000_000, "sample of 524288 of 4000000 rows"),
    (lambda: np.zeros((4, 100), object), 4, "all"),
    (lambda: np.zeros((4, 3_000_000)), 4, "long parts sampled"),
    (lambda: (np.zeros((5, 2)), np.zeros(5)), 5, "all"),
    (lambda: ([[1, 2], [3, 4], [5, 6]], [0, 1, 0]), 3, "all"),
    (lambda: ("prompt", "answer"), 2, "all"),
    (lambda: {"prompt": ["a", "b", "c"], "answer": ["d", "e", "f"]}, 3, "all"),
    (lambda: {"a": 1, "b": 2}, 2, "all"),
    (lambda: ["x" * 20_000_000], 1, "long parts sampled"),
    (lambda: [object(), object()], 2, "all; some objects by type only"),
    (lambda: pandas.DataFrame({"a": range(5000)}), 5000, "all"),
    (lambda: pandas.DataFrame({"a": ["x"] * 5000}), 5000, "sample of 1000 of 5000 rows"),
    (lambda: pandas.Series(["x", None]), 2, "all"),
    (lambda: np.float64(1), None, "all"),
    (lambda: 7, None, "all"),
    (lambda: "s3://bucket/train.jsonl", None, "text only"),
    (lambda: Path("train.jsonl"), None, "text only"),
    (lambda: iter([1, 2]), None, "length and type only"),
    (lambda: object(), None, "length and type only"),
    (lambda: {1, 2}, 2, "length and type only"),
    (lambda: np.zeros((900, 50), object), 900, "long parts sampled"),
    (lambda: np.zeros((4000, 5), object), 4000, "sample of 1000 of 4000 rows"),
]


@pytest.mark.parametrize("number", range(len(READ)))
def test_the_profile_says_what_was_read(number: int) -> None:
    make, rows, read = READ[number]
    told = profile(make())
    assert told.get("num_rows") == rows
    assert told["digest"] == read


@pytest.mark.parametrize(
    "make",
    [
        lambda: list(range(3_000_000)),
        lambda: [[[n] * 50 for n in range(100)] for _ in range(200)],
        lambda: {str(n): n for n in range(500_000)},
        lambda: tuple([n] for n in range(500_000)),
        lambda: np.zeros((10_000, 2_000)).T,
        lambda: pandas.DataFrame({"a": ["x"] * 300_000}),
    ],
)
def test_large_data_take_little_time(make: Callable[[], Any]) -> None:
    data = make()
    started = time.process_time()
    described(data)
    assert time.process_time() - started < 2


def test_a_sample_reaches_both_ends() -> None:
    assert spread(99, 3) == [0, 49, 99]
    assert spread(99, 1) == [0]
    rows = list(range(50_000))
    before = digest(rows)
    rows[-1] = 0
    assert digest(rows) != before
    array = np.zeros(4_000_000)
    before = digest(array)
    array[-1] = 1
    assert digest(array) != before


def test_cycles_and_deep_nesting_end() -> None:
    cyclic: list[Any] = [1]
    cyclic += [cyclic, cyclic]
    deep: Any = []
    for _ in range(500):
        deep = [deep]
    assert profile(cyclic)["num_rows"] == 3
    assert profile(deep)["digest"] == "all; some objects by type only"


# -- what must not be touched --------------------------------------------------------------------


class Lazy:
    """As a torch dataset: to ask for an item has side effects."""

    touched = 0

    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int) -> Any:
        type(self).touched += 1
        raise AssertionError

    def __iter__(self) -> Iterator[Any]:
        type(self).touched += 1
        raise AssertionError


class LazyList(list[Any]):
    def __getitem__(self, index: Any) -> Any:
        raise AssertionError

    def __iter__(self) -> Iterator[Any]:
        raise AssertionError


def test_a_lazy_dataset_is_not_asked_for_an_item() -> None:
    for data in (Lazy(), [Lazy()], (Lazy(), Lazy()), {"train": Lazy()}, LazyList([1])):
        described(data)
    assert Lazy.touched == 0
    assert profile(Lazy()) == {"num_rows": 7, "digest": "length and type only"}


def test_an_iterator_is_not_consumed() -> None:
    numbers = iter([1, 2, 3])
    squares = (n * n for n in range(3))
    described(numbers)
    described((squares, [1]))
    assert list(numbers) == [1, 2, 3]
    assert list(squares) == [0, 1, 4]


def test_the_random_state_is_not_touched() -> None:
    before = np.random.get_state()[1].tolist()  # type: ignore[index]
    described(np.zeros(3_000_000))
    described(list(range(5000)))
    described(pandas.DataFrame({"a": ["x"] * 5000}))
    assert np.random.get_state()[1].tolist() == before  # type: ignore[index]


class Hostile:
    def __len__(self) -> int:
        raise OSError

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)

    @property
    def name(self) -> str:
        raise ValueError

    def __repr__(self) -> str:
        raise ValueError


def test_hostile_data_are_survived() -> None:
    array = np.empty(1, object)
    array[0] = Hostile()
    for data in (Hostile(), [Hostile()], {"x": Hostile()}, array):
        info = described(data)
        assert info.record.name == "train_data"
        assert "type only" in info.record.profile


def test_data_that_were_not_read_whole_are_not_certain() -> None:
    first, second = Lazy(), Lazy()
    assert digest(first) == digest(second)
    assert not described(first).certain
    assert not described([first]).certain


# -- names, sources, schemas ---------------------------------------------------------------------


def test_none_is_no_data() -> None:
    assert describe(None, role="train") is None


class Named:
    def __init__(self, name: Any, **attributes: Any) -> None:
        self.name = name
        self.__dict__.update(attributes)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("gsm8k", "gsm8k"),
        ("n" * 600, "n" * 500),
        ("a\x00b\ud800", "a\\x00b\\ud800"),
        ("", "test_data"),
        (None, "test_data"),
        (7, "test_data"),
    ],
)
def test_data_are_named_by_themselves_or_by_their_role(name: Any, shown: str) -> None:
    info = described(Named(name), "eval")
    assert info.record.name == shown
    assert info.own_name == (None if shown == "test_data" else shown)
    assert info.record.context == "eval"


def test_a_series_has_a_name() -> None:
    assert described(pandas.Series([1], name="reward")).record.name == "reward"
    assert described(pandas.DataFrame({"name": ["x"]})).record.name == "train_data"


def test_data_with_a_digest_of_their_own_keep_it() -> None:
    assert described(Named("x", digest="1a2b")).record.digest == "1a2b"
    assert len(digest(Named("x", digest="d" * 50))) == 32
    assert digest(Named("x", _fingerprint="0f" * 8)) == "0f" * 8
    assert profile(Named("x", digest="1a2b")) == {"digest": "its own"}


def test_a_dataset_of_mlflow_describes_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def to_dict(self: Any) -> dict[str, Any]:
        source = {"source": '{"url": "https://x"}', "source_type": "http"}
        return source | {"schema": "{}", "profile": '{"num_rows": 3}', "extra": None}

    kind = type("Own", (Named,), {"to_dict": to_dict, "__module__": "mlflow.data.own"})
    info = described(kind("x", digest="1a2b"))
    assert (info.record.source_type, info.record.source) == ("http", '{"url": "https://x"}')
    assert (info.record.schema, info.record.profile) == ("{}", '{"num_rows": 3}')

    def fail(self: Any) -> None:
        raise OSError

    monkeypatch.setattr(kind, "to_dict", fail)
    assert described(kind("x", digest="1a2b")).record.source_type == "code"


def test_other_data_name_their_type_as_source() -> None:
    info = described(np.zeros(3))
    assert info.record.source_type == "code"
    assert json.loads(info.record.source) == {"tags": {"type": "numpy.ndarray"}}


def test_schemas_are_as_mlflow_writes_them() -> None:
    frame = pandas.DataFrame({"a": [1], "b": [0.5], "c": [True], 3: pandas.Timestamp(0)})
    columns = json.loads(described(frame).record.schema)["mlflow_colspec"]
    assert [(column["name"], column["type"]) for column in columns] == [
        ("a", "long"),
        ("b", "double"),
        ("c", "boolean"),
        ("3", "datetime"),
    ]
    spec = json.loads(described((np.zeros((5, 2)), np.zeros(5, "i4"))).record.schema)[
        "mlflow_tensorspec"
    ]
    tensor = {"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 2]}}
    assert json.loads(spec["features"]) == [tensor]
    assert json.loads(spec["targets"])[0]["tensor-spec"] == {"dtype": "int32", "shape": [-1]}
    assert described([1, 2]).record.schema == ""


def test_wide_frames_stay_within_the_limit() -> None:
    frame = pandas.DataFrame(np.zeros((2, 3000)))
    assert len(json.loads(described(frame).record.schema)["mlflow_colspec"]) == 1000


# -- torch, which need not be installed ------------------------------------------------------------


class FakeDtype:
    def __init__(self, name: str, *, floating: bool) -> None:
        self.name = name
        self.is_floating_point = floating

    def __str__(self) -> str:
        return f"torch.{self.name}"


class FakeTensor:
    """As much of torch.Tensor as is used."""

    def __init__(self, array: Any, dtype: FakeDtype, device: str = "cpu") -> None:
        self.array = array
        self.dtype = dtype
        self.device = type("device", (), {"type": device})
        self.shape = array.shape
        self.ndim = array.ndim

    def __len__(self) -> int:
        return len(self.array)

    def detach(self) -> "FakeTensor":
        return self

    def element_size(self) -> int:
        return int(self.array.itemsize)

    def view(self, dtype: Any) -> "FakeTensor":
        return FakeTensor(self.array.view(dtype), self.dtype)

    def numpy(self) -> Any:
        return self.array


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    fake: Any = ModuleType("torch")
    fake.Tensor = FakeTensor
    fake.nn = ModuleType("torch.nn")
    fake.nn.Parameter = type("Parameter", (FakeTensor,), {})
    fake.uint8, fake.int16 = np.uint8, np.int16
    monkeypatch.setitem(sys.modules, "torch", fake)
    module: ModuleType = fake
    return module


@pytest.mark.usefixtures("torch")
def test_tensors_in_memory_are_read() -> None:
    wide = FakeDtype("float32", floating=True)
    brain, half = FakeDtype("bfloat16", floating=True), FakeDtype("float16", floating=True)
    ones = FakeTensor(np.ones((3, 2), "f4"), wide)
    assert profile(ones) == {"num_rows": 3, "digest": "all"}
    assert digest(ones) == digest(FakeTensor(np.ones((3, 2), "f4"), wide))
    assert digest(ones) != digest(FakeTensor(np.zeros((3, 2), "f4"), wide))
    assert digest(FakeTensor(np.ones(3, "f2"), half)) != digest(FakeTensor(np.ones(3, "f2"), brain))
    assert profile((ones, FakeTensor(np.zeros(3, "f4"), wide)))["num_rows"] == 3


@pytest.mark.usefixtures("torch")
def test_tensors_on_a_device_are_known_by_shape_and_dtype() -> None:
    wide, whole = FakeDtype("float32", floating=True), FakeDtype("int32", floating=False)
    ones = FakeTensor(np.ones((3, 2), "f4"), wide, "cuda")
    assert profile(ones) == {"num_rows": 3, "digest": "length and type only"}
    assert digest(ones) == digest(FakeTensor(np.zeros((3, 2), "f4"), wide, "cuda"))
    assert digest(ones) != digest(FakeTensor(np.ones((3, 2), "f4"), whole, "cuda"))
    assert digest(ones) != digest(FakeTensor(np.ones((3, 1), "f4"), wide, "cuda"))
