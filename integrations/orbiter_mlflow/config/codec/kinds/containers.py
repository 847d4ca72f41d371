"""Containers of the standard library, slices, namespaces, partials; and classes and functions.

Classes and functions are written by name, and found again only in modules that are loaded.
"""

from argparse import Namespace
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

from orbiter_mlflow.config.codec.classes import (
    class_name,
    find_class,
    find_reference,
    is_findable,
    reference_name,
)
from orbiter_mlflow.config.codec.kinds.kind import Json, Kind, NotWholeError
from orbiter_mlflow.config.codec.markers import SET

__all__ = ["CONTAINERS", "NAMESPACE", "NAMESPACES", "REFERENCE"]

NAMESPACES = frozenset(
    {
        class_name(SimpleNamespace),
        class_name(Namespace),
        "transformers.generation.configuration_utils:GenerationConfig",
    }
)
"""Base classes whose instances keep everything in their `__dict__`."""


def _write_reference(value: Any) -> str:
    name = reference_name(value)
    if name is None:
        raise NotWholeError("function")
    return name


def _named(payload: Json) -> Iterable[str]:
    return [payload]


def _show_name(payload: Json, show: Callable[[Json], str]) -> str:
    return str(payload).replace(":", ".")


def _without_attributes(value: Any) -> Any:
    if getattr(value, "__dict__", None):
        raise NotWholeError("object")
    return value


def _write_partial(value: Any) -> Any:
    return _without_attributes(value).func


def _partial_items(value: Any) -> Mapping[str, Any]:
    parts = {"args": list(value.args), "keywords": dict(value.keywords)}
    return {name: part for name, part in parts.items() if part}


def _read_partial(function: Any, items: Mapping[str, Any]) -> Any:
    return partial(function, *items.get("args", ()), **items.get("keywords", {}))


def _show_partial(payload: Json, show: Callable[[Json], str]) -> str:
    return f"partial({show(payload)})"


def _show_tuple(payload: Json, show: Callable[[Json], str]) -> str:
    items = ", ".join(map(show, payload))
    return f"({items},)" if len(payload) == 1 else f"({items})"


def _show_set(payload: Json, show: Callable[[Json], str]) -> str:
    return f"{{{', '.join(map(show, payload))}}}" if payload else "set()"


def _show_frozenset(payload: Json, show: Callable[[Json], str]) -> str:
    return f"frozenset({_show_set(payload, show) if payload else ''})"


def _read_default(factory: Any, items: Mapping[Any, Any]) -> Any:
    return defaultdict(factory, items)


def _read_counter(_: None, items: Mapping[Any, Any]) -> Any:
    made: Counter[Any] = Counter()
    dict.update(made, items)  # `Counter.update` would add the numbers up
    return made


def _write_namespace(value: Any) -> str:
    cls = type(value)
    if not is_findable(cls):
        raise NotWholeError("local class", dict(vars(value)))
    return class_name(cls)


def _read_namespace(name: Any, items: Mapping[str, Any]) -> Any:
    cls = find_class(name)
    if not any(class_name(c) in NAMESPACES for c in cls.__mro__):
        raise TypeError("not a namespace")
    made = cls.__new__(cls) if cls is SimpleNamespace else _bare(cls)
    made.__dict__.update(items)
    return made


def _bare(cls: type) -> Any:
    try:
        return object.__new__(cls)
    except TypeError:  # `SimpleNamespace` has its own `__new__`
        return SimpleNamespace.__new__(cls)


REFERENCE = Kind("$ref", _write_reference, find_reference, _show_name, _named)
"""Classes and functions."""

NAMESPACE = Kind("$namespace", _write_namespace, _read_namespace, _show_name, _named, items=vars)
"""Instances of `NAMESPACES` and of their subclasses."""

CONTAINERS: dict[type, Kind] = {
    tuple: Kind("$tuple", list, tuple, _show_tuple, collection="sequence"),
    set: Kind(SET, list, set, _show_set, collection="set"),
    frozenset: Kind("$frozenset", list, frozenset, _show_frozenset, collection="set"),
    OrderedDict: Kind(
        "$ordereddict",
        lambda value: None if not vars(value) else _without_attributes(value),
        lambda _, items: OrderedDict(items),
        items=dict,
    ),
    defaultdict: Kind(
        "$defaultdict",
        lambda value: value.default_factory,
        _read_default,
        items=dict,
    ),
    Counter: Kind(
        "$counter",
        lambda value: None if not vars(value) else _without_attributes(value),
        _read_counter,
        items=dict,
    ),
    deque: Kind(
        "$deque",
        lambda value: value.maxlen,
        lambda maxlen, items: deque(items, maxlen),
        items=list,
    ),
    slice: Kind(
        "$slice",
        lambda value: [value.start, value.stop, value.step],
        lambda parts: slice(*parts),
    ),
    partial: Kind("$partial", _write_partial, _read_partial, _show_partial, items=_partial_items),
}
