"""The state of an instance: its fields, and all else in its `__dict__` and slots.

Instances are read and assembled without running code of their class: no constructor, no `__eq__`.
This works for dataclasses, pydantic models and attrs classes whose whole state is in Python.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from enum import Enum
from functools import cached_property
from types import MemberDescriptorType
from typing import Any
from weakref import WeakKeyDictionary

from orbiter_mlflow.config.codec.classes import class_name

__all__ = ["UNSET", "Field", "Shape", "State", "assemble", "is_plain_class", "put", "shape_of"]
__all__ += ["state_of"]

_PYDANTIC = "pydantic.main:BaseModel"
_DERIVED = {
    # These belong to the machine and the process, and are made again on demand.
    "transformers.training_args:TrainingArguments": {
        *("distributed_state", "_n_gpu", "_setup_devices", "__cached__setup_devices"),
    },
}
"""Class -> attributes that are no part of a config, like the values of a `cached_property`."""
_UNCARRIED = frozenset({"__dict__", "__weakref__", "_attrs_cached_hash"})


class _Unset:
    def __repr__(self) -> str:
        return "<not set>"


UNSET = _Unset()


@dataclass(frozen=True, slots=True)
class Field:
    """A declared field.

    Attributes:
        name: the attribute's name.
        argument: the name of the constructor's argument, if it takes one.
        default: makes the default, if there is one.
    """

    name: str
    argument: str | None
    default: Callable[[], Any] | None


@dataclass(frozen=True, slots=True)
class Shape:
    """Where instances of a class keep their state.

    Attributes:
        fields: the declared fields, in the order of the class.
        slots: slot -> the descriptor that reads and writes it.
        derived: attributes that are no part of the state.
        is_model: whether it is a pydantic model, which keeps some of its state separately.
    """

    fields: Mapping[str, Field]
    slots: Mapping[str, Any]
    derived: frozenset[str]
    is_model: bool = False


@dataclass(frozen=True, slots=True)
class State:
    """The state of an instance.

    Attributes:
        fields: name -> value; `UNSET` where a field has no value.
        more: attributes that are no fields, sorted by name; a pydantic model's in their order.
        private: a pydantic model's private attributes.
        fields_set: names of the fields that a pydantic model was given; None for other classes.
        inherited: names of the fields that only the class has a value for.
    """

    fields: Mapping[str, Any]
    more: Mapping[str, Any] = field(default_factory=dict)
    private: Mapping[str, Any] | None = None
    fields_set: frozenset[str] | None = None
    inherited: frozenset[str] = frozenset()


_known: WeakKeyDictionary[type, Shape | None] = WeakKeyDictionary()


def shape_of(cls: type) -> Shape | None:
    """The shape of a class; None if its instances may have state that Python cannot see."""
    try:
        return _known[cls]
    except KeyError:
        found = _known[cls] = _shape_of(cls)
        return found


def _shape_of(cls: type) -> Shape | None:
    is_model = any(class_name(c) == _PYDANTIC for c in cls.__mro__)
    declared = _declared(cls, is_model)
    if declared is None or not is_plain_class(cls):
        return None
    slots = {
        name: member
        for c in reversed(cls.__mro__)
        for name, member in vars(c).items()
        if isinstance(member, MemberDescriptorType)
        and name not in _UNCARRIED
        and not name.startswith("__pydantic_")
    }
    derived = set().union(*(_DERIVED.get(class_name(c), ()) for c in cls.__mro__))
    if hasattr(cls, "__class_getitem__"):
        derived.add("__orig_class__")  # `Box[int](1)` keeps its types there
    derived |= {
        name
        for c in cls.__mro__
        for name, value in vars(c).items()
        if isinstance(value, cached_property)
    }
    return Shape({one.name: one for one in declared}, slots, frozenset(derived), is_model)


def is_plain_class(cls: type) -> bool:
    """Whether the whole state of the class's instances is in attributes and slots."""
    if issubclass(cls, Enum | type):
        return False
    try:
        # Not for a class that acts when an instance is deleted.
        return not hasattr(cls, "__del__") and type(object.__new__(cls)) is cls
    except TypeError:
        return False


