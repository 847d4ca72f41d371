"""Values of all kinds as JSON, and back.

What JSON lacks is an object with a key that starts with `$`:

    (1, 2)           {"$tuple": [1, 2]}
    {1: "a"}         {"$dict": [[1, "a"]]}        so is a dict with a key that starts with `$`
    Lora(r=8)        {"$type": "module:Lora", "r": 8}
    Path("/x")       {"$path": ["PosixPath", "/x"]}

Each type has its marker, for exactly that type: nothing is guessed, a subclass is no base class.
What has none becomes its repr under `$text`, which is never read back. Whether a marker is faithful
is for the caller to find out, by reading it.
"""

import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from orbiter_mlflow.codec.classes import (
    class_name,
    find_class,
    is_dataclass_class,
    is_dataclass_value,
    is_findable,
    rebuild,
)
from orbiter_mlflow.codec.config_error import UnreadableError
from orbiter_mlflow.codec.hints import hints_of
from orbiter_mlflow.codec.json_text import Json, canonical
from orbiter_mlflow.codec.scalars import READERS, write_scalar

__all__ = ["DICT", "JSON", "NAMEDTUPLE", "REDACTED", "TEXT", "TYPE", "Build", "build", "holds"]
__all__ += ["is_marked", "is_plain", "mark", "safe_repr", "unmark"]

TEXT = "$text"
"""A value that cannot be read back: its repr, or the JSON of what is known of it."""
REDACTED = "$redacted"
"""A secret: null, or a text with `[redacted]` in it."""
JSON = "$json"
"""A value to be read without asking the field's annotation."""
TYPE = "$type"
"""A dataclass; its fields stand beside."""
NAMEDTUPLE = "$namedtuple"
DICT = "$dict"
_STR = "$str"

_MAX_DEPTH = 64
"""Levels inside one leaf: far from the interpreter's limit, from wherever it is called."""
_LARGE = 1 << 2000
"""Of fewer digits than any process' limit forbids to convert; the least such limit is 640."""
_LONGEST_REPR = 100_000

Build: TypeAlias = Callable[[type, Mapping[str, Any]], Any]
"""Makes a dataclass from the values of its fields, as `build` does."""

_ITEMS: dict[str, type] = {"$tuple": tuple, "$set": set, "$frozenset": frozenset}
_MARK_OF_ITEMS = {kind: name for name, kind in _ITEMS.items()}
_CONTAINERS = (dict, list, tuple, set, frozenset, deque)
_SURROGATE_PAIR = re.compile("(?<=[\ud800-\udbff])(?=[\udc00-\udfff])")
_ADDRESS = re.compile(r" at 0x[0-9A-Fa-f]+")


def is_plain(value: Any, depth: int = 0) -> bool:
    """Whether the value is JSON as it stands, and reads back identical."""
    kind = type(value)
    if kind is str:
        # As escapes, the halves of a pair would read back as the one character they encode.
        return bool(value.isascii() or not _SURROGATE_PAIR.search(value))
    if kind is int:
        return bool(-_LARGE < value < _LARGE)
    if kind is float:
        return bool(value - value == 0.0)  # neither NaN nor infinite
    if kind is bool or value is None:
        return True
    if depth >= _MAX_DEPTH:
        return False
    if kind is list:
        return all(is_plain(item, depth + 1) for item in value)
    return kind is dict and all(
        type(key) is str and key[:1] != "$" and is_plain(key) and is_plain(item, depth + 1)
        for key, item in value.items()
    )


def is_marked(value: Json) -> bool:
    """Whether the JSON is an object with a marker's key."""
    return type(value) is dict and any(key[:1] == "$" for key in value)


def holds(value: Json, marker: str) -> bool:
    """Whether an object with this key is anywhere in the JSON."""
    if type(value) is dict:
        return marker in value or any(holds(item, marker) for item in value.values())
    return type(value) is list and any(holds(item, marker) for item in value)


def safe_repr(value: object) -> str:
    """The repr, of bounded length and without memory addresses; what its type is if it has none."""
    try:
        text = repr(value)
    except Exception:
        return f"<{type(value).__qualname__} without a repr>"
    return _ADDRESS.sub("", text[:_LONGEST_REPR])


# -- writing -------------------------------------------------------------------------------------


def mark(value: Any, above: tuple[int, ...] = ()) -> Json:
    """The value as JSON. It raises only where methods of the value do.

    Args:
        value: anything.
        above: identities of the containers that this value is inside of.
    """
    kind = type(value)
    if kind is str:
        return value if is_plain(value) else {_STR: _SURROGATE_PAIR.split(value)}
    if kind in (int, float, bool) or value is None:
        if is_plain(value):
            return value
    elif kind in _MARK_OF_ITEMS or kind in (list, dict):
        return _mark_composite(value, above)
    scalar = write_scalar(value)
    if scalar is None:
        return _mark_composite(value, above)
    name, payload = scalar
    return {name: mark(payload, above)}


