"""Hashes the contents of data, in bounded time and without running a user's code.

Read are only passive containers: built-in ones, dataclasses, numpy arrays, torch tensors in memory,
pandas and polars frames. Of anything else just the type is taken: to ask a lazy dataset for an item
could load gigabytes, or move the random state of the training that follows.
"""

import inspect
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import partial
from hashlib import sha256
from pathlib import PurePath
from struct import pack
from types import MemberDescriptorType
from typing import Any, NamedTuple
from uuid import UUID

from orbiter_mlflow.text.values import type_name

BUDGET = 8 * 2**20
"""Bytes that are read at most; what is longer is sampled evenly, by count, so that each machine
samples the same."""
SAMPLE_ROWS = 1000
"""Rows, and columns, that are read at most of what is not a numeric array."""

_NODE = 64
"""Bytes of the budget that each object costs beside its contents."""
_MAX_TUPLE = 4
"""Longer tuples are rows; up to this `(X, y, groups, weights)` are columns."""
_BLOCK = 16 * 2**10
_MAX_DEPTH = 16
_PLAIN_TEXT = (date, time, timedelta, Decimal, Fraction, UUID, PurePath)
_RAW_KINDS = frozenset("biufcmMSU")
"""Kinds of numpy dtypes whose bytes are their value."""


class Rows(NamedTuple):
    """How many rows there are, and how many were read."""

    read: int
    total: int


