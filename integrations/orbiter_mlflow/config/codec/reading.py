"""Params back to values; what `flatten` wrote.

All problems are collected, by path, so that one error names everything that is wrong. A `Reading`
decides what to do with secrets, texts and changed classes; by itself it is strict: a class has
exactly the fields that were logged, and a secret is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orbiter_mlflow.config.codec.classes import class_name, find_class
from orbiter_mlflow.config.codec.hints import ANY, Hint, hints_of
from orbiter_mlflow.config.codec.json_text import Json, canonical, parse
from orbiter_mlflow.config.codec.kinds import KINDS, Kind
from orbiter_mlflow.config.codec.leaf import has_rule, read_leaf, validated
from orbiter_mlflow.config.codec.markers import (
    HEAD,
    MORE,
    REDACTED,
    TEXT,
    TYPE,
    WHY,
    holds_markers,
    is_marked,
    is_marker,
)
from orbiter_mlflow.config.codec.marking import read_kind, read_state, unmark
from orbiter_mlflow.config.codec.objects import State, shape_of
from orbiter_mlflow.config.codec.rebuild import Rebuilt, rebuild
from orbiter_mlflow.config.codec.tree import NO_OBJECT, Node, Order, in_order
from orbiter_mlflow.config.codec.unencodable import advice
from orbiter_mlflow.errors import UnreadableError

__all__ = ["At", "Changes", "Checked", "Reading", "changes_of", "is_text", "read_node"]

_IS_SECRET = "is a secret, which was redacted when it was logged"  # noqa: S105  says so


def is_text(own: Json) -> str:
    """Why a value that was logged as text cannot be read."""
    return f"was logged as text only: {advice(own.get(WHY))}"


class Reading:
    """One reading of params.

    Attributes:
        problems: path -> what is wrong, so far.
        order: the order of the keys of dicts, by path.
        unconstructed: classes whose constructor failed for the logged values, so that instances
            were made without it.
    """

    def __init__(self) -> None:
        self.problems: dict[str, str] = {}
        self.order: Order = {}
        self.unconstructed: dict[str, None] = {}

    def expect(self, nodes: Mapping[str, Node]) -> None:
        """Look at the params of all fields before they are read."""

    def json(self, own: Json, path: str) -> Json:
        """The object or list in a param, as it is to be read."""
        return own

    def secret(self, path: str) -> Any:
        """The value of a param that was redacted as a whole.

        Raises:
            UnreadableError: there is none.
        """
        raise UnreadableError(_IS_SECRET)

    def stand_in(self, own: Json, path: str) -> Any:
        """The value for JSON that does not hold it.

        Raises:
            UnreadableError: there is none.
        """
        raise UnreadableError(is_text(own) if TEXT in own else _IS_SECRET)

    def validated(self, json: Json, hint: Hint, path: str) -> Any:
        """The value of JSON that only the annotation can read.

        Raises:
            UnreadableError: it has none.
        """
        return validated(json, hint, At(self, path))

    def leaf(self, own: Json, hint: Hint, path: str) -> Any:
        """The value of a param that has none below it.

        Raises:
            UnreadableError: it has none.
        """
        return read_leaf(own, hint, At(self, path))

    def build(self, cls: type, state: State, path: str) -> Any:
        """The object with this state.

        Raises:
            UnreadableError: the class has other fields, or refuses the values.
        """
        shape = shape_of(cls)
        known = shape.fields.keys() if shape is not None else state.fields.keys()
        if known != state.fields.keys():
            wrong = ", ".join(sorted(known ^ state.fields.keys()))
            raise UnreadableError(f"{class_name(cls)} has missing or unknown fields: {wrong}")
        return self.rebuilt(rebuild(cls, state))

    @property
    def construction_notes(self) -> list[str]:
        """A sentence for the user on objects made without their constructors, if there are any."""
        if not self.unconstructed:
            return []
        which = ", ".join(self.unconstructed)
        why = "made without their constructors, which refuse these values, with all fields set"
        return [f"{why}: {which}"]

    def rebuilt(self, found: Rebuilt) -> Any:
        """The object; whether its constructor made it is noted."""
        if not found.constructed:
            self.unconstructed[class_name(type(found.value))] = None
        return found.value

    def leaves_out(self, cls: type, path: str) -> bool:
        """Whether to skip a param that is no field of its class."""
        return False

    def unknown(self, cls: type, path: str) -> None:
        """Note a param that is no field of the config's class."""
        self.problems[path] = "is no field of this class"

    def missing(self, cls: type, path: str) -> None:
        """Note a field of the config's class that has no param."""
        self.problems[path] = "is missing"


