"""What the annotation of a field says about the text of its value.

A hint never coerces: it only allows a shorter text where that text reads back identical. An
annotation that cannot be resolved counts as `Any`.
"""

import collections.abc
import sys
import types
import typing
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

from pydantic import TypeAdapter

__all__ = ["ANY", "Hint", "hints_of"]

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
_WRAPPERS = frozenset(
    getattr(typing, name)
    for name in ("Final", "ClassVar", "Required", "NotRequired", "ReadOnly")
    if hasattr(typing, name)
)
_DEEPEST = 20
"""Levels of an annotation that are looked at; an alias may contain itself."""


class Hint:
    """One annotation: how its values may be written, and what it says of the values inside."""

    def __init__(self, annotation: Any) -> None:
        self.annotation = _unwrapped(annotation)

    @cached_property
    def native(self) -> bool:
        """Whether JSON alone tells the value; then the annotation is not asked when reading."""
        return _is_native(self.annotation) or self.adapter is None

    @cached_property
    def dataclass(self) -> type | None:
        """The dataclass named here, if it is the only one: `Lora`, `Lora | None`."""
        origins = {typing.get_origin(member) or member for member in _members(self.annotation)}
        found = [o for o in origins if isinstance(o, type) and is_dataclass(o)]
        return found[0] if len(found) == 1 else None

    @cached_property
    def adapter(self) -> TypeAdapter[Any] | None:
        """What converts by this annotation; None where pydantic knows no way."""
        # pydantic warns of what it can do only in part; every result is compared anyway.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with suppress(Exception):
                return TypeAdapter(self.annotation)
        return None

    def child(self, key: str) -> "Hint":
        """The hint of the value under a key, where the value is a dict."""
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
    """The fields of a dataclass, in their order, with their hints."""
    found = _known.get(cls)
    if found is None:
        found = _known[cls] = _hints_of(cls)
    return found


def _hints_of(cls: type) -> dict[str, Hint]:
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
    """One annotation alone, where another one of the class cannot be resolved."""
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


def _hashable_in(annotation: Any, known: frozenset[Any]) -> bool:
    try:
        return annotation in known
    except TypeError:
        return False


ANY = Hint(Any)
"""Says nothing."""
