"""Fingerprint data in bounded time, without running a user's code.

Read are lists, tuples, dicts and plain values, numpy arrays, torch tensors on the CPU, pandas and
polars frames, and what a dataclass or pydantic model keeps in its `__dict__`. Anything else counts
by its type only: asking a lazy dataset for an item could load gigabytes, or move the random state
of the training that follows.
"""

import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import is_dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import partial
from hashlib import sha256
from pathlib import PurePath
from struct import pack
from typing import Any, NamedTuple
from uuid import UUID

from orbiter_mlflow.text.values import type_name

BUDGET = 8 * 2**20
"""Bytes that are read at most. Longer data are sampled evenly, by count and not by time, so that
each machine samples the same."""
SAMPLE_ROWS = 1000
"""Rows, and columns, that are read at most of anything but a numeric array."""

_NODE = 64
"""Bytes of the budget that each object costs besides its content."""
_MAX_TUPLE = 4
"""Up to this length, a tuple may be columns: `(X, y, groups, weights)`. A longer one is rows."""
_BLOCK = 16 * 2**10
_MAX_DEPTH = 16
_PLAIN_TEXT = (date, time, timedelta, Decimal, UUID, PurePath)
_RAW_KINDS = frozenset("biufcmMSU")
"""Kinds of numpy dtypes whose bytes are their value."""


class Rows(NamedTuple):
    """How many rows were read, of how many."""

    read: int
    total: int


