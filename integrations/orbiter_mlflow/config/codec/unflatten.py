"""Paths and texts of params back to values; what `flatten` wrote.

All problems are collected, by path: a config that cannot be rebuilt says everything that is wrong.
"""

from typing import Any

from orbiter_mlflow.config.codec.classes import class_name, find_class
from orbiter_mlflow.config.codec.hints import ANY, Hint, hints_of
from orbiter_mlflow.config.codec.json_text import Json, parse
from orbiter_mlflow.config.codec.kinds.kind import Kind
from orbiter_mlflow.config.codec.kinds.registry import KINDS
from orbiter_mlflow.config.codec.markers import HEAD, MORE, REDACTED, TYPE, is_marked
from orbiter_mlflow.config.codec.objects import shape_of
from orbiter_mlflow.config.codec.order import in_order
from orbiter_mlflow.config.codec.reading import At, Reading
from orbiter_mlflow.config.codec.text_only import TEXT
from orbiter_mlflow.config.codec.tree import Node
from orbiter_mlflow.config.codec.unmarking import read_kind, read_state, unmark
from orbiter_mlflow.errors import UnreadableError

__all__ = ["read_node"]


def read_node(node: Node, hint: Hint, path: str, reading: Reading) -> Any:
    """The value of a node; None, and an entry in `reading.problems`, where it has none."""
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
        part = _Part({}, {})  # goes on, for what is wrong below
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
    except Exception:  # whatever a type says of a payload that is not its own
        problems[path] = "holds a malformed value"
    return None


class _Part:
    """What the parent's own param says of a value with children."""

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
        raise UnreadableError("has params below it, but is no object itself")
    if not HEAD.isdisjoint(own):
        cls = find_class(own[TYPE]) if TYPE in own else hint.dataclass
        if cls is None or shape_of(cls) is None:
            name = "the field's type" if cls is None else class_name(cls)
            raise UnreadableError(f"{name} is no dataclass")
        head = {key: item for key, item in own.items() if key[:1] == "$"}
        values = {key: unmark(x, maker) for key, x in own.items() if key[:1] != "$"}
        return _Part(head, values, cls)
    kind = next((KINDS[key] for key in own if key in KINDS), None)
    if kind is not None:
        if kind.items is None:
            raise UnreadableError("has params below it, but is no object itself")
        return _Part(own, {}, None, kind)
    read: Any = unmark(own, maker)
    if type(read) is not dict:
        raise UnreadableError("has params below it, but is no object itself")
    return _Part({}, read, None if is_marked(own) else hint.dataclass)
