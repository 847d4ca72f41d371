"""JSON with markers back to values; what `marking` wrote."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

from orbiter_mlflow.config.codec.classes import find_class
from orbiter_mlflow.config.codec.hints import Hint
from orbiter_mlflow.config.codec.json_text import Json
from orbiter_mlflow.config.codec.kinds.kind import Kind
from orbiter_mlflow.config.codec.kinds.registry import KINDS
from orbiter_mlflow.config.codec.markers import (
    COLLECTIONS,
    DICT,
    GIVEN,
    INHERITED,
    ITEMS,
    JSON,
    MORE,
    NAMEDTUPLE,
    PRIVATE,
    REDACTED,
    SET,
    STR,
    TYPE,
)
from orbiter_mlflow.config.codec.objects import State, shape_of
from orbiter_mlflow.config.codec.text_only import TEXT
from orbiter_mlflow.errors import UnreadableError

__all__ = ["Maker", "named_in", "read_kind", "read_state", "unmark"]


class Maker(Protocol):
    """What reading JSON asks of its caller."""

    def build(self, cls: type, state: State) -> Any:
        """The instance that carries this."""

    def validated(self, json: Json, hint: Hint) -> Any:
        """What the annotation of a field makes of JSON that no rule of ours reads."""

    def stand_in(self, own: Json) -> Any:
        """What stands for JSON that does not hold the value itself: `$text`, `$given`, a secret."""


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
                    continue  # malformed, as will be said when it is read
            yield from named_in(item)


def unmark(value: Json, maker: Maker) -> Any:
    """The value that `mark` was given.

    Args:
        value: JSON with markers.
        maker: makes the objects in it.

    Raises:
        UnreadableError: on a marker unknown or malformed, or whose class is not to be found.
    """
    if type(value) is list:
        return [unmark(item, maker) for item in value]
    if type(value) is not dict:
        return value
    names = [key for key in value if key[:1] == "$"]
    if not names:
        return {key: unmark(item, maker) for key, item in value.items()}
    name = names[0]
    try:
        if TEXT in value or name in (REDACTED, GIVEN):
            return maker.stand_in(value)
        if TYPE in value:
            cls = find_class(value[TYPE])
            return maker.build(cls, read_state(cls, value, {}, maker))
        if name == NAMEDTUPLE:
            return _namedtuple(value, maker)
        kind = KINDS.get(name)
        if kind is not None and value.keys() <= {name, ITEMS}:
            return read_kind(kind, value, {}, maker)
        if len(value) == 1:
            return _read(name, value[name], maker)
    except UnreadableError:
        raise
    except Exception:  # whatever a type says of a payload that is not its own
        raise UnreadableError(f"holds a malformed {name}") from None
    raise UnreadableError(f"holds a malformed {name}")


def _read(name: str, payload: Json, maker: Maker) -> Any:
    if name == JSON:
        return unmark(payload, maker)
    if name == STR:
        return "".join(payload)
    if name == DICT:
        return {unmark(key, maker): unmark(item, maker) for key, item in payload}
    if name in COLLECTIONS:
        return COLLECTIONS[name](unmark(item, maker) for item in payload)
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
    """The state of an object out of its JSON and the values that have params of their own.

    Raises:
        UnreadableError: the JSON is malformed.
    """
    more = own.get(MORE, [])
    if type(more) is not list:
        raise UnreadableError(f"holds a malformed {MORE}")
    fields = {key: unmark(item, maker) for key, item in own.items() if key[:1] != "$"}
    fields |= values
    beyond = {name: fields.pop(name) for name in more if name in fields}
    shape = shape_of(cls)
    if shape is None or not shape.is_model:
        return State(fields, beyond, inherited=frozenset(own.get(INHERITED, ())))
    given: Iterable[str] = own.get(SET, [*fields, *beyond])
    private = unmark(own[PRIVATE], maker) if PRIVATE in own else None
    return State(fields, beyond, private, frozenset(given))


def _namedtuple(value: Mapping[str, Json], maker: Maker) -> Any:
    cls: Any = find_class(value[NAMEDTUPLE])
    items = {key: unmark(item, maker) for key, item in value.items() if key != NAMEDTUPLE}
    if not (issubclass(cls, tuple) and set(cls._fields) == set(items)):
        raise UnreadableError(f"{value[NAMEDTUPLE]} has not these fields")
    return tuple.__new__(cls, [items[field] for field in cls._fields])