@dataclass(frozen=True, slots=True)
class At:
    """The `Maker` of one param: a reading, with the path of the param."""

    reading: Reading
    path: str

    def build(self, cls: type, state: State) -> Any:
        return self.reading.build(cls, state, self.path)

    def validated(self, json: Json, hint: Hint) -> Any:
        return self.reading.validated(json, hint, self.path)

    def stand_in(self, own: Json) -> Any:
        return self.reading.stand_in(own, self.path)


# -- the tree of params ----------------------------------------------------------------------------


def read_node(node: Node, hint: Hint, path: str, reading: Reading) -> Any:
    """The value of a node; if it has none, None and an entry in `reading.problems`."""
    own: Json = None
    problems = reading.problems
    known = len(problems)
    if node.text is not None:
        try:
            own = parse(node.text)
            if type(own) is dict and REDACTED in own:
                return reading.secret(path)
            if type(own) is dict or type(own) is list:
                own = reading.json(own, path)
            elif hint.native and not node.children:
                return own
            if not node.children:
                return None if len(problems) > known else reading.leaf(own, hint, path)
        except (UnreadableError, RecursionError) as error:
            problems[path] = str(error) if isinstance(error, UnreadableError) else "nests too deep"
            if node.is_secret or not node.children:
                return None
            own = None
    try:
        part = _own_part(own, hint, path, reading)
    except UnreadableError as error:
        problems.setdefault(path, str(error))
        part = _Part({}, {})  # to find the problems below
    values = part.values
    hints = {} if part.cls is None else hints_of(part.cls)
    for key, child in node.children.items():
        below = hint.child(key) if part.cls is None else hints.get(key, ANY)
        if (
            part.cls is not None
            and not part.has(key)
            and reading.leaves_out(part.cls, f"{path}.{key}")
        ):
            continue
        if key in values:
            problems[f"{path}.{key}"] = f"is there twice, also inside {path}"
        values[key] = read_node(child, below, f"{path}.{key}", reading)
    if len(problems) > known:
        return None
    try:
        return part.made(values, path, reading)
    except UnreadableError as error:
        problems[path] = str(error)
    except Exception:  # a type may raise anything for a payload that is not its own
        problems[path] = "holds a malformed value"
    return None


class _Part:
    """A value with children, as far as its own param describes it."""

    def __init__(
        self,
        own: dict[str, Json],
        values: dict[Any, Any],
        cls: type | None = None,
        kind: Kind | None = None,
    ) -> None:
        self.own = own
        self.values = values
        self.cls = cls
        self.kind = kind
        shape = None if cls is None else shape_of(cls)
        self._known = {*(() if shape is None else shape.fields), *own.get(MORE, ())}

    def has(self, key: str) -> bool:
        """Whether the object has an attribute of this name."""
        return key in self._known

    def made(self, values: dict[Any, Any], path: str, reading: Reading) -> Any:
        """The value."""
        maker = At(reading, path)
        if self.cls is not None:
            return maker.build(self.cls, read_state(self.cls, self.own, values, maker))
        items = in_order(values, reading.order.get(path))
        return items if self.kind is None else read_kind(self.kind, self.own, items, maker)


