"""A config as paths and JSON values: dicts and dataclasses become dots, all else is a leaf.

A key that is no plain word, and a path too long for MLflow, stay inside the parent, whose own
param then holds just those. Each field is read back; one that comes back changed goes as text.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from orbiter_mlflow import names
from orbiter_mlflow.codec.classes import ATOMS, class_name, is_dataclass_value, is_findable
from orbiter_mlflow.codec.hints import ANY, Hint, hints_of
from orbiter_mlflow.codec.json_text import Json, to_text
from orbiter_mlflow.codec.leaves import Leaf, reads_back, write_leaf
from orbiter_mlflow.codec.markers import JSON, TEXT, TYPE, holds, is_plain, mark
from orbiter_mlflow.codec.reading import Reading
from orbiter_mlflow.codec.sameness import same
from orbiter_mlflow.codec.tree import tree
from orbiter_mlflow.codec.unflatten import read_node

__all__ = ["ROOT", "Entry", "flatten_config", "is_key"]

ROOT = ":root"
"""The config's own param: fields whose name MLflow does not take as a key."""

_MAX_PATH = names.MAX_KEY - 10
"""Leaves room for the number of a piece."""
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+")
_PLAIN_FIELD = re.compile(r"\w+")


class _Unset:
    def __repr__(self) -> str:
        return "<not set>"


_UNSET = _Unset()


@dataclass(frozen=True, slots=True)
class Entry:
    """One param before redaction.

    Attributes:
        path: the parts between the dots of its key.
        leaf: its value.
        text: the text of `leaf.json`.
    """

    path: tuple[str, ...]
    leaf: Leaf
    text: str


def flatten_config(config: object) -> Iterator[Entry]:
    """The params of a config, a dataclass instance, in the order of its fields. It never raises."""
    apart: dict[str, Json] = {}
    for name, hint in hints_of(type(config)).items():
        if _PLAIN_FIELD.fullmatch(name) and len(name) <= _MAX_PATH:
            yield from _field(config, name, hint)
        else:
            apart[name] = _field_apart(config, name)
    if apart:
        yield _entry((ROOT,), Leaf(apart))


def _field(config: object, name: str, hint: Hint) -> list[Entry]:
    entries: list[Entry] = []
    try:
        value = getattr(config, name, _UNSET)
        _flatten((name,), len(name), value, hint, (), entries)
        # What holds a text is refused when it is read, so nothing in it can come back changed.
        if any(TEXT in entry.text and holds(entry.leaf.json, TEXT) for entry in entries):
            return entries
        reading = Reading()
        node = tree((entry.path, entry.text) for entry in entries).children[name]
        if same(read_node(node, hint, name, reading), value) and not reading.problems:
            return entries
        return [_entry((name,), Leaf({TEXT: mark(value)}))]
    except Exception as error:
        return [_entry((name,), Leaf(_unreadable(error)))]


def _field_apart(config: object, name: str) -> Json:
    try:
        return _leaf(getattr(config, name, _UNSET), ANY).json
    except Exception as error:
        return _unreadable(error)


def _leaf(value: Any, hint: Hint) -> Leaf:
    try:
        return write_leaf(value, hint)
    except Exception as error:  # its siblings are none the worse
        return Leaf(_unreadable(error))


def _unreadable(error: Exception) -> Json:
    """A property, or a method of the value, has raised."""
    return {TEXT: f"<could not be read: {type(error).__qualname__}>"}


def _entry(path: tuple[str, ...], leaf: Leaf) -> Entry:
    return Entry(path, leaf, to_text(leaf.json))


def _flatten(
    path: tuple[str, ...],
    length: int,
    value: Any,
    hint: Hint,
    above: tuple[int, ...],
    entries: list[Entry],
) -> None:
    """Append the entries of a value.

    Args:
        path: where the value stands.
        length: that of the path's key.
        value: anything.
        hint: what is known of its type.
        above: identities of the containers it is inside of.
        entries: what to append to.
    """
    kind = type(value)
    is_fields = kind not in ATOMS and is_dataclass_value(value)
    if is_fields and hint.dataclass is not kind and not is_findable(kind):
        is_fields = False
    if not is_fields and kind is not dict:
        entries.append(_entry(path, _leaf(value, hint)))
        return
    if id(value) in above:
        entries.append(_entry(path, Leaf({TEXT: f"<{kind.__qualname__} that contains itself>"})))
        return
    above = (*above, id(value))
    hints = hints_of(kind) if is_fields else {}
    items = {name: getattr(value, name, _UNSET) for name in hints} if is_fields else value
    below = {key: item for key, item in items.items() if is_key(key, length)}
    whole = len(below) == len(items)
    rest = {} if whole else {key: item for key, item in items.items() if key not in below}
    if is_fields:
        own = {name: mark(item, above) for name, item in rest.items()}
        if hint.dataclass is not kind:
            own[TYPE] = class_name(kind)
        if own or not below:
            entries.append(_entry(path, Leaf(own)))
    elif not below:
        entries.append(_entry(path, _leaf(value, hint)))
    elif rest or hint.dataclass:
        entries.append(_entry(path, _rest_of_dict(rest, hint, above)))
    for key, item in below.items():
        child = hints[key] if is_fields else hint.child(key)
        _flatten((*path, key), length + 1 + len(key), item, child, above, entries)


def is_key(key: object, length: int) -> bool:
    """Whether what stands under this key is a param of its own, below a path of this length."""
    room = _MAX_PATH - length - 1
    return type(key) is str and len(key) <= room and _PLAIN_KEY.fullmatch(key) is not None


def _rest_of_dict(rest: dict[Any, Any], hint: Hint, above: tuple[int, ...]) -> Leaf:
    marked: Json = rest
    if not is_plain(rest):
        marked = mark(rest, above)
        if holds(marked, TEXT):
            return Leaf(marked)
        if not reads_back(Leaf(marked), ANY, rest):
            return Leaf({TEXT: marked})
    return Leaf({JSON: marked} if hint.dataclass else marked)
