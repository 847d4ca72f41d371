"""The names of the markers, and what is to be told of JSON that may hold some.

What JSON lacks is an object with a key that starts with `$`:

    (1, 2)           {"$tuple": [1, 2]}
    {1: "a"}         {"$dict": [[1, "a"]]}        so is a dict with a key that starts with `$`
    Lora(r=8)        {"$type": "module:Lora", "r": 8}
    Path("/x")       {"$path": ["PosixPath", "/x"]}
    OrderedDict(a=1) {"$ordereddict": null, "$items": {"a": 1}}

Each type has its marker, for exactly that type: nothing is guessed, a subclass is no base class;
`kinds` has those of most types. What has none becomes text under `$text`, which is never read back.
`marking` writes them, `unmarking` reads them.
"""

import re
from typing import Any

from orbiter_mlflow.config.codec.json_text import Json

__all__ = ["COLLECTIONS", "DICT", "GIVEN", "HEAD", "INHERITED", "ITEMS", "JSON", "MAX_DEPTH"]
__all__ += ["MORE", "NAMEDTUPLE", "PRIVATE", "REDACTED", "SET", "STR", "SURROGATE_PAIR", "TYPE"]
__all__ += ["holds", "holds_markers", "is_marked", "is_plain"]

REDACTED = "$redacted"
"""A secret: null, or a text with `[redacted]` in it."""
JSON = "$json"
"""A value to be read without asking the field's annotation."""
TYPE = "$type"
"""An object; its fields, and attributes beyond, stand beside."""
MORE = "$more"
"""Names of attributes beside that are no fields of the class."""
PRIVATE = "$private"
"""A pydantic model's private attributes."""
SET = "$set"
"""Names of the fields that a pydantic model was given, where these are not all."""
INHERITED = "$class"
"""Names of the fields that the instance has not itself, but its class."""
HEAD = frozenset({TYPE, MORE, PRIVATE, SET, INHERITED})
"""Keys beside an object's fields."""
NAMEDTUPLE = "$namedtuple"
DICT = "$dict"
ITEMS = "$items"
"""What a mapping of some kind holds, beside its marker."""
STR = "$str"
GIVEN = "$given"
"""Stands for a value that the reader gives, by its path; never written."""


COLLECTIONS: dict[str, type] = {"$tuple": tuple, "$set": set, "$frozenset": frozenset}
"""Collections that are written as a list of their items."""
MAX_DEPTH = 64
"""Levels inside one leaf: far from the interpreter's limit, from wherever it is called."""
SURROGATE_PAIR = re.compile("(?<=[\ud800-\udbff])(?=[\udc00-\udfff])")
"""Between the halves of a pair: as escapes they would read back as one character."""

_LARGE = 1 << 2000
"""Of fewer digits than any process' limit forbids to convert; the least such limit is 640."""


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
    return kind is dict and all(
        type(key) is str and key[:1] != "$" and is_plain(key) and is_plain(item, depth + 1)
        for key, item in value.items()
    )


def is_marked(value: Json) -> bool:
    """Whether the JSON is an object with a marker's key."""
    return type(value) is dict and any(key[:1] == "$" for key in value)


def holds_markers(value: Json) -> bool:
    """Whether an object with a marker's key is anywhere in the JSON."""
    if type(value) is dict:
        return is_marked(value) or any(map(holds_markers, value.values()))
    return type(value) is list and any(map(holds_markers, value))


def holds(value: Json, marker: str) -> bool:
    """Whether an object with this key is anywhere in the JSON."""
    if type(value) is dict:
        return marker in value or any(holds(item, marker) for item in value.values())
    return type(value) is list and any(holds(item, marker) for item in value)