class Contents:
    """The hash of one piece of data, and what of it was read."""

    def __init__(self, data: object) -> None:
        self.sampled = False
        """Something was too large to be read whole."""
        self.unread = False
        """Something was of a type that is not read."""
        self._spent = 0
        sha = sha256()
        self.rows = self._feed(sha, data, BUDGET, 0)
        self.digest = sha.hexdigest()[:32]

    def _feed(self, sha: Any, value: Any, budget: int, depth: int) -> Rows | None:
        self._spent += _NODE
        kind = type(value)
        if kind is str or kind is bytes or kind is bytearray:
            self._text(sha, value, budget)
        elif kind is int or kind is bool:
            sha.update(b"%s:%x;" % (kind.__name__[:1].encode(), value))
        elif kind is float:
            sha.update(b"f;" + pack("<d", value))
        elif value is None:
            sha.update(b"n;")
        elif depth == _MAX_DEPTH:
            self._opaque(sha, value)
        elif kind is list or kind is tuple:
            return self._sequence(sha, value, budget, depth)
        elif kind is dict:
            return self._dict(sha, value, budget, depth)
        else:
            return self._other(sha, value, budget, depth)
        return None

    def _other(self, sha: Any, value: Any, budget: int, depth: int) -> Rows | None:
        kind = type(value)
        np, torch = sys.modules.get("numpy"), sys.modules.get("torch")
        if np is not None and (kind in (np.ndarray, np.memmap) or issubclass(kind, np.generic)):
            return self._array(sha, np.asarray(value), budget, depth)
        if torch is not None and kind in (torch.Tensor, torch.nn.Parameter):
            return self._tensor(sha, torch, value, budget, depth)
        frame = columns_of(value)
        if frame is not None:
            return self._frame(sha, value, frame, budget, depth)
        if kind is range:
            _head(sha, "range", value.start, value.stop, value.step)
            return Rows(len(value), len(value))
        if kind is complex or issubclass(kind, _PLAIN_TEXT) or kind.__name__ == "NAType":
            _head(sha, type_name(value), str(value))
        elif issubclass(kind, Enum):
            _head(sha, type_name(value), value.name)
        elif issubclass(kind, tuple) and hasattr(kind, "_fields"):
            _head(sha, type_name(value), len(value))
            self._each(sha, tuple(tuple.__iter__(value)), budget, depth)
        elif is_dataclass(kind) or hasattr(kind, "__pydantic_fields__"):
            _head(sha, type_name(value))
            self._feed(sha, _held(value), budget, depth + 1)
        else:
            self._opaque(sha, value)
        return None

    def _opaque(self, sha: Any, value: object) -> None:
        self.unread = True
        _head(sha, "type", type_name(value))

    def _text(self, sha: Any, value: str | bytes | bytearray, budget: int) -> None:
        _head(sha, type(value).__name__, len(value))
        if len(value) <= max(budget, _NODE):
            parts = [value]
        else:
            self.sampled = True
            size = min(_BLOCK, max(budget, _NODE))
            parts = [
                value[at : at + size] for at in spread(len(value) - size, max(1, budget // size))
            ]
        for part in parts:
            data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
            self._spent += len(data)
            sha.update(data)

    def _each(
        self, sha: Any, values: Collection[Any], budget: int, depth: int
    ) -> list[Rows | None]:
        """Feed each value, with an even share of what those before it left of the budget."""
        end, left, rows = self._spent + budget, len(values), []
        for value in values:
            share = max(0, end - self._spent) // left
            rows.append(self._feed(sha, value, share, depth + 1))
            left -= 1
        return rows

    def _picked(self, total: int, budget: int) -> Sequence[int]:
        """The places to read of `total` objects."""
        most = min(SAMPLE_ROWS, max(1, budget // _NODE))
        if total <= most:
            return range(total)
        self.sampled = True
        return spread(total - 1, most)

    def _sequence(self, sha: Any, value: Any, budget: int, depth: int) -> Rows:
        _head(sha, type(value).__name__, len(value))
        if type(value) is tuple and len(value) <= _MAX_TUPLE and _are_columns(value):
            return _narrowest(self._each(sha, value, budget, depth), len(value[0]))
        picked = self._picked(len(value), budget)
        self._each(sha, [value[at] for at in picked], budget, depth)
        return Rows(len(picked), len(value))

    def _dict(self, sha: Any, value: dict[Any, Any], budget: int, depth: int) -> Rows:
        _head(sha, "dict", len(value))
        keys = list(value)
        if len(keys) <= max(64, budget // _NODE):  # equal dicts may differ in order
            keys.sort(key=None if all(type(key) is str for key in keys) else self._key_order)
        picked = self._picked(len(keys), budget)
        chosen = [keys[at] for at in picked]
        self._each(sha, chosen, budget // 4, depth)
        values = [value[key] for key in chosen]
        rows = self._each(sha, values, budget, depth)
        if _are_columns(values):
            return _narrowest(rows, len(values[0]))
        return Rows(len(picked), len(value))

    def _key_order(self, key: object) -> bytes:
        sha = sha256()
        self._feed(sha, key, _NODE, _MAX_DEPTH - 2)
        return sha.digest()

    def _array(self, sha: Any, array: Any, budget: int, depth: int) -> Rows | None:
        _head(sha, "array", array.dtype.str, *array.shape)
        total = len(array) if array.ndim else 0
        whole = Rows(total, total) if array.ndim else None
        if array.size == 0:
            return whole
        if array.dtype.names:  # field by field: the padding between them is not data
            names = array.dtype.names
            _head(sha, "fields", *names)
            rows = self._each(sha, [array[name] for name in names], budget, depth)
            return _narrowest(rows, total) if array.ndim else None
        if array.dtype.kind in "OT":
            flat = array.reshape(-1) if array.flags.c_contiguous else array.flat
            picked = self._picked(array.size, budget)
            self._each(sha, [flat[at] for at in picked], budget, depth)
            return Rows(min(len(picked), total), total) if array.ndim else None
        if array.dtype.kind not in _RAW_KINDS or array.dtype.char in "gG":  # padded long doubles
            self.unread = True
            return whole
        if array.nbytes <= max(budget, _NODE):
            self._spent += array.nbytes
            sha.update(array.tobytes())
            return whole
        self.sampled = True
        width = array.nbytes // total
        if width > budget and array.ndim > 1:
            starts = spread(total - 1, min(total, 16))
            self._each(sha, [array[at] for at in starts], budget, depth)
            return Rows(len(starts), total)
        height = min(total, max(1, _BLOCK // width))
        starts = spread(total - height, max(1, budget // (height * width)))
        for at in starts:
            self._spent += height * width
            sha.update(array[at : at + height].tobytes())
        return Rows(len(starts) * height, total)

    def _tensor(self, sha: Any, torch: Any, tensor: Any, budget: int, depth: int) -> Rows | None:
        _head(sha, "tensor", str(tensor.dtype), *tensor.shape)
        try:
            if tensor.device.type != "cpu":  # a copy would wait for all that the device has to do
                raise TypeError
            held = tensor.detach()
            if held.dtype.is_floating_point and held.element_size() < 4:  # numpy lacks bfloat16
                held = held.view(torch.uint8 if held.element_size() == 1 else torch.int16)
            array = held.numpy()
        except Exception:
            self.unread = True
            return Rows(0, len(tensor)) if tensor.ndim else None
        return self._array(sha, array, budget, depth)

    def _frame(
        self, sha: Any, frame: Any, columns: list["Column"], budget: int, depth: int
    ) -> Rows:
        total = len(frame)
        _head(sha, type_name(frame), total, len(columns))
        rows = range(total) if total <= SAMPLE_ROWS else spread(total - 1, SAMPLE_ROWS)
        chosen = [columns[at] for at in self._picked(len(columns), budget)]
        _head(sha, *(f"{column.name!r} {column.dtype}" for column in chosen))
        if hasattr(frame, "iloc"):  # of pandas, whose rows have labels
            self._each(sha, [frame.index[list(rows)].tolist()], budget // 4, depth)
        return _narrowest(self._each(sha, [c.load(rows) for c in chosen], budget, depth), total)


class Column(NamedTuple):
    """A column of a frame."""

    name: object
    dtype: str
    load: Callable[[Sequence[int]], Any]
    """The values of some rows; or those of all, where they are an array in memory."""


def columns_of(value: Any) -> list[Column] | None:
    """The columns of a pandas or polars frame or series; None for all else."""
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
    """`count` places from 0 to `last`, both ends included, as even as whole numbers can be."""
    return [at * last // (count - 1) for at in range(count)] if count > 1 else [0]


def _head(sha: Any, *parts: object) -> None:
    sha.update(ascii(parts).encode())


def _narrowest(rows: Iterable[Rows | None], total: int) -> Rows:
    return Rows(min((one.read for one in rows if one is not None), default=total), total)


def _are_columns(values: Collection[Any]) -> bool:
    """Whether these are columns of one table, as in `(X, y)`, rather than rows."""
    lengths = {_column_length(value) for value in values}
    return len(lengths) == 1 and None not in lengths


def _column_length(value: Any) -> int | None:
    if type(value) is list or columns_of(value) is not None:
        return len(value)
    np, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    array = np is not None and type(value) in (np.ndarray, np.memmap)
    tensor = torch is not None and type(value) in (torch.Tensor, torch.nn.Parameter)
    return len(value) if (array or tensor) and value.ndim else None


def _held(value: object) -> dict[str, Any]:
    """The fields of a dataclass or pydantic model, without the class' properties being run."""
    kind: Any = type(value)
    own: dict[str, Any] = {}
    with suppress(AttributeError):
        own = object.__getattribute__(value, "__dict__")
    if not is_dataclass(kind):
        return {name: own[name] for name in kind.__pydantic_fields__ if name in own}
    held = {}
    for name in (field.name for field in fields(kind)):
        slot = inspect.getattr_static(kind, name, None)
        if name in own:
            held[name] = own[name]
        elif isinstance(slot, MemberDescriptorType):
            held[name] = slot.__get__(value)
    return held
