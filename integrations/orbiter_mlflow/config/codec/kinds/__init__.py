"""The registry of types that JSON lacks: `kind_of` a value's class, `KINDS` by marker.

A type is one `Kind` in the module of its family, and nothing else knows it. No family imports a
third-party library: its types are found by name, since a value exists only once they are loaded.
"""

from enum import Enum
from types import BuiltinFunctionType, FunctionType
from typing import Any
from weakref import WeakKeyDictionary

from orbiter_mlflow.config.codec.classes import NUMPY_FUNCTIONS, class_name
from orbiter_mlflow.config.codec.kinds.arrays import ARRAYS, NUMPY_SCALAR
from orbiter_mlflow.config.codec.kinds.containers import (
    CONTAINERS,
    NAMESPACE,
    NAMESPACES,
    REFERENCE,
)
from orbiter_mlflow.config.codec.kinds.kind import Kind
from orbiter_mlflow.config.codec.kinds.libraries import LIBRARIES
from orbiter_mlflow.config.codec.kinds.scalars import ENUM, SCALARS

__all__ = ["KINDS", "PLAIN_TYPES", "Kind", "kind_of"]

_BY_TYPE: dict[type, Kind] = {
    **SCALARS,
    **CONTAINERS,
    FunctionType: REFERENCE,
    BuiltinFunctionType: REFERENCE,
    type: REFERENCE,
}
_BY_NAME = {**ARRAYS, **LIBRARIES, **dict.fromkeys(NUMPY_FUNCTIONS, REFERENCE)}

KINDS: dict[str, Kind] = {
    kind.marker: kind
    for kind in (*_BY_TYPE.values(), *_BY_NAME.values(), ENUM, NUMPY_SCALAR, NAMESPACE)
}
"""Marker -> kind."""
PLAIN_TYPES: frozenset[type] = frozenset(cls for cls, kind in _BY_TYPE.items() if kind.plain)
"""Types that need no marker in a field annotated with them."""

_found: WeakKeyDictionary[type, Kind | None] = WeakKeyDictionary()


def kind_of(cls: type) -> Kind | None:
    """The kind of the values of exactly this type, if it has one."""
    kind = _BY_TYPE.get(cls)
    if kind is not None:
        return kind
    try:
        return _found[cls]
    except KeyError:
        kind = _found[cls] = _by_bases(cls)
        return kind


def _by_bases(cls: Any) -> Kind | None:
    if issubclass(cls, Enum):
        return ENUM
    if issubclass(cls, type):
        return REFERENCE
    names = [class_name(c) for c in cls.__mro__]
    if names[0] in _BY_NAME:
        return _BY_NAME[names[0]]
    if "numpy:dtype" in names[:3]:  # each dtype has a class of its own
        return _BY_NAME["numpy:dtype"]
    if "numpy:generic" in names:
        return NUMPY_SCALAR
    if NAMESPACES.intersection(names):
        return NAMESPACE
    return None
