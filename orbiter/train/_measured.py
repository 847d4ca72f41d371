"""Notes which fields of a dataclass were set: one that nobody measured must not pass for 0.0.

The fields keep their plain types, defaults and order. What is noted stands in slots that are no
fields, and goes with copies, pickles and `dataclasses.replace`.
"""

import dataclasses
import inspect
import sys
from collections.abc import Mapping
from functools import lru_cache
from types import CodeType, FrameType
from typing import Any, NamedTuple, Self

__all__ = ["UNMEASURED", "NotesSetFields", "left_at_default"]

UNMEASURED = float()  # noqa: UP018  a literal could be one object with a 0.0 of somebody else's
"""The default of a measurement: 0.0, known by its identity wherever it is handed on."""

_put = object.__setattr__
_NONE: frozenset[str] = frozenset()


class NotesSetFields:
    """Base of a dataclass whose fields know whether they were set: given, or assigned later."""

    __slots__ = ("_left", "_pending")

    _left: frozenset[str]
    """Fields that nobody has set."""
    _pending: frozenset[str]
    """Those of them that `__init__` has yet to give their default: it assigns it as a user would.
    Not the ones whose default is `UNMEASURED`, which tells for itself."""

    def __new__(cls, /, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        kind: Any = cls
        known = _known(kind)
        left, pending = known.left, known.pending
        if args or kwargs:
            given = dict(zip(known.parameters, args, strict=False)) | kwargs
            copied = _NONE
            if len(kwargs) >= len(left):  # as `replace` calls; no frame lies between
                copied = _copied(given, sys._getframe(1))
            set_here = [name for name in given if name not in copied]
            pending = pending.difference(set_here)
            left = left.difference([name for name in set_here if given[name] is not UNMEASURED])
        _put(self, "_left", left)
        _put(self, "_pending", pending)
        return self

    def __setattr__(self, name: str, value: Any) -> None:
        _put(self, name, value)
        left = getattr(self, "_left", _NONE)  # missing after object.__new__
        if value is UNMEASURED:
            _put(self, "_left", left | {name})
        elif name in left:
            kind: Any = type(self)
            if name not in self._pending or value is not _known(kind).fields[name].default:
                _put(self, "_left", left - {name})
            _put(self, "_pending", self._pending - {name})


def left_at_default(metrics: object) -> frozenset[str]:
    """The fields that nobody has set; none where `metrics` keeps no note of it.

    A field that holds anything but its default counts as set, whatever is noted; an empty list or
    mapping of a `default_factory` never does.
    """
    if not isinstance(metrics, NotesSetFields):
        return _NONE
    kind: Any = type(metrics)
    known, left = _known(kind), getattr(metrics, "_left", _NONE)
    return frozenset(
        name
        for name, field in known.fields.items()
        if (name in left or name not in known.left) and _holds_default(metrics, field)
    )


def _holds_default(metrics: object, field: "dataclasses.Field[Any]") -> bool:
    try:
        value = getattr(metrics, field.name)
    except Exception:  # a slot that `__init__` has not reached, a property
        return False
    if field.default_factory is not dataclasses.MISSING:
        return type(value) in (dict, list, set) and not value
    plain = type(value) is type(field.default) and type(value) in (float, int, bool, str)
    return value is field.default or (plain and bool(value == field.default))


class _Known(NamedTuple):
    """What is known of a class.

    Attributes:
        parameters: those of `__init__`, in order.
        left: fields with a plain default: all that nothing is given for.
        pending: those of them whose default is not `UNMEASURED`.
    """

    fields: Mapping[str, "dataclasses.Field[Any]"]
    parameters: tuple[str, ...]
    left: frozenset[str]
    pending: frozenset[str]


@lru_cache(maxsize=256)
def _known(cls: Any) -> _Known:
    fields = {field.name: field for field in dataclasses.fields(cls)}
    plain = [field for field in fields.values() if field.default is not dataclasses.MISSING]
    return _Known(
        fields,
        tuple(inspect.signature(cls.__init__).parameters)[1:],
        frozenset(field.name for field in plain),
        frozenset(field.name for field in plain if field.default is not UNMEASURED),
    )


def _copied(given: Mapping[str, Any], caller: FrameType) -> frozenset[str]:
    """The fields that `dataclasses.replace` hands over as they are in another object, unset there.

    It calls the class with all of them, as a user could: only the caller tells the two apart, as a
    0 of a user's is the very object of any other 0.
    """
    if caller.f_code not in _REPLACES:
        return _NONE
    source = caller.f_locals.get(caller.f_code.co_varnames[0])
    return frozenset(
        name for name in left_at_default(source) if given.get(name) is getattr(source, name)
    )


_REPLACES: frozenset[CodeType] = frozenset(
    {
        dataclasses.replace.__code__,
        getattr(dataclasses, "_replace", dataclasses.replace).__code__,  # Python 3.13
    }
)
