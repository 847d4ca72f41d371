"""Classes by name, and dataclasses from their fields.

A name is looked up among the modules that are imported already: reading params runs no import.
"""

import copy
import sys
from collections.abc import Mapping
from dataclasses import MISSING, fields
from enum import Enum
from typing import Any, TypeVar

from orbiter_mlflow.codec.config_error import UnreadableError
from orbiter_mlflow.codec.sameness import same

__all__ = ["ATOMS", "class_name", "find_class", "is_dataclass_class", "is_dataclass_value"]
__all__ += ["is_findable", "rebuild"]

T = TypeVar("T")
_UNSET = object()
ATOMS = frozenset({str, int, float, bool, type(None)})
"""Types whose values are plain, and never change."""
_MORE_THAN_FIELDS = (type, Enum, dict, list, tuple, set, frozenset, str, bytes, int, float)


def class_name(cls: type) -> str:
    """`module:qualname`."""
    return f"{cls.__module__}:{cls.__qualname__}"


def find_class(name: object) -> type:
    """The class of that name.

    Raises:
        UnreadableError: when its module is not imported, or has no such class.
    """
    if not isinstance(name, str):
        raise UnreadableError("a class is named by a text")
    module, _, qualname = name.partition(":")
    if module not in sys.modules:
        raise UnreadableError(f"needs {name}: import {module} first")
    found: Any = sys.modules[module]
    for part in qualname.split("."):
        # Not `getattr`: of a lazy module it would run an import.
        found = getattr(found, "__dict__", {}).get(part)
    if not isinstance(found, type):
        raise UnreadableError(f"needs {name}, but {module} has no such class")
    return found


def is_findable(cls: type) -> bool:
    """Whether `find_class` finds this very class by its name; one inside a function it does not."""
    try:
        return find_class(class_name(cls)) is cls
    except UnreadableError:
        return False


def is_dataclass_class(cls: type) -> bool:
    """Whether the class is a dataclass, or inherits the fields of one."""
    return hasattr(cls, "__dataclass_fields__")


def is_dataclass_value(value: object) -> bool:
    """Whether its fields are all there is to it: an instance that is no container besides."""
    return is_dataclass_class(type(value)) and not issubclass(type(value), _MORE_THAN_FIELDS)


def rebuild(cls: type[T], values: Mapping[str, Any]) -> T:
    """An instance whose fields have exactly these values; those left out are what the class makes.

    It is constructed as usual. Where that fails or changes a field, as a `__post_init__` may that
    does not expect its own results, the fields are set afterwards.

    Raises:
        UnreadableError: when the class refuses both.
    """
    all_fields: tuple[Any, ...] = fields(cls)  # type: ignore[arg-type]  # a dataclass
    given = [f for f in all_fields if f.name in values]
    try:
        made = _construct(cls, {f.name: values[f.name] for f in given if f.init})
        for f in given:
            if not same(getattr(made, f.name, _UNSET), values[f.name]):
                object.__setattr__(made, f.name, values[f.name])
        for f in all_fields:
            if f.name not in values and getattr(made, f.name, _UNSET) is _UNSET:
                object.__setattr__(made, f.name, _default(f))
        if all(same(getattr(made, f.name, _UNSET), values[f.name]) for f in given):
            return made
    except Exception:
        raise UnreadableError(f"{class_name(cls)} cannot be constructed") from None
    raise UnreadableError(f"{class_name(cls)} does not keep the values of its fields")


def _default(field: Any) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _construct(cls: type[T], values: dict[str, Any]) -> T:
    try:
        # A copy, since a constructor may change what it is given, and we compare with the original.
        made = cls(**{name: _copied(value) for name, value in values.items()})
        if type(made) is cls:
            return made
    except Exception:  # noqa: S110 - whatever it was, the fields are set without it
        pass
    return object.__new__(cls)


def _copied(value: Any) -> Any:
    return value if type(value) in ATOMS else copy.deepcopy(value)
