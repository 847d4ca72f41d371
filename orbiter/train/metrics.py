"""`TrainMetrics`, which knows which of its fields were set: an unset one must not pass for 0.0.

The fields keep their plain types, defaults and order. The notes are kept in slots that are not
fields, and survive copies, pickles and `dataclasses.replace`.
"""

import dataclasses
import inspect
import sys
from collections.abc import Mapping
from functools import lru_cache
from types import CodeType, FrameType
from typing import Any, NamedTuple, Self

__all__ = ["TrainMetrics", "left_at_default"]

_UNMEASURED = float()  # noqa: UP018  a literal could be the same object as another 0.0
"""The default of a measurement: a 0.0 that is recognized by its identity, wherever it ends up."""

_put = object.__setattr__
_NONE: frozenset[str] = frozenset()


class _NotesSetFields:
    """Base of a dataclass that notes which fields were set, by `__init__` or by assignment."""

    __slots__ = ("_left", "_pending")

    _left: frozenset[str]
    """Fields that nobody has set."""
    _pending: frozenset[str]
    """Those of them that `__init__` has yet to assign their default, just as a user would assign
    it. Excludes the fields whose default is `_UNMEASURED`, which is recognized by itself."""

    def __new__(cls, /, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        kind: Any = cls
        known = _known(kind)
        left, pending = known.left, known.pending
        if args or kwargs:
            given = dict(zip(known.parameters, args, strict=False)) | kwargs
            copied = _NONE
            if len(kwargs) >= len(left):  # as `replace` calls; with no frame in between
                copied = _copied(given, sys._getframe(1))
            set_here = [name for name in given if name not in copied]
            pending = pending.difference(set_here)
            left = left.difference([name for name in set_here if given[name] is not _UNMEASURED])
        _put(self, "_left", left)
        _put(self, "_pending", pending)
        return self

    def __setattr__(self, name: str, value: Any) -> None:
        _put(self, name, value)
        left = getattr(self, "_left", _NONE)  # missing after object.__new__
        if value is _UNMEASURED:
            _put(self, "_left", left | {name})
        elif name in left:
            kind: Any = type(self)
            if name not in self._pending or value is not _known(kind).fields[name].default:
                _put(self, "_left", left - {name})
            _put(self, "_pending", self._pending - {name})


@dataclasses.dataclass(slots=True)
class TrainMetrics(_NotesSetFields):
    """The result of a training or an evaluation.

    A field that was never set was not measured, and is not logged; one that was set to 0.0 was.
    Apart from that the two are equal.

    Attributes:
        loss, accuracy: plain numbers.
        steps: optimizer steps so far.
        extra: any other measurements, by name; mappings may be nested.
    """

    loss: float = _UNMEASURED
    accuracy: float = _UNMEASURED
    steps: int = 0
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)


def left_at_default(metrics: object) -> frozenset[str]:
    """The fields that nobody has set; empty unless `metrics` is a `TrainMetrics`.

    A field whose value is not its default counts as set in any case; an empty list or mapping from
    a `default_factory` never counts as set.
    """
    if not isinstance(metrics, _NotesSetFields):
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
    except Exception:  # an unset slot, a property that raises
        return False
    if field.default_factory is not dataclasses.MISSING:
        return type(value) in (dict, list, set) and not value
    plain = type(value) is type(field.default) and type(value) in (float, int, bool, str)
    return value is field.default or (plain and bool(value == field.default))


class _Known(NamedTuple):
    """Facts about a class of metrics.

    Attributes:
        parameters: those of `__init__`, in order.
        left: fields with a plain default, which are all unset to begin with.
        pending: those of them whose default is not `_UNMEASURED`.
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
        frozenset(field.name for field in plain if field.default is not _UNMEASURED),
    )


def _copied(given: Mapping[str, Any], caller: FrameType) -> frozenset[str]:
    """The unset fields that `dataclasses.replace` copies from another object.

    `replace` passes every field to the class. The values cannot show which were unset (a user's 0
    is the same object as any other 0), so look at the calling frame.
    """
    if caller.f_code not in _REPLACES:
        return _NONE
    original = caller.f_locals.get(caller.f_code.co_varnames[0])
    return frozenset(
        name for name in left_at_default(original) if given.get(name) is getattr(original, name)
    )


_REPLACES: frozenset[CodeType] = frozenset(
    {
        dataclasses.replace.__code__,
        getattr(dataclasses, "_replace", dataclasses.replace).__code__,  # Python 3.13
    }
)
