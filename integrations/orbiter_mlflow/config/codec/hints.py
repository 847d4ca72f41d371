"""`Hint`: how the annotation of a field allows a plain text for its value.

A hint never coerces: it allows the plain text only if that reads back identical. An annotation
that cannot be resolved counts as `Any`.
"""

import collections.abc
import ipaddress
import pathlib
import re
import sys
import types
import typing
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from functools import cached_property
from typing import Any, Literal
from weakref import WeakKeyDictionary

from pydantic import TypeAdapter

from orbiter_mlflow.config.codec.kinds import PLAIN_TYPES

__all__ = ["ANY", "Hint", "Rule", "hints_of", "is_scalar_value"]

_ATOMS = frozenset({int, float, str, bool, type(None), None, Any, object})
_LISTS = frozenset(
    {
        list,
        collections.abc.Sequence,
        collections.abc.MutableSequence,
        collections.abc.Collection,
        collections.abc.Iterable,
    }
)
_DICTS = frozenset({dict, collections.abc.Mapping, collections.abc.MutableMapping})
_NATIVE = _ATOMS | _LISTS | _DICTS
_SCALARS = PLAIN_TYPES | {
    *(bool, type(None), None, pathlib.Path, pathlib.PurePath),
    *(ipaddress.IPv4Address, ipaddress.IPv6Address),
}
"""Annotations whose values pydantic writes and reads as one string or number."""
_WRAPPERS = frozenset(
    getattr(typing, name)
    for name in ("Final", "ClassVar", "Required", "NotRequired", "ReadOnly")
    if hasattr(typing, name)
)
_DEEPEST = 20
"""Levels of an annotation to look at; an alias may contain itself."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How plain JSON represents the values of an annotation, None apart.

    Attributes:
        form: the form of the values; `Hint.scalar` converts a `scalar`.
        cls: the dataclass or NamedTuple.
        inner: the hint of all items.
        parts: the hint of each item of a tuple.
        keys: the hint of the keys, unless they are strings.
    """

    form: Literal["list", "set", "frozenset", "tuple", "dict", "dataclass", "namedtuple", "scalar"]
    cls: Any = None
    inner: "Hint | None" = None
    parts: "tuple[Hint, ...] | None" = None
    keys: "Hint | None" = None


class Hint:
    """One annotation: how its values may be written, and the hints of the values inside them."""

    def __init__(self, annotation: Any) -> None:
        self.annotation = _unwrapped(annotation)

    @cached_property
    def native(self) -> bool:
        """Whether JSON alone gives the value, so that reading ignores the annotation."""
        return _is_native(self.annotation)

    @cached_property
    def atoms(self) -> frozenset[type]:
        """Plain types that the annotation names."""
        return frozenset({m for m in _members(self.annotation) if m in (str, int, float, bool)})

    @cached_property
    def rule(self) -> Rule | None:
        """How values are written without a marker; None if they need one."""
        members = [m for m in _members(self.annotation) if m not in (None, type(None))]
        if members and all(map(_is_scalar, members)):
            return Rule("scalar")
        return _rule(members[0]) if len(members) == 1 else None

    @cached_property
    def scalar(self) -> TypeAdapter[Any] | None:
        """The adapter that converts the values of a `scalar` rule."""
        return self.adapter if self.rule is not None and self.rule.form == "scalar" else None

    @cached_property
    def dataclass(self) -> type | None:
        """The one dataclass that the annotation names: `Lora`, `Lora | None`."""
        origins = {typing.get_origin(member) or member for member in _members(self.annotation)}
        found = [o for o in origins if isinstance(o, type) and is_dataclass(o)]
        return found[0] if len(found) == 1 else None

    @cached_property
    def adapter(self) -> TypeAdapter[Any] | None:
        """Pydantic's adapter for the annotation; None if it has none."""
        # Pydantic warns of partial support; every result is compared anyway.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with suppress(Exception):
                return TypeAdapter(self.annotation)
        return None

    def child(self, key: str) -> "Hint":
        """The hint of the value under a key of a dict."""
        if self._by_key is not None:
            return self._by_key.get(key, ANY)
        return self._of_values

    @cached_property
    def _of_values(self) -> "Hint":
        found = [
            typing.get_args(member)
            for member in _members(self.annotation)
            if typing.get_origin(member) in _DICTS
        ]
        return Hint(found[0][1]) if len(found) == 1 and len(found[0]) == 2 else ANY

    @cached_property
    def _by_key(self) -> dict[str, "Hint"] | None:
        found = [member for member in _members(self.annotation) if typing.is_typeddict(member)]
        if len(found) != 1:
            return None
        with suppress(Exception):
            return {key: Hint(value) for key, value in typing.get_type_hints(found[0]).items()}
        return None


