"""When two values are the same: not merely equal, but of the same types through and through.

`1`, `1.0` and `True` are three values, `0.0` and `-0.0` are two; NaN is one. The order of a plain
dict or set does not matter. What cannot be compared is not the same.
"""

import sys
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

__all__ = ["same"]

_BY_EQUALITY = (str, int, bool, bytes, bytearray)
# Their repr tells more than their `==`: fold, time zone, sign of zero, trailing zeros.
_BY_REPR = (
    *(float, complex, Decimal, UUID),
    *(datetime, date, time, timedelta, timezone, ZoneInfo),
)

_STR = frozenset({str})
_BESIDES = ("__dict__", "maxlen", "default_factory")


def same(a: object, b: object) -> bool:
    """Whether the two are the same value. It never raises."""
    try:
        return _same(a, b)
    except Exception:  # of a property, an `__eq__`, a `__repr__`, or of too deep a recursion
        return False


def _same(a: Any, b: Any) -> bool:
    if a is b:
        return True
    kind = type(a)
    if kind is not type(b):
        return False
    if kind in _BY_EQUALITY:
        return bool(a == b)
    if kind in _BY_REPR:
        return repr(a) == repr(b)
    if kind is list or kind is tuple:
        return _same_items(a, b)
    if kind is dict:
        return _same_mapping(a, b)
    if kind is set or kind is frozenset:
        return _same_members(a, b)
    return _same_objects(a, b)


def _same_objects(a: Any, b: Any) -> bool:
    if isinstance(a, Enum):  # members are one each, save the combinations of a flag
        return a.name == b.name and _same(a.value, b.value)
    if isinstance(a, PurePath) or _is_numpy_scalar(a):
        return repr(a) == repr(b) and getattr(a, "dtype", None) == getattr(b, "dtype", None)
    if isinstance(a, dict):
        return _same_items(list(a.items()), list(b.items())) and _same_besides(a, b)
    if isinstance(a, list | tuple | deque):
        return _same_items(a, b) and _same_besides(a, b)
    if isinstance(a, set | frozenset):
        return _same_members(a, b) and _same_besides(a, b)
    if is_dataclass(a):
        return all(_same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    return (a == b) is True and _same_besides(a, b)


def _same_besides(a: object, b: object) -> bool:
    """Whether they agree in what a container's items, or an `__eq__`, may not show."""
    return all(_same(getattr(a, name, None), getattr(b, name, None)) for name in _BESIDES)


def _same_items(a: Collection[Any], b: Collection[Any]) -> bool:
    return len(a) == len(b) and all(map(_same, a, b))


def _same_mapping(a: dict[Any, Any], b: dict[Any, Any]) -> bool:
    if len(a) != len(b):
        return False
    if _STR.issuperset(map(type, a)) and _STR.issuperset(map(type, b)):
        if a.keys() != b.keys():
            return False
        return all(map(_same, a.values(), map(b.__getitem__, a)))
    return _paired(a.items(), {key: (key, value) for key, value in b.items()})


def _same_members(a: Collection[Any], b: Collection[Any]) -> bool:
    return len(a) == len(b) and _paired(((x, None) for x in a), {x: (x, None) for x in b})


def _paired(pairs: Iterable[tuple[Any, Any]], others: Mapping[Any, tuple[Any, Any]]) -> bool:
    """Whether each pair has one of its own among as many others; those are found by their key."""
    left = dict(others)
    odd = []
    for key, value in pairs:
        other = left.pop(key, None)
        if other is None:  # a key that does not equal itself, as NaN
            odd.append((key, value))
        elif not (_same(key, other[0]) and _same(value, other[1])):
            return False
    rest = list(left.values())
    for key, value in odd:
        for i, other in enumerate(rest):
            if _same(key, other[0]) and _same(value, other[1]):
                del rest[i]
                break
        else:
            return False
    return True


def _is_numpy_scalar(value: object) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.generic)
