"""A config as paths and JSON values: dicts and objects become dots, all else is a leaf.

A key that is no plain word, or whose path is too long for MLflow, stays in its parent: the parent's
own param then holds just those. Each field is read back; one that comes back changed goes as text.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from orbiter_mlflow import names
from orbiter_mlflow.config.codec.classes import ATOMS, class_name, is_findable
from orbiter_mlflow.config.codec.equality import HOLE, same
from orbiter_mlflow.config.codec.hints import ANY, Hint, hints_of
from orbiter_mlflow.config.codec.json_text import Json, to_text
from orbiter_mlflow.config.codec.kinds import Kind, kind_of
from orbiter_mlflow.config.codec.kinds.kind import NotWholeError
from orbiter_mlflow.config.codec.leaf import Leaf, write_leaf
from orbiter_mlflow.config.codec.markers import (
    JSON,
    MORE,
    TEXT,
    TYPE,
    has_plain_keys,
    holds,
    is_marker,
)
from orbiter_mlflow.config.codec.marking import mark, mark_field, object_head
from orbiter_mlflow.config.codec.objects import UNSET, State, assemble, shape_of, state_of
from orbiter_mlflow.config.codec.reading import At, Reading, read_node
from orbiter_mlflow.config.codec.tree import is_sorted, tree
from orbiter_mlflow.config.codec.unencodable import as_text, budget, fresh_budget
from orbiter_mlflow.errors import UnreadableError

__all__ = ["Entry", "Flat", "flatten_config", "is_key"]

_MAX_PATH = names.MAX_KEY - 10
"""Leaves room for the number of a piece."""
_MAX_SEARCHED = 6
"""Levels down to which the one value that does not come back is searched for."""
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+")
_PLAIN_FIELD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Entry:
    """One param before redaction.

    Attributes:
        path: the parts of its key.
        leaf: its value.
        text: the text of `leaf.json`.
    """

    path: tuple[str, ...]
    leaf: Leaf
    text: str


@dataclass(slots=True)
class Flat:
    """A config as params before redaction.

    Attributes:
        entries: in the order of its fields.
        order: path -> keys, for each dict that is not sorted.
        names: its fields, and its attributes besides.
    """

    entries: list[Entry] = field(default_factory=list)
    order: dict[tuple[str, ...], list[str]] = field(default_factory=dict)
    names: tuple[str, ...] = ()


class _ReadBack(Reading):
    """Reads without running a constructor; a value kept as text is the same as any."""

    def build(self, cls: type, state: State, path: str) -> Any:
        return assemble(cls, state)

    def validated(self, json: Json, hint: Hint, path: str) -> Any:
        raise UnreadableError("needs the code of its classes")

    def secret(self, path: str) -> Any:
        return HOLE

    def stand_in(self, own: Json, path: str) -> Any:
        return HOLE


_READ_BACK = At(_ReadBack(), "")


def flatten_config(config: object) -> Flat:
    """The params of a config, a dataclass instance, before redaction. It never raises."""
    with fresh_budget():
        return _flat(config)


def _flat(config: object) -> Flat:
    cls = type(config)
    hints, flat = hints_of(cls), Flat()
    apart: dict[str, Json] = {}
    state, head = _root_state(config, hints)
    flat.names = (*state.fields, *state.more)
    for name, value in (*state.fields.items(), *state.more.items()):
        if _PLAIN_FIELD.fullmatch(name) and len(name) <= _MAX_PATH:
            _field(name, value, hints.get(name, ANY), flat)
        else:
            apart[name] = _leaf(value, ANY).json
    if apart or head:
        flat.entries.append(_entry((names.CONFIG_ROOT,), Leaf({**head, **apart})))
    return flat


def _root_state(config: object, hints: Mapping[str, Hint]) -> tuple[State, dict[str, Json]]:
    shape = shape_of(type(config))
    if shape is not None:
        try:
            state = state_of(config, shape)
            return state, object_head(state)
        except Exception:  # noqa: S110 - a property raised: read each field alone
            pass
    found: dict[str, Any] = {}
    for name in hints:
        try:
            found[name] = getattr(config, name, UNSET)
        except Exception as error:
            found[name] = _Raised(error)
    # There may be state that Python cannot see.
    head = {} if shape is not None else {MORE: as_text(class_name(type(config)), "object")}
    return State(found), head


class _Raised:
    """A field that could not be read."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def _field(name: str, value: Any, hint: Hint, flat: Flat) -> None:
    if value is UNSET or isinstance(value, _Raised):
        flat.entries.append(_entry((name,), _leaf(value, hint)))
    else:
        _prove((name,), len(name), value, hint, (), flat)


def _prove(
    path: tuple[str, ...],
    length: int,
    value: Any,
    hint: Hint,
    above: tuple[int, ...],
    flat: Flat,
) -> None:
    """As `_flatten`, but the smallest part that does not come back goes as text."""
    part = _proved(path, length, value, hint, above, None)
    if part is None and type(value) is dict and len(path) < _MAX_SEARCHED:
        part = _proved(path, length, value, hint, above, _prove)
    if part is None:
        part = Flat([_entry(path, _changed(value))])
    flat.entries += part.entries
    flat.order |= part.order


def _proved(
    path: tuple[str, ...],
    length: int,
    value: Any,
    hint: Hint,
    above: tuple[int, ...],
    each: "_Flatten | None",
) -> Flat | None:
    """The entries of a value, if reading them gives the value."""
    part, left = Flat(), budget()
    values, size = left.values, left.size
    try:
        _flatten(path, length, value, hint, above, part, each)
        if _comes_back(path, value, hint, part):
            return part
    except Exception:  # noqa: S110 - then it does not come back
        pass
    left.values, left.size = values, size  # all of it will be read again
    return None