def _declared(cls: Any, is_model: bool) -> list[Field] | None:
    if is_model:
        return [
            Field(name, None, None if one.is_required() else _pydantic_default(one))
            for name, one in cls.__pydantic_fields__.items()
        ]
    if hasattr(cls, "__dataclass_fields__"):
        return [
            Field(f.name, f.name if f.init else None, _dataclass_default(f)) for f in fields(cls)
        ]
    if hasattr(cls, "__attrs_attrs__"):
        return [
            Field(f.name, f.alias if f.init else None, _attrs_default(f))
            for f in cls.__attrs_attrs__
        ]
    return None


def _pydantic_default(one: Any) -> Callable[[], Any]:
    return lambda: one.get_default(call_default_factory=True, validated_data={})


def _dataclass_default(one: Any) -> Callable[[], Any] | None:
    if one.default_factory is not MISSING:
        factory: Callable[[], Any] = one.default_factory
        return factory
    return None if one.default is MISSING else lambda: one.default


def _attrs_default(one: Any) -> Callable[[], Any] | None:
    attr: Any = sys.modules["attr"]
    if one.default is attr.NOTHING:
        return None
    if isinstance(one.default, attr.Factory):
        return None if one.default.takes_self else one.default.factory
    return lambda: one.default


def state_of(value: Any, shape: Shape) -> State:
    """The state of this instance of that shape.

    Raises:
        Exception: whatever a field that is a property raises.
    """
    own = dict(_attributes(value, shape))
    found, inherited = {}, []
    for name in shape.fields:
        if name in own:
            found[name] = own.pop(name)
        else:  # the class has it, or it is a property
            found[name] = getattr(value, name, UNSET)
            if found[name] is not UNSET:
                inherited.append(name)
    if not shape.is_model:
        more = dict(sorted(own.items())) if own else own
        return State(found, more, inherited=frozenset(inherited))
    extra = _part(value, "__pydantic_extra__") or {}
    fields_set = frozenset(_part(value, "__pydantic_fields_set__") or ())
    return State(found, {**own, **extra}, _part(value, "__pydantic_private__"), fields_set)


def _part(model: Any, name: str) -> Any:
    try:
        return object.__getattribute__(model, name)
    except AttributeError:
        return None


def _attributes(value: Any, shape: Shape) -> Iterator[tuple[str, Any]]:
    for name, member in shape.slots.items():
        try:
            yield name, member.__get__(value)
        except AttributeError:
            continue
    try:
        own = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return
    if shape.derived:
        yield from ((name, item) for name, item in own.items() if name not in shape.derived)
    else:
        yield from own.items()


def assemble(cls: type, state: State) -> Any:
    """An instance with this state, made without running code of its class.

    Raises:
        TypeError: the class has no place for the state.
    """
    shape = shape_of(cls)
    if shape is None:
        raise TypeError(f"{class_name(cls)} has state that cannot be set")
    made: Any = object.__new__(cls)
    for name, value in state.fields.items():
        if name not in state.inherited:
            put(made, shape, name, value)
    if shape.is_model:
        _put_model_parts(made, cls, state)
    else:
        for name, value in state.more.items():
            put(made, shape, name, value)
    return made


def put(made: Any, shape: Shape, name: str, value: Any) -> None:
    """Set an attribute where it is kept, bypassing the class's own `__setattr__`."""
    member = shape.slots.get(name)
    if member is not None:
        member.__set__(made, value)
    elif name not in shape.fields or not _is_property(type(made), name):
        object.__getattribute__(made, "__dict__")[name] = value


def _is_property(cls: type, name: str) -> bool:
    """Whether a property of that name computes the field from others."""
    found = next((vars(c)[name] for c in cls.__mro__ if name in vars(c)), None)
    return hasattr(type(found), "__set__")


def _put_model_parts(made: Any, cls: Any, state: State) -> None:
    extra = dict(state.more) if state.more or cls.model_config.get("extra") == "allow" else None
    private = None if state.private is None else dict(state.private)
    if private is None and cls.__private_attributes__:
        private = {}
    for name, part in (
        ("__pydantic_fields_set__", set(state.fields_set or ())),
        ("__pydantic_extra__", extra),
        ("__pydantic_private__", private),
    ):
        if part is not None or getattr(cls, name, UNSET) is not None:  # a RootModel has them too
            object.__setattr__(made, name, part)
