"""Rebuild an object with the state that was logged, in the process that loads it.

The class's own ways come first: a library's `from_dict`, then the constructor. Where these fail or
give another state, the logged state is set without them. A pydantic model is never constructed:
`BaseSettings` would read the environment of the process that loads it.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

from orbiter_mlflow.config.codec.classes import ATOMS, class_name
from orbiter_mlflow.config.codec.equality import same
from orbiter_mlflow.config.codec.objects import (
    UNSET,
    Shape,
    State,
    assemble,
    put,
    shape_of,
    state_of,
)
from orbiter_mlflow.errors import UnreadableError

__all__ = ["Rebuilt", "rebuild", "uncopied"]

_HAVE_FROM_DICT = frozenset({"transformers"})
"""Packages whose configs have `to_dict` and a `from_dict` that is its inverse."""

_uncopied: ContextVar[tuple[object, ...]] = ContextVar("uncopied", default=())


@contextmanager
def uncopied(values: Mapping[str, object]) -> Iterator[None]:
    """Put these values, which the user supplies, into the config themselves, not as copies."""
    token = _uncopied.set(tuple(values.values()))
    try:
        yield
    finally:
        _uncopied.reset(token)


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """An object, and whether its class's own constructor made it."""

    value: Any
    constructed: bool


def rebuild(cls: type, state: State) -> Rebuilt:
    """An instance with exactly this state; fields that it lacks take the class's defaults.

    Raises:
        UnreadableError: the class has no place for the state.
    """
    shape = shape_of(cls)
    if shape is None:
        raise UnreadableError(f"{class_name(cls)} has state that cannot be set")
    try:
        bypass = shape.is_model or _only_sets_fields(cls)
        made = None if bypass else _constructed(cls, shape, state)
        if made is None:
            return Rebuilt(_without_constructor(cls, shape, state), bypass)
        if _carries(made, shape, state):
            return Rebuilt(made, True)
    except Exception:
        raise UnreadableError(f"{class_name(cls)} cannot be constructed") from None
    raise UnreadableError(f"{class_name(cls)} does not keep the values of its fields")


def _only_sets_fields(cls: Any) -> bool:
    """Whether `dataclass` wrote the constructor, which then does nothing but set fields."""
    code = getattr(cls.__init__, "__code__", None)
    return (
        code is not None
        and code.co_filename == "<string>"
        and cls.__new__ is object.__new__
        and hasattr(cls, "__dataclass_fields__")
        and not hasattr(cls, "__post_init__")
    )


def _constructed(cls: Any, shape: Shape, state: State) -> Any:
    whole = shape.fields.keys() == state.fields.keys()
    if whole and cls.__module__.partition(".")[0] in _HAVE_FROM_DICT and hasattr(cls, "from_dict"):
        try:
            raw = assemble(cls, state)
            made = cls.from_dict(raw.to_dict())
            if _carries(made, shape, state):
                return made
        except Exception:  # noqa: S110 - then the constructor may
            pass
    arguments = {
        one.argument: state.fields[one.name]
        for one in shape.fields.values()
        if one.argument is not None and one.name in state.fields
    }
    try:
        # Copies: a constructor may change its arguments, and the originals are compared afterwards.
        memo = {id(value): value for value in _uncopied.get()}
        made = cls(**{name: _copied(value, memo) for name, value in arguments.items()})
        if type(made) is not cls:
            return None
    except Exception:
        return None
    _correct(made, shape, state, whole)
    return made


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    return value if type(value) in ATOMS else copy.deepcopy(value, dict(memo))


def _correct(made: Any, shape: Shape, state: State, whole: bool) -> None:
    """Set what the constructor made different from what was logged."""
    now = state_of(made, shape)
    for before, after in ((state.fields, now.fields), (state.more, now.more)):
        for name, value in before.items():
            if name not in state.inherited and not (
                name not in now.inherited and same(after.get(name, UNSET), value)
            ):
                put(made, shape, name, value)
    own = getattr(made, "__dict__", {})
    for name in state.inherited - now.inherited:
        own.pop(name, None)
    if whole:
        for name in now.more.keys() - state.more.keys():
            own.pop(name, None)
    for name, one in shape.fields.items():
        if name not in state.fields and now.fields[name] is UNSET and one.default is not None:
            put(made, shape, name, one.default())


def _without_constructor(cls: type, shape: Shape, state: State) -> Any:
    new = {
        name: one.default()
        for name, one in shape.fields.items()
        if name not in state.fields and one.default is not None
    }
    found = {name: value for name, value in state.fields.items() if value is not UNSET}
    return assemble(cls, replace(state, fields={**found, **new}))


def _carries(made: Any, shape: Shape, state: State) -> bool:
    now = state_of(made, shape)
    whole = shape.fields.keys() == state.fields.keys()
    if whole and (now.more.keys() != state.more.keys() or now.inherited != state.inherited):
        return False
    pairs = ((state.fields, now.fields), (state.more, now.more))
    return all(
        same(after.get(name, UNSET), value)
        for before, after in pairs
        for name, value in before.items()
    )