def _mark_composite(value: Any, above: tuple[int, ...]) -> Json:
    kind = type(value)
    is_fields = is_dataclass_value(value)
    # `isinstance` would believe a mock that says it were a dict.
    if not is_fields and not issubclass(kind, _CONTAINERS):
        return {TEXT: safe_repr(value)}
    if id(value) in above:
        return {TEXT: f"<{kind.__qualname__} that contains itself>"}
    if len(above) >= _MAX_DEPTH:
        return {TEXT: f"<{kind.__qualname__} that nests too deep>"}
    above = (*above, id(value))
    if is_fields:
        names: Iterable[str] = hints_of(kind)
        marked = {TYPE: class_name(kind), **{n: mark(getattr(value, n), above) for n in names}}
        return marked if is_findable(kind) else {TEXT: marked}
    if kind is list:
        return [mark(item, above) for item in value]
    if kind is dict:
        return _mark_dict(value, above)
    if kind is tuple:
        return {"$tuple": [mark(item, above) for item in value]}
    if kind in _MARK_OF_ITEMS:
        return {_MARK_OF_ITEMS[kind]: sorted((mark(x, above) for x in value), key=canonical)}
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        items = dict(zip(kind._fields, tuple.__iter__(value), strict=True))
        marked = {NAMEDTUPLE: class_name(kind), **{n: mark(v, above) for n, v in items.items()}}
        return marked if is_findable(kind) else {TEXT: marked}
    # A container of a type of its own: shown by what it contains, so that secrets are found in it.
    contents = dict(dict.items(value)) if issubclass(kind, dict) else list(value)
    return {TEXT: {kind.__qualname__: mark(contents, above)}}


def _mark_dict(value: dict[Any, Any], above: tuple[int, ...]) -> Json:
    if all(type(key) is str and key[:1] != "$" and is_plain(key) for key in value):
        return {key: mark(item, above) for key, item in value.items()}
    pairs = ([mark(key, above), mark(item, above)] for key, item in value.items())
    return {DICT: sorted(pairs, key=canonical)}


# -- reading -------------------------------------------------------------------------------------


def build(cls: type, values: Mapping[str, Any]) -> Any:
    """The dataclass from the values of its fields.

    Raises:
        UnreadableError: when it is no dataclass, has other fields, or refuses the values.
    """
    if not is_dataclass_class(cls):
        raise UnreadableError(f"{class_name(cls)} is no dataclass")
    known = hints_of(cls)
    if known.keys() != values.keys():
        wrong = ", ".join(sorted(known.keys() ^ values.keys()))
        raise UnreadableError(f"{class_name(cls)} has missing or unknown fields: {wrong}")
    return rebuild(cls, values)


def unmark(value: Json, make: Build = build) -> Any:
    """The value that `mark` was given.

    Args:
        value: JSON with markers.
        make: makes the dataclasses in it.

    Raises:
        UnreadableError: on a marker unknown or malformed, or whose class is not to be found.
    """
    if type(value) is list:
        return [unmark(item, make) for item in value]
    if type(value) is not dict:
        return value
    names = [key for key in value if key[:1] == "$"]
    if not names:
        return {key: unmark(item, make) for key, item in value.items()}
    name = names[0]
    try:
        if name in (TYPE, NAMEDTUPLE):
            rest = {key: unmark(item, make) for key, item in value.items() if key != name}
            return _build_named(name, value[name], rest, make)
        if len(value) == 1:
            return _read(name, value[name], make)
    except UnreadableError:
        raise
    except Exception:  # whatever a type says of a payload that is not its own
        raise UnreadableError(f"holds a malformed {name}") from None
    raise UnreadableError(f"holds a malformed {name}")


def _read(name: str, payload: Json, make: Build) -> Any:
    if name in (TEXT, REDACTED):
        raise UnreadableError("does not hold the value itself")
    if name in READERS:
        return READERS[name](unmark(payload, make))
    if name == JSON:
        return unmark(payload, make)
    if name == _STR:
        return "".join(payload)
    if name == DICT:
        return {unmark(key, make): unmark(item, make) for key, item in payload}
    if name in _ITEMS:
        return _ITEMS[name](unmark(item, make) for item in payload)
    raise UnreadableError(f"holds {name}, which is no marker known to this version")


def _build_named(name: str, class_named: Json, values: Mapping[str, Any], make: Build) -> Any:
    kind: Any = find_class(class_named)
    if name == TYPE:
        return make(kind, values)
    if not (issubclass(kind, tuple) and set(kind._fields) == set(values)):
        raise UnreadableError(f"{class_named} has not these fields")
    return tuple.__new__(kind, [values[field] for field in kind._fields])