_known: WeakKeyDictionary[type, Mapping[str, Hint]] = WeakKeyDictionary()


def hints_of(cls: type) -> Mapping[str, Hint]:
    """The hints of a dataclass's fields, in their order; empty for other classes."""
    found = _known.get(cls)
    if found is None:
        found = _known[cls] = _hints_of(cls)
    return found


def _hints_of(cls: type) -> dict[str, Hint]:
    if not is_dataclass(cls):
        return {}
    all_fields: tuple[Any, ...] = fields(cls)
    resolved: dict[str, Any] = {}
    try:
        resolved = typing.get_type_hints(cls)
    except Exception:
        for f in all_fields:
            with suppress(Exception):
                resolved[f.name] = _resolve(cls, f.name, f.type)
    return {f.name: _shared(resolved.get(f.name, Any)) for f in all_fields}


def _resolve(cls: type, name: str, annotation: Any) -> Any:
    """Resolve one annotation by itself, since another one of the class cannot be resolved."""
    owners = [c for c in cls.__mro__ if name in vars(c).get("__annotations__", {})]
    module = sys.modules[(owners or [cls])[0].__module__]
    alone = type("alone", (), {"__annotations__": {name: annotation}})
    return typing.get_type_hints(alone, vars(module))[name]


def _shared(annotation: Any) -> Hint:
    return ANY if annotation is Any else Hint(annotation)


def _unwrapped(annotation: Any) -> Any:
    for _ in range(_DEEPEST):
        origin = typing.get_origin(annotation)
        if origin is typing.Annotated or origin in _WRAPPERS:
            annotation = typing.get_args(annotation)[0]
        elif isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":  # `type X = ...`, since Python 3.12
            annotation = annotation.__value__
        elif isinstance(annotation, typing.TypeVar | typing.ForwardRef | str):
            return Any
        else:
            return annotation
    return Any


def _members(annotation: Any) -> list[Any]:
    """The alternatives of a union, or the one annotation itself."""
    annotation = _unwrapped(annotation)
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return [annotation]
    return [m for argument in typing.get_args(annotation) for m in _members(argument)]


def _is_native(annotation: Any, depth: int = 0) -> bool:
    if depth > _DEEPEST:
        return False
    return all(_is_native_member(member, depth + 1) for member in _members(annotation))


def _is_native_member(annotation: Any, depth: int) -> bool:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is None:
        return _hashable_in(annotation, _NATIVE)
    if origin is typing.Literal:
        return all(type(argument) in _ATOMS for argument in arguments)
    if origin in _LISTS:
        return all(_is_native(argument, depth) for argument in arguments)
    if origin in _DICTS:
        return (
            len(arguments) == 2
            and _unwrapped(arguments[0]) in (str, Any, object)
            and _is_native(arguments[1], depth)
        )
    return False


def is_scalar_value(value: object) -> bool:
    """Whether a `scalar` rule may write values of this type."""
    return type(value) in _SCALARS or issubclass(type(value), Enum)


def _is_scalar(annotation: Any) -> bool:
    if typing.get_origin(annotation) is typing.Literal:
        return True
    if typing.get_origin(annotation) is re.Pattern:
        return True
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return True
    return _hashable_in(annotation, _SCALARS)


def _rule(annotation: Any) -> Rule | None:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if isinstance(annotation, type) and origin is None:
        if is_dataclass(annotation):
            return Rule("dataclass", annotation)
        if issubclass(annotation, tuple) and hasattr(annotation, "_fields"):
            return Rule("namedtuple", annotation, parts=_namedtuple_hints(annotation))
    if typing.is_typeddict(annotation):
        return Rule("dict")
    if origin in _LISTS and len(arguments) == 1:
        return Rule("list", inner=Hint(arguments[0]))
    if origin in (set, frozenset) and len(arguments) == 1:
        return Rule("set" if origin is set else "frozenset", inner=Hint(arguments[0]))
    if origin is tuple and arguments:
        if len(arguments) == 2 and arguments[1] is ...:
            return Rule("tuple", inner=Hint(arguments[0]))
        return Rule("tuple", parts=tuple(map(Hint, arguments)))
    if origin in _DICTS and len(arguments) == 2:
        keys = Hint(arguments[0])
        if keys.annotation is str:
            return Rule("dict")
        return Rule("dict", keys=keys) if keys.scalar is not None else None
    return None


def _namedtuple_hints(cls: Any) -> tuple[Hint, ...]:
    try:
        resolved = typing.get_type_hints(cls)
    except Exception:
        resolved = {}
    return tuple(_shared(resolved.get(name, Any)) for name in cls._fields)


def _hashable_in(annotation: Any, known: frozenset[Any]) -> bool:
    try:
        return annotation in known
    except TypeError:
        return False


ANY = Hint(Any)
"""The hint of a value without an annotation."""