def _changed(value: Any) -> Leaf:
    try:
        return Leaf(as_text(mark(value), "changed"))
    except Exception as error:
        return Leaf(_unreadable(error))


def _comes_back(path: tuple[str, ...], value: Any, hint: Hint, part: Flat) -> bool:
    if len(part.entries) == 1 and TEXT in part.entries[0].text and _is_text(part.entries[0]):
        return True
    reading = _ReadBack()
    reading.order = {".".join(path): keys for path, keys in part.order.items()}
    node = tree((entry.path, entry.text) for entry in part.entries)
    for name in path:
        node = node.children[name]
    return same(read_node(node, hint, ".".join(path), reading), value) and not reading.problems


def _is_text(entry: Entry) -> bool:
    return type(entry.leaf.json) is dict and TEXT in entry.leaf.json


def _leaf(value: Any, hint: Hint) -> Leaf:
    if value is UNSET:
        return Leaf(mark_field(value, ()))
    if isinstance(value, _Raised):
        return Leaf(_unreadable(value.error))
    try:
        return write_leaf(value, hint, _READ_BACK)
    except Exception as error:  # keep its siblings
        return Leaf(_unreadable(error))


def _unreadable(error: Exception) -> Json:
    """For a value one of whose own properties or methods raised."""
    return as_text(f"<could not be read: {type(error).__qualname__}>", "unreadable")


def _entry(path: tuple[str, ...], leaf: Leaf) -> Entry:
    return Entry(path, leaf, to_text(leaf.json))


def _flatten(
    path: tuple[str, ...],
    length: int,
    value: Any,
    hint: Hint,
    above: tuple[int, ...],
    flat: Flat,
    each: "_Flatten | None" = None,
) -> None:
    """Append the entries of a value.

    Args:
        path: the path of the value.
        length: the length of the path's key.
        value: anything.
        hint: the hint of the value.
        above: identities of the containers that the value is inside of.
        flat: the entries so far.
        each: does the same for the values below; `_flatten` itself by default.
    """
    if type(value) in ATOMS:
        flat.entries.append(_entry(path, _leaf(value, hint)))
        return
    if id(value) in above:
        cyclic = as_text(f"<{type(value).__qualname__} that contains itself>", "cycle")
        flat.entries.append(_entry(path, Leaf(cyclic)))
        return
    above = (*above, id(value))
    parts = _parts(value, hint, above)
    below = {k: x for k, x in parts.items.items() if is_key(k, length)} if parts else {}
    if parts is None or not below or (parts.is_mapping and len(below) < len(parts.items)):
        flat.entries.append(_entry(path, _leaf(value, hint)))
        return
    if parts.ordered and not is_sorted(parts.items):
        flat.order[path] = list(parts.items)
    own = parts.own
    if len(below) < len(parts.items):
        rest = {key: mark_field(x, above) for key, x in parts.items.items() if key not in below}
        own = {**(own or {}), **rest}
    if own is not None:
        flat.entries.append(_entry(path, Leaf(own)))
    for key, item in below.items():
        if item is UNSET:
            flat.entries.append(_entry((*path, key), _leaf(item, ANY)))
        else:
            child = parts.hints.get(key, ANY) if parts.ordered is False else hint.child(key)
            (each or _flatten)((*path, key), length + 1 + len(key), item, child, above, flat)


_Flatten: TypeAlias = Callable[[tuple[str, ...], int, Any, Hint, tuple[int, ...], Flat], None]


@dataclass(frozen=True, slots=True)
class _Parts:
    """A value whose items can be params below its own.

    Attributes:
        own: its own param, apart from items that stay in it; None if it needs none.
        items: key -> item.
        hints: the hints of an object's fields.
        ordered: whether the order of the items is part of the value.
        is_mapping: whether either all items go below or none, as in a mapping with a marker.
    """

    own: dict[str, Json] | None
    items: Mapping[Any, Any]
    hints: Mapping[str, Hint] = field(default_factory=dict)
    ordered: bool = True
    is_mapping: bool = False


def _parts(value: Any, hint: Hint, above: tuple[int, ...]) -> _Parts | None:
    cls = type(value)
    if cls is dict:
        if not has_plain_keys(value):
            return None
        own: dict[str, Json] | None = {JSON: {}} if hint.dataclass else None
        return _Parts(own, value, is_mapping=own is not None)
    kind = kind_of(cls)
    if kind is not None:
        return None if kind.items is None else _mapping_parts(value, kind, kind.items, above)
    shape = shape_of(cls)
    if shape is None or not (hint.dataclass is cls or is_findable(cls)):
        return None
    state = state_of(value, shape)
    head = object_head(state, above)
    if hint.dataclass is not cls:
        head = {TYPE: class_name(cls), **head}
    items = {**state.fields, **state.more}
    if any(map(is_marker, items)) or holds(head, TEXT):
        return None
    return _Parts(head or None, items, hints_of(cls), ordered=False)


def _mapping_parts(
    value: Any,
    kind: Kind,
    items_of: Callable[[Any], Mapping[Any, Any] | list[Any]],
    above: tuple[int, ...],
) -> _Parts | None:
    try:
        own = {kind.marker: mark(kind.write(value), above)}
        items = items_of(value)
    except NotWholeError:
        return None
    if holds(own, TEXT) or isinstance(items, list) or not has_plain_keys(items):
        return None
    return _Parts(own, items, is_mapping=True)


def is_key(key: object, length: int) -> bool:
    """Whether the item under this key is its own param, below a path of this length."""
    room = _MAX_PATH - length - 1
    return type(key) is str and len(key) <= room and _PLAIN_KEY.fullmatch(key) is not None
