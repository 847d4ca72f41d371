"""Whether two values are the same: not merely equal, but of the same types all the way down.

`1`, `1.0` and `True` are three values, `0.0` and `-0.0` are two; NaN is one. The order of a dict
counts, that of a set does not. Instances are compared by their whole state, as `objects` reads it,
other types by what the registry writes. Values that cannot be compared are not the same. No code
of the values' own classes is run.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from orbiter_mlflow.config.codec.kinds import kind_of
from orbiter_mlflow.config.codec.objects import UNSET, Shape, shape_of, state_of

__all__ = ["HOLE", "same"]


class _Hole:
    """Stands for a value that is kept as text; it is the same as any value."""


HOLE = _Hole()

_BY_EQUALITY = (str, int, bool, bytes, bytearray)


def same(a: object, b: object) -> bool:
    """Whether the two are the same value. It never raises."""
    try:
        return _same(a, b)
    except Exception:  # a property may raise, and a recursion may be too deep
        return False


def _same(a: Any, b: Any) -> bool:
    if a is b:
        return True
    kind = type(a)
    if kind is not type(b):
        return a is HOLE or b is HOLE
    if kind in _BY_EQUALITY:
        return bool(a == b)
    if kind is float:
        return repr(a) == repr(b)
    if kind is list or kind is tuple:
        return _same_items(a, b)
    if kind is dict:
        return _same_mapping(a, b)
    if kind is set or kind is frozenset:
        return _same_members(a, b)
    return _same_objects(a, b, kind)


def _same_objects(a: Any, b: Any, cls: type) -> bool:
    kind = kind_of(cls)
    if kind is not None:
        if not _same(kind.write(a), kind.write(b)):
            return False
        return kind.items is None or _same_held(kind.items(a), kind.items(b))
    shape = shape_of(cls)
    if shape is not None:
        return _same_states(a, b, shape)
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return _same_items(tuple.__iter__(a), tuple.__iter__(b))
    return False


def _same_held(a: Any, b: Any) -> bool:
    return _same_items(a, b) if type(a) is list else _same_mapping(a, b)


def _same_states(a: Any, b: Any, shape: Shape) -> bool:
    one, other = state_of(a, shape), state_of(b, shape)
    if list(one.more) != list(other.more):
        return False
    if one.fields_set != other.fields_set or one.inherited != other.inherited:
        return False
    if not _same(dict(one.private or {}), dict(other.private or {})):
        return False
    pairs = ((one.fields, other.fields), (one.more, other.more))
    return all(_same(left[name], right[name]) for left, right in pairs for name in left)


def _same_items(a: Iterable[Any], b: Iterable[Any]) -> bool:
    try:
        return all(_same(x, y) for x, y in zip(a, b, strict=True))
    except ValueError:  # of different lengths
        return False


def _same_mapping(a: Mapping[Any, Any], b: Mapping[Any, Any]) -> bool:
    return len(a) == len(b) and all(
        _same(key, other) and _same(value, b_value)
        for (key, value), (other, b_value) in zip(a.items(), b.items(), strict=True)
    )


def _same_members(a: Collection[Any], b: Collection[Any]) -> bool:
    if len(a) != len(b):
        return False
    left = {item: item for item in b}
    unequal = []
    for item in a:
        other = left.pop(item, UNSET)
        if other is UNSET:  # NaN does not equal itself
            unequal.append(item)
        elif not _same(item, other):
            return False
    rest = list(left.values())
    for item in unequal:
        at = next((i for i, other in enumerate(rest) if _same(item, other)), None)
        if at is None:
            return False
        del rest[at]
    return True
