"""Values of all kinds as JSON with markers.

Whether a marker is faithful is for the caller to find out, by reading it.
"""

from collections import deque
from typing import Any

from orbiter_mlflow.config.codec.classes import class_name, is_findable
from orbiter_mlflow.config.codec.json_text import Json, canonical
from orbiter_mlflow.config.codec.kinds.kind import Kind, NotWholeError
from orbiter_mlflow.config.codec.kinds.registry import kind_of
from orbiter_mlflow.config.codec.markers import (
    COLLECTIONS,
    DICT,
    INHERITED,
    ITEMS,
    MAX_DEPTH,
    MORE,
    NAMEDTUPLE,
    PRIVATE,
    REDACTED,
    SET,
    STR,
    SURROGATE_PAIR,
    TYPE,
    holds,
    is_plain,
)
from orbiter_mlflow.config.codec.objects import UNSET, Shape, State, shape_of, state_of
from orbiter_mlflow.config.codec.text_only import TEXT, WHY, contents, own_attributes, spent, text

__all__ = ["mark", "mark_field", "object_head"]

_MARK_OF_ITEMS = {kind: name for name, kind in COLLECTIONS.items()}
_CONTAINERS = (dict, list, tuple, set, frozenset, deque)


def mark(value: Any, above: tuple[int, ...] = (), foreign: int = 0) -> Json:
    """The value as JSON. It raises only where methods of the value do.

    Args:
        value: anything.
        above: identities of the containers that this value is inside of.
        foreign: how many of these are objects that are shown only.
    """
    if foreign:
        budget = spent()
        budget.values -= 1
        if budget.values < 0:
            return "..."
    kind = type(value)
    if kind is str:
        return value if is_plain(value) else {STR: SURROGATE_PAIR.split(value)}
    if kind in (int, float, bool) or value is None:
        if is_plain(value):
            return value
    elif kind in _MARK_OF_ITEMS or kind is list or kind is dict:
        return _mark_inside(value, None, above, foreign)
    known = kind_of(kind)
    if known is None or known.items is not None:
        return _mark_inside(value, known, above, foreign)
    return _mark_kind(value, known, above, foreign)


def _mark_inside(value: Any, kind: Kind | None, above: tuple[int, ...], foreign: int) -> Json:
    cls = type(value)
    if id(value) in above:
        return text(f"<{cls.__qualname__} that contains itself>", "cycle")
    if len(above) >= MAX_DEPTH:
        return text(f"<{cls.__qualname__} that nests too deep>", "deep")
    above = (*above, id(value))
    if cls is list:
        return [mark(item, above, foreign) for item in value]
    if cls is dict:
        return _mark_dict(value, above, foreign)
    if cls is tuple:
        return {"$tuple": [mark(item, above, foreign) for item in value]}
    if cls in _MARK_OF_ITEMS:
        items = sorted((mark(x, above, foreign) for x in value), key=canonical)
        return {_MARK_OF_ITEMS[cls]: items}
    if kind is not None:
        return _mark_kind(value, kind, above, foreign)
    shape = shape_of(cls)
    if shape is not None:
        return _mark_object(value, shape, above, foreign)
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        parts = dict(zip(cls._fields, tuple.__iter__(value), strict=True))
        marked = {NAMEDTUPLE: class_name(cls)}
        marked |= {name: mark(item, above, foreign) for name, item in parts.items()}
        return marked if is_findable(cls) else text(marked, "local class")
    # `isinstance` would believe a mock that says it were a dict.
    if issubclass(cls, _CONTAINERS):
        # Shown by what it contains, so that secrets are found in it.
        inner = dict(dict.items(value)) if issubclass(cls, dict) else list(value)
        shown = {cls.__qualname__: mark(inner, above, foreign)}
        own = own_attributes(value)
        if issubclass(cls, deque):
            own["maxlen"] = value.maxlen
        if own:
            shown["attributes"] = mark(dict(sorted(own.items())), above, foreign + 1)
        return text(shown, "subclass")
    why = "function" if cls.__name__ in ("function", "method") else "object"
    return text(contents(value, lambda item: mark(item, above, foreign + 1)), why)


def _mark_kind(value: Any, kind: Kind, above: tuple[int, ...], foreign: int) -> Json:
    try:
        payload = kind.write(value)
        items = None if kind.items is None else kind.items(value)
    except NotWholeError as error:
        if error.why == "secret":
            return {REDACTED: None}
        if error.shown is None:
            shown = contents(value, lambda item: mark(item, above, foreign + 1))
        else:
            shown = {class_name(type(value)): mark(error.shown, above, foreign)}
        return text(shown, error.why)
    marked: dict[str, Json] = {kind.marker: mark(payload, above, foreign)}
    why = _first_why(marked) if holds(marked, TEXT) else None
    if items:
        marked[ITEMS] = mark(items, above, foreign)
    return marked if why is None else text(marked, why)


def _first_why(value: Json) -> str:
    if type(value) is dict:
        if TEXT in value:
            return str(value.get(WHY, "object"))
        value = list(value.values())
    if type(value) is list:
        return next((_first_why(item) for item in value if holds(item, TEXT)), "object")
    return "object"


def _mark_object(value: Any, shape: Shape, above: tuple[int, ...], foreign: int) -> Json:
    cls = type(value)
    state = state_of(value, shape)
    marked = {TYPE: class_name(cls), **object_head(state, above, foreign)}
    for name, item in (*state.fields.items(), *state.more.items()):
        if name[:1] == "$":
            return text({"attributes": mark([*state.more.items()], above, foreign)}, "object")
        marked[name] = mark_field(item, above, foreign)
    return marked if is_findable(cls) else text(marked, "local class")


def mark_field(value: Any, above: tuple[int, ...], foreign: int = 0) -> Json:
    """The JSON of a field's value, which may not be set."""
    return text(repr(UNSET), "unset") if value is UNSET else mark(value, above, foreign)


def object_head(state: State, above: tuple[int, ...] = (), foreign: int = 0) -> dict[str, Json]:
    """What is said of an object besides its class and the values of its attributes."""
    head: dict[str, Json] = {}
    if state.more:
        head[MORE] = list(state.more)
    if state.private:
        head[PRIVATE] = mark(dict(state.private), above, foreign)
    if state.given is not None and state.given != {*state.fields, *state.more}:
        head[SET] = sorted(state.given)
    if state.inherited:
        head[INHERITED] = sorted(state.inherited)
    return head


def _mark_dict(value: dict[Any, Any], above: tuple[int, ...], foreign: int) -> Json:
    if all(type(key) is str and key[:1] != "$" and is_plain(key) for key in value):
        return {key: mark(item, above, foreign) for key, item in value.items()}
    pairs = value.items()
    return {DICT: [[mark(key, above, foreign), mark(item, above, foreign)] for key, item in pairs]}