class Fingerprint:
    """The digest of one piece of data.

    Attributes:
        digest: 32 hex digits; equal for equal data in every process.
        rows: how many rows were read, of how many; None for data without rows.
        sampled: whether something was too long to be read whole.
        by_type_only: whether something was of a type that is not read.
    """

    def __init__(self, data: object, budget: int = BUDGET, depth: int = 0) -> None:
        self.sampled = self.by_type_only = False
        self._spent = 0
        self._sha = sha256()
        self.rows = self._feed(data, budget, depth)
        self.digest = self._sha.hexdigest()[:32]

    def _feed(self, value: Any, budget: int, depth: int) -> Rows | None:
        self._spent += _NODE
        kind = type(value)
        if kind is str or kind is bytes or kind is bytearray:
            self._text(value, budget)
        elif kind is int or kind is bool:
            self._sha.update(b"%s:%x;" % (kind.__name__[:1].encode(), value))
        elif kind is float:
            self._sha.update(b"f;" + pack("<d", value))
        elif value is None:
            self._sha.update(b"n;")
        elif depth == _MAX_DEPTH:
            self._type_only(value)
        elif kind is list or kind is tuple:
            return self._sequence(value, budget, depth)
        elif kind is dict:
            return self._dict(value, budget, depth)
        elif (array := _as_array(value)) is not None:
            return self._array(array, budget, depth)
        elif _is_tensor(value):
            return self._tensor(value, budget, depth)
        elif (columns := columns_of(value)) is not None:
            return self._frame(value, columns, budget, depth)
        elif kind is range:
            self._head("range", value.start, value.stop, value.step)
            return Rows(len(value), len(value))
        elif kind is complex or issubclass(kind, _PLAIN_TEXT) or kind.__name__ == "NAType":
            self._head(type_name(value), str(value))
        elif issubclass(kind, Enum):
            self._head(type_name(value), value.name)
        elif (fields := _fields_of(value)) is not None:
            self._head(type_name(value))
            self._feed(fields, budget, depth + 1)
        else:
            self._type_only(value)
        return None

    def _head(self, *parts: object) -> None:
        self._sha.update(ascii(parts).encode())

    def _type_only(self, value: object) -> None:
        self.by_type_only = True
        self._head("type", type_name(value))

    def _raw(self, data: bytes | bytearray) -> None:
        self._spent += len(data)
        self._sha.update(data)

    def _text(self, value: str | bytes | bytearray, budget: int) -> None:
        self._head(type(value).__name__, len(value))
        size, starts = len(value), [0]
        if size > max(budget, _NODE):
            self.sampled = True
            size = min(_BLOCK, max(budget, _NODE))
            starts = spread(len(value) - size, max(1, budget // size))
        for at in starts:
            part = value[at : at + size]
            self._raw(part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part)

    def _each(self, values: Collection[Any], budget: int, depth: int) -> list[Rows | None]:
        """Feed each value, with an even share of what those before it left of the budget."""
        end, left, rows = self._spent + budget, len(values), []
        for value in values:
            rows.append(self._feed(value, max(0, end - self._spent) // left, depth + 1))
            left -= 1
        return rows

    def _picked(self, total: int, budget: int) -> Sequence[int]:
        """The places to read of `total` objects."""
        most = min(SAMPLE_ROWS, max(1, budget // _NODE))
        if total <= most:
            return range(total)
        self.sampled = True
        return spread(total - 1, most)

    def _sequence(self, value: Any, budget: int, depth: int) -> Rows:
        self._head(type(value).__name__, len(value))
        picked = self._picked(len(value), budget)
        values = [value[at] for at in picked]
        rows = self._each(values, budget, depth)
        may_be_columns = type(value) is tuple and len(value) <= _MAX_TUPLE
        table = _table(values, rows) if may_be_columns else None
        return table or Rows(len(picked), len(value))

    def _dict(self, value: dict[Any, Any], budget: int, depth: int) -> Rows:
        self._head("dict", len(value))
        keys = list(value)
        if len(keys) <= max(64, budget // _NODE):  # equal dicts may differ in order
            keys.sort(key=None if all(type(key) is str for key in keys) else _key_order)
        picked = self._picked(len(keys), budget)
        keys = [keys[at] for at in picked]
        self._each(keys, budget // 4, depth)
        values = [value[key] for key in keys]
        rows = self._each(values, budget, depth)
        return _table(values, rows) or Rows(len(picked), len(value))

    def _array(self, array: Any, budget: int, depth: int) -> Rows | None:
        self._head("array", array.dtype.str, *array.shape)
        total = len(array) if array.ndim else 0
        read = total
        if array.size == 0:
            pass
        elif array.dtype.kind in "OT":
            flat = array.reshape(-1) if array.flags.c_contiguous else array.flat
            picked = self._picked(array.size, budget)
            self._each([flat[at] for at in picked], budget, depth)
            read = min(len(picked), total)
        elif array.dtype.kind not in _RAW_KINDS or array.dtype.char in "gG":  # padded long doubles
            self.by_type_only = True
        elif array.nbytes <= max(budget, _NODE):
            self._raw(array.tobytes())
        else:
            self.sampled = True
            read = self._sample_rows(array, array.nbytes // total, budget, depth)
        return Rows(read, total) if array.ndim else None

    def _sample_rows(self, array: Any, width: int, budget: int, depth: int) -> int:
        """Feed some rows of `width` bytes each; returns how many."""
        total = len(array)
        if width > budget and array.ndim > 1:
            starts = spread(total - 1, min(total, 16))
            self._each([array[at] for at in starts], budget, depth)
            return len(starts)
        height = min(total, max(1, _BLOCK // width))
        starts = spread(total - height, max(1, budget // (height * width)))
        for at in starts:
            self._raw(array[at : at + height].tobytes())
        return len(starts) * height

    def _tensor(self, tensor: Any, budget: int, depth: int) -> Rows | None:
        self._head("tensor", str(tensor.dtype), *tensor.shape)
        try:
            if tensor.device.type != "cpu":  # a copy would wait for all that the device has to do
                raise TypeError
            held, torch = tensor.detach(), sys.modules["torch"]
            if held.dtype.is_floating_point and held.element_size() < 4:  # numpy lacks bfloat16
                held = held.view(torch.uint8 if held.element_size() == 1 else torch.int16)
            array = held.numpy()
        except Exception:
            self.by_type_only = True
            return Rows(0, len(tensor)) if tensor.ndim else None
        return self._array(array, budget, depth)

    def _frame(self, frame: Any, columns: list["Column"], budget: int, depth: int) -> Rows:
        total = len(frame)
        self._head(type_name(frame), total, len(columns))
        rows = range(total) if total <= SAMPLE_ROWS else spread(total - 1, SAMPLE_ROWS)
        chosen = [columns[at] for at in self._picked(len(columns), budget)]
        self._head(*(f"{column.name!r} {column.dtype}" for column in chosen))
        if hasattr(frame, "iloc"):  # of pandas, whose rows have labels
            self._each([frame.index[list(rows)].tolist()], budget // 4, depth)
        read = self._each([column.load(rows) for column in chosen], budget, depth)
        return Rows(min((one.read for one in read if one is not None), default=total), total)


class Column(NamedTuple):
    """A column of a frame."""

    name: object
    dtype: str
    load: Callable[[Sequence[int]], Any]
    """Returns the values of some rows; of all rows if the column is a numeric array in memory."""


def columns_of(value: Any) -> list[Column] | None:
    """The columns of a pandas or polars frame or series; None for anything else."""
    kind, pd, pl = type(value), sys.modules.get("pandas"), sys.modules.get("polars")
    if pd is not None and issubclass(kind, pd.Series | pd.DataFrame):
        wide = value.to_frame() if issubclass(kind, pd.Series) else value
        return [
            Column(name, str(dtype), partial(_pandas_values, wide, at))
            for at, (name, dtype) in enumerate(zip(wide.columns, wide.dtypes, strict=True))
        ]
    if pl is not None and issubclass(kind, pl.Series | pl.DataFrame):
        series = [value] if issubclass(kind, pl.Series) else value.get_columns()
        return [Column(one.name, str(one.dtype), partial(_polars_values, one)) for one in series]
    return None


def _pandas_values(frame: Any, at: int, rows: Sequence[int]) -> Any:
    column = frame.iloc[:, at]
    if getattr(column.dtype, "kind", "O") in _RAW_KINDS and hasattr(column.dtype, "str"):
        return column.to_numpy()
    return column.iloc[list(rows)].tolist()


def _polars_values(column: Any, rows: Sequence[int]) -> Any:
    if column.dtype.is_numeric() and not column.null_count():
        return column.to_numpy()
    return column.gather(list(rows)).to_list()


def spread(last: int, count: int) -> list[int]:
    """`count` places from 0 to `last`, both ends included, spaced as evenly as integers can be."""
    return [at * last // (count - 1) for at in range(count)] if count > 1 else [0]


def _as_array(value: Any) -> Any:
    """An array or scalar of numpy as an array; None for anything else."""
    kind, np = type(value), sys.modules.get("numpy")
    known = np is not None and (kind in (np.ndarray, np.memmap) or issubclass(kind, np.generic))
    return np.asarray(value) if np is not None and known else None


def _is_tensor(value: object) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and type(value) in (torch.Tensor, torch.nn.Parameter)


def _fields_of(value: object) -> dict[str, Any] | None:
    """What a dataclass or pydantic model keeps in its `__dict__`; None for anything else."""
    kind = type(value)
    if not is_dataclass(kind) and not hasattr(kind, "__pydantic_fields__"):
        return None
    try:
        held: dict[str, Any] = object.__getattribute__(value, "__dict__")
    except AttributeError:  # it has slots
        return None
    return held


def _key_order(key: object) -> str:
    return Fingerprint(key, _NODE, _MAX_DEPTH - 2).digest


def _table(values: Sequence[Any], rows: Sequence[Rows | None]) -> Rows | None:
    """The rows of a table if these values are its columns, as in `(X, y)`."""
    known = [
        one for value, one in zip(values, rows, strict=True) if type(value) not in (tuple, dict)
    ]
    if len({one and one.total for one in known}) != 1 or len(known) < len(rows):
        return None
    return known[0] and Rows(min(one.read for one in known if one), known[0].total)
