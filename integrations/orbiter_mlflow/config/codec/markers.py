"""Markers: the object keys that begin with `$` and say what JSON lacks.

    (1, 2)           {"$tuple": [1, 2]}
    {1: "a"}         {"$dict": [[1, "a"]]}        also a dict with a key that begins with `$`
    Lora(r=8)        {"$type": "module:Lora", "r": 8}
    Path("/x")       {"$path": ["PosixPath", "/x"]}
    OrderedDict(a=1) {"$ordereddict": null, "$items": {"a": 1}}

A marker stands for exactly one type: nothing is guessed, a subclass is not its base class. Most
types have a marker in the registry, `kinds`; here are those that the structure itself needs. A
value with no marker becomes text under `$text`, which is never read back. `marking` writes markers
and reads them.
"""

import re
from collections.abc import Iterable
from typing import Any

from orbiter_mlflow.config.codec.json_text import Json

__all__ = ["DICT", "HEAD", "INHERITED", "ITEMS", "JSON", "LEAF", "MAX_DEPTH", "MORE", "NAMEDTUPLE"]
__all__ += ["PRIVATE", "REDACTED", "SET", "SUPPLIED", "SURROGATE_PAIR", "TEXT", "TYPE", "WHY"]
__all__ += ["has_plain_keys", "holds", "holds_markers", "is_marked", "is_marker", "is_plain"]
__all__ += ["marker_of", "may_hold_markers"]

REDACTED = "$redacted"
"""A secret: null, or a text with `[redacted]` in it."""
TEXT = "$text"
"""A value that cannot be read back: its repr, or the JSON of all that is known of it."""
WHY = "$why"
"""Beside `$text`: a key of `unencodable.ADVICE`."""
JSON = "$json"
"""A value to be read without asking the field's annotation."""
LEAF = "$leaf"
"""In a document only: an object that is one param, though it could be several."""
TYPE = "$type"
"""An object; its fields, and attributes besides, are the other keys."""
MORE = "$more"
"""Names of the attributes that are no fields of the class."""
PRIVATE = "$private"
"""A pydantic model's private attributes."""
SET = "$set"
"""A set; beside an object's fields, the names of those that a pydantic model was given."""
INHERITED = "$class"
"""Names of the fields that only the class has, not the instance."""
HEAD = frozenset({TYPE, MORE, PRIVATE, SET, INHERITED})
"""Keys that stand beside an object's fields."""
NAMEDTUPLE = "$namedtuple"
"""A NamedTuple's class; its fields are the other keys."""
DICT = "$dict"
"""A dict as a list of pairs, where not all keys are plain."""
ITEMS = "$items"
"""The items of a container, beside its own marker."""
SUPPLIED = "$given"
"""Stands for a value that the reader supplies, by its path; never written."""

MAX_DEPTH = 64
"""Levels inside one leaf: far from the interpreter's limit, however deep the caller is."""
SURROGATE_PAIR = re.compile("(?<=[\ud800-\udbff])(?=[\udc00-\udfff])")
"""Between the halves of a pair, which as escapes would read back as one character."""

_LARGE = 1 << 2000
"""Has fewer digits than any limit on conversion that a process may set; the lowest is 640."""


def is_plain(value: Any, depth: int = 0) -> bool:
    """Whether the value is JSON as it stands, and reads back identical."""
    kind = type(value)
    if kind is str:
        return bool(value.isascii() or not SURROGATE_PAIR.search(value))
    if kind is int:
        return bool(-_LARGE < value < _LARGE)
    if kind is float:
        return bool(value - value == 0.0)  # neither NaN nor infinite
    if kind is bool or value is None:
        return True
    if depth >= MAX_DEPTH:
        return False
    if kind is list:
        return all(is_plain(item, depth + 1) for item in value)
    return (
        kind is dict
        and has_plain_keys(value)
        and all(is_plain(item, depth + 1) for item in value.values())
    )


def has_plain_keys(keys: Iterable[Any]) -> bool:
    """Whether all keys can be those of a JSON object that is no marker."""
    return all(type(key) is str and key[:1] != "$" and is_plain(key) for key in keys)


def is_marker(key: str) -> bool:
    """Whether the key of a JSON object is a marker."""
    return key[:1] == "$"


def marker_of(value: dict[str, Json]) -> str | None:
    """The first marker among the keys of a JSON object."""
    return next(filter(is_marker, value), None)


def is_marked(value: Json) -> bool:
    """Whether the JSON is an object with a marker."""
    return type(value) is dict and any(map(is_marker, value))


def holds_markers(value: Json) -> bool:
    """Whether any object in the JSON has a marker."""
    if type(value) is dict:
        return is_marked(value) or any(map(holds_markers, value.values()))
    return type(value) is list and any(map(holds_markers, value))


def may_hold_markers(text: str) -> bool:
    """Whether markers are possible in a param's text; false is certain, and quick to say."""
    return '"$' in text


def holds(value: Json, marker: str) -> bool:
    """Whether any object in the JSON has this marker."""
    if type(value) is dict:
        return marker in value or any(holds(item, marker) for item in value.values())
    return type(value) is list and any(holds(item, marker) for item in value)
