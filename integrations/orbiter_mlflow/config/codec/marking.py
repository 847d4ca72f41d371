"""Values as JSON with markers, and back.

`mark` and `unmark` are inverse for all that has a marker; everything else becomes `$text`. Whether
a value really comes back is for the caller to check, by reading it.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

from orbiter_mlflow.config.codec.classes import class_name, find_class, is_findable
from orbiter_mlflow.config.codec.hints import Hint
from orbiter_mlflow.config.codec.json_text import Json, canonical
from orbiter_mlflow.config.codec.kinds import KINDS, Kind, kind_of
from orbiter_mlflow.config.codec.kinds.kind import NotWholeError
from orbiter_mlflow.config.codec.markers import (
    DICT,
    INHERITED,
    ITEMS,
    JSON,
    MAX_DEPTH,
    MORE,
    NAMEDTUPLE,
    PRIVATE,
    REDACTED,
    SET,
    SUPPLIED,
    TEXT,
    TYPE,
    WHY,
    has_plain_keys,
    holds,
    is_marker,
    is_plain,
    marker_of,
)
from orbiter_mlflow.config.codec.objects import UNSET, Shape, State, shape_of, state_of
from orbiter_mlflow.config.codec.unencodable import as_text, budget, contents, own_attributes
from orbiter_mlflow.errors import UnreadableError

__all__ = ["Maker", "mark", "mark_field", "named_in", "object_head", "read_kind", "read_state"]
__all__ += ["unmark"]

_CONTAINERS = (dict, list, tuple, set, frozenset, deque)


# -- values to JSON --------------------------------------------------------------------------------


def mark(value: Any, above: tuple[int, ...] = (), opaque: int = 0) -> Json:
    """The value as JSON. Raises only what the value's own methods raise.

    Args:
        value: anything.
        above: identities of the containers that the value is inside of.
        opaque: how many of these are objects that are only shown.
    """
    if opaque:
        left = budget()
        left.values -= 1
        if left.values < 0:
            return "..."
    kind = type(value)
    if kind in (str, int, float, bool) or value is None:
        if is_plain(value):
            return value
    elif kind is list or kind is dict:
        return _mark_inside(value, None, above, opaque)
    known = kind_of(kind)
    if known is None or known.items is not None or known.collection:
        return _mark_inside(value, known, above, opaque)
    return _mark_kind(value, known, above, opaque)


def _mark_inside(value: Any, kind: Kind | None, above: tuple[int, ...], opaque: int) -> Json:
    cls = type(value)
    if id(value) in above:
        return as_text(f"<{cls.__qualname__} that contains itself>", "cycle")
    if len(above) >= MAX_DEPTH:
        return as_text(f"<{cls.__qualname__} that nests too deep>", "deep")
    above = (*above, id(value))
    if cls is list:
        return [mark(item, above, opaque) for item in value]
    if cls is dict:
        return _mark_dict(value, above, opaque)
    if kind is not None:
        marked = _mark_collection if kind.collection else _mark_kind
        return marked(value, kind, above, opaque)
    shape = shape_of(cls)
    if shape is not None:
        return _mark_object(value, shape, above, opaque)
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return _mark_namedtuple(value, above, opaque)
    # `isinstance` would believe a mock that claims to be a dict.
    if issubclass(cls, _CONTAINERS):
        return _show_container(value, above, opaque)
    why = "function" if cls.__name__ in ("function", "method") else "object"
    return as_text(contents(value, lambda item: mark(item, above, opaque + 1)), why)


def _mark_dict(value: dict[Any, Any], above: tuple[int, ...], opaque: int) -> Json:
    if has_plain_keys(value):
        return {key: mark(item, above, opaque) for key, item in value.items()}
    pairs = value.items()
    return {DICT: [[mark(key, above, opaque), mark(item, above, opaque)] for key, item in pairs]}


def _mark_collection(value: Any, kind: Kind, above: tuple[int, ...], opaque: int) -> Json:
    items = [mark(item, above, opaque) for item in kind.write(value)]
    return {kind.marker: sorted(items, key=canonical) if kind.collection == "set" else items}


def _mark_kind(value: Any, kind: Kind, above: tuple[int, ...], opaque: int) -> Json:
    try:
        payload = kind.write(value)
        items = None if kind.items is None else kind.items(value)
    except NotWholeError as error:
        if error.why == "secret":
            return {REDACTED: None}
        if error.shown is None:
            shown = contents(value, lambda item: mark(item, above, opaque + 1))
        else:
            shown = {class_name(type(value)): mark(error.shown, above, opaque)}
        return as_text(shown, error.why)
    marked: dict[str, Json] = {kind.marker: mark(payload, above, opaque)}
    why = _first_why(marked) if holds(marked, TEXT) else None
    if items:
        marked[ITEMS] = mark(items, above, opaque)
    return marked if why is None else as_text(marked, why)


def _first_why(value: Json) -> str:
    if type(value) is dict:
        if TEXT in value:
            return str(value.get(WHY, "object"))
        value = list(value.values())
    if type(value) is list:
        return next((_first_why(item) for item in value if holds(item, TEXT)), "object")
    return "object"


def _mark_object(value: Any, shape: Shape, above: tuple[int, ...], opaque: int) -> Json:
    cls = type(value)
    state = state_of(value, shape)
    marked = {TYPE: class_name(cls), **object_head(state, above, opaque)}
    for name, item in (*state.fields.items(), *state.more.items()):
        if is_marker(name):
            return as_text({"attributes": mark([*state.more.items()], above, opaque)}, "object")
        marked[name] = mark_field(item, above, opaque)
    return marked if is_findable(cls) else as_text(marked, "local class")


def mark_field(value: Any, above: tuple[int, ...], opaque: int = 0) -> Json:
    """The JSON of a field, which may have no value."""
    return as_text(repr(UNSET), "unset") if value is UNSET else mark(value, above, opaque)


def object_head(state: State, above: tuple[int, ...] = (), opaque: int = 0) -> dict[str, Json]:
    """The JSON of an object but for its class and the values of its attributes."""
    head: dict[str, Json] = {}
    if state.more:
        head[MORE] = list(state.more)
    if state.private:
        head[PRIVATE] = mark(dict(state.private), above, opaque)
    if state.fields_set is not None and state.fields_set != {*state.fields, *state.more}:
        head[SET] = sorted(state.fields_set)
    if state.inherited:
        head[INHERITED] = sorted(state.inherited)
    return head


def _mark_namedtuple(value: Any, above: tuple[int, ...], opaque: int) -> Json:
    cls = type(value)
    parts = dict(zip(cls._fields, tuple.__iter__(value), strict=True))
    marked = {NAMEDTUPLE: class_name(cls)}
    marked |= {name: mark(item, above, opaque) for name, item in parts.items()}
    return marked if is_findable(cls) else as_text(marked, "local class")


def _show_container(value: Any, above: tuple[int, ...], opaque: int) -> Json:
    """An instance of a subclass of a container, as text: with its items, so that secrets show."""
    cls = type(value)
    inner = dict(dict.items(value)) if issubclass(cls, dict) else list(value)
    shown = {cls.__qualname__: mark(inner, above, opaque)}
    own = own_attributes(value)
    if issubclass(cls, deque):
        own["maxlen"] = value.maxlen
    if own:
        shown["attributes"] = mark(dict(sorted(own.items())), above, opaque + 1)
    return as_text(shown, "subclass")


# -- JSON to values --------------------------------------------------------------------------------


class Maker(Protocol):
    """Makes what JSON alone does not hold."""

    def build(self, cls: type, state: State) -> Any:
        """The instance with this state."""

    def validated(self, json: Json, hint: Hint) -> Any:
        """The value of JSON that only the annotation of its field can read."""

    def stand_in(self, own: Json) -> Any:
        """The value for JSON that does not hold it: `$text`, `$given`, a secret."""


def named_in(value: Json) -> Iterator[str]:
    """The classes, as `module:qualname`, and modules, as `module:`, that reading the JSON needs."""
    if type(value) is list:
        for item in value:
            yield from named_in(item)
    elif type(value) is dict and TEXT not in value:
        for key, item in value.items():
            if key in (TYPE, NAMEDTUPLE):
                yield str(item)
                continue
            if key in KINDS:
                try:
                    yield from map(str, KINDS[key].names(item))
                except (TypeError, LookupError):
                    continue  # malformed: reading it raises the error
            yield from named_in(item)


def unmark(value: Json, maker: Maker) -> Any:
    """The value that `mark` was given.

    Args:
        value: JSON with markers.
        maker: makes the objects in it.

    Raises:
        UnreadableError: a marker is unknown or malformed, or its class cannot be found.
    """
    if type(value) is list:
        return [unmark(item, maker) for item in value]
    if type(value) is not dict:
        return value
    name = marker_of(value)
    if name is None:
        return {key: unmark(item, maker) for key, item in value.items()}
    try:
        if TEXT in value or name in (REDACTED, SUPPLIED):
            return maker.stand_in(value)
        if TYPE in value:
            cls = find_class(value[TYPE])
            return maker.build(cls, read_state(cls, value, {}, maker))
        if name == NAMEDTUPLE:
            return _read_namedtuple(value, maker)
        kind = KINDS.get(name)
        if kind is not None and value.keys() <= {name, ITEMS}:
            return read_kind(kind, value, {}, maker)
        if len(value) == 1:
            return _read(name, value[name], maker)
    except UnreadableError:
        raise
    except Exception:  # a type may raise anything for a payload that is not its own
        raise UnreadableError(f"holds a malformed {name}") from None
    raise UnreadableError(f"holds a malformed {name}")


def _read(name: str, payload: Json, maker: Maker) -> Any:
    if name == JSON:
        return unmark(payload, maker)
    if name == DICT:
        return {unmark(key, maker): unmark(item, maker) for key, item in payload}
    raise UnreadableError(f"holds {name}, which is no marker known to this version")


def read_kind(kind: Kind, own: dict[str, Json], items: Mapping[str, Any], maker: Maker) -> Any:
    """The value of a marker; `items` are those of a mapping that have params of their own."""
    payload = unmark(own[kind.marker], maker)
    if kind.items is None:
        return kind.read(payload)
    inner = unmark(own.get(ITEMS, {}), maker)
    return kind.read(payload, inner if type(inner) is list else {**inner, **items})


def read_state(
    cls: type, own: Mapping[str, Json], values: Mapping[str, Any], maker: Maker
) -> State:
    """The state of an object, from its JSON and the values that have params of their own.

    Raises:
        UnreadableError: the JSON is malformed.
    """
    more = own.get(MORE, [])
    if type(more) is not list:
        raise UnreadableError(f"holds a malformed {MORE}")
    fields = {key: unmark(item, maker) for key, item in own.items() if not is_marker(key)}
    fields |= values
    beyond = {name: fields.pop(name) for name in more if name in fields}
    shape = shape_of(cls)
    if shape is None or not shape.is_model:
        return State(fields, beyond, inherited=frozenset(own.get(INHERITED, ())))
    fields_set: Iterable[str] = own.get(SET, [*fields, *beyond])
    private = unmark(own[PRIVATE], maker) if PRIVATE in own else None
    return State(fields, beyond, private, frozenset(fields_set))


def _read_namedtuple(value: Mapping[str, Json], maker: Maker) -> Any:
    cls: Any = find_class(value[NAMEDTUPLE])
    items = {key: unmark(item, maker) for key, item in value.items() if key != NAMEDTUPLE}
    if not (issubclass(cls, tuple) and set(cls._fields) == set(items)):
        raise UnreadableError(f"{value[NAMEDTUPLE]} does not have these fields")
    return tuple.__new__(cls, [items[field] for field in cls._fields])