def _own_part(own: Json, hint: Hint, path: str, reading: Reading) -> _Part:
    maker = At(reading, path)
    if own is None:
        return _Part({}, {}, hint.dataclass)
    if type(own) is not dict or TEXT in own:
        raise UnreadableError(NO_OBJECT)
    if not HEAD.isdisjoint(own):
        cls = find_class(own[TYPE]) if TYPE in own else hint.dataclass
        if cls is None or shape_of(cls) is None:
            name = "the field's type" if cls is None else class_name(cls)
            raise UnreadableError(f"{name} is no dataclass")
        head = {key: item for key, item in own.items() if is_marker(key)}
        values = {key: unmark(item, maker) for key, item in own.items() if key not in head}
        return _Part(head, values, cls)
    kind = next((KINDS[key] for key in own if key in KINDS), None)
    if kind is not None:
        if kind.items is None:
            raise UnreadableError(NO_OBJECT)
        return _Part(own, {}, None, kind)
    read: Any = unmark(own, maker)
    if type(read) is not dict:
        raise UnreadableError(NO_OBJECT)
    return _Part({}, read, None if is_marked(own) else hint.dataclass)


# -- what pydantic changes -------------------------------------------------------------------------


class Checked(Reading):
    """Also finds fields that pydantic would silently drop or add inside a list or the like."""

    def leaf(self, own: Json, hint: Hint, path: str) -> Any:
        value = super().leaf(own, hint, path)
        if has_rule(own, hint) and hint.rule is None and not holds_markers(own):
            changes = changes_of(own, hint, value, path)
            if changes.dropped or changes.added:
                wrong = ", ".join([*changes.dropped, *changes.added])
                raise UnreadableError(f"a class in it has missing or unknown fields: {wrong}")
        return value


@dataclass(frozen=True, slots=True)
class Changes:
    """How the JSON of the value that pydantic read differs from the logged JSON, by path.

    Attributes:
        dropped: fields that pydantic ignored.
        added: fields that it filled in.
        converted: values that it made others of, since their type has changed.
    """

    dropped: dict[str, None] = field(default_factory=dict)
    added: dict[str, None] = field(default_factory=dict)
    converted: dict[str, None] = field(default_factory=dict)

    def compare(self, logged: Json, now: Json, path: str) -> None:
        """Note all differences between the two."""
        if type(logged) is dict and type(now) is dict:
            self.dropped.update((f"{path}.{key}", None) for key in logged if key not in now)
            self.added.update((f"{path}.{key}", None) for key in now if key not in logged)
            for key in logged.keys() & now.keys():
                self.compare(logged[key], now[key], f"{path}.{key}")
        elif type(logged) is list and type(now) is list:
            before, after = [*map(_unordered, logged)], [*map(_unordered, now)]
            if len(before) != len(after):
                self.converted[path] = None
            alike = {*before} & {*after}
            changed = (x for x, text in zip(logged, before, strict=True) if text not in alike)
            others = (x for x, text in zip(now, after, strict=True) if text not in alike)
            for one, other in zip(changed, others, strict=False):
                self.compare(one, other, f"{path}[]")
        elif canonical(logged) != canonical(now):
            self.converted[path] = None


def _unordered(value: Json) -> str:
    """A text of the JSON without the order of lists, since that of a set changes."""
    if type(value) is list:
        return f"[{','.join(sorted(map(_unordered, value)))}]"
    if type(value) is dict:
        return canonical({key: _unordered(item) for key, item in value.items()})
    return canonical(value)


def changes_of(own: Json, hint: Hint, value: Any, path: str) -> Changes:
    """Compare the JSON with what pydantic writes for the value that was read from it."""
    changes = Changes()
    if hint.adapter is not None:
        try:
            now = hint.adapter.dump_python(value, mode="json", warnings=False)
        except Exception:  # pydantic does not know the type of some part
            return changes
        changes.compare(own, now, path)
    return changes
