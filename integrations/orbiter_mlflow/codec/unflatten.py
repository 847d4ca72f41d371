"""Paths and texts of params back to values; what `flatten` wrote.

All problems are collected, by path: a config that cannot be rebuilt says everything that is wrong.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from orbiter_mlflow.codec.classes import class_name, find_class, is_dataclass_class
from orbiter_mlflow.codec.config_error import UnreadableError
from orbiter_mlflow.codec.hints import ANY, Hint, hints_of
from orbiter_mlflow.codec.json_text import Json, parse
from orbiter_mlflow.codec.leaves import read_leaf
from orbiter_mlflow.codec.markers import REDACTED, TEXT, TYPE, build, holds, is_marked, unmark

__all__ = ["Node", "read_node", "tree"]

_REFUSED = {
    REDACTED: "is a secret, which was redacted when it was logged",
    TEXT: "was logged as text only, since it has no exact encoding",
}


@dataclass(slots=True)
class Node:
    """A param and those below it."""

    text: str | None = None
    children: dict[str, "Node"] = field(default_factory=dict)


def tree(params: Iterable[tuple[Iterable[str], str]]) -> Node:
    """The params, given by the parts of their paths, as one tree."""
    root = Node()
    for path, text in params:
        node = root
        for part in path:
            node = node.children.setdefault(part, Node())
        node.text = text
    return root


def read_node(node: Node, hint: Hint, path: str, problems: dict[str, str]) -> Any:
    """The value of a node; None, and an entry in `problems`, where it has none."""
    own: Json = None
    known = len(problems)
    if node.text is not None:
        try:
            own = parse(node.text)
            for marker, reason in _REFUSED.items():
                if holds(own, marker):
                    raise UnreadableError(reason)
            if not node.children:
                return read_leaf(own, hint)
        except (UnreadableError, RecursionError) as error:
            problems[path] = str(error) if isinstance(error, UnreadableError) else "nests too deep"
            own = None
    try:
        cls, values = _own_part(own, hint)
    except UnreadableError as error:
        problems.setdefault(path, str(error))
        return None
    hints = {} if cls is None else hints_of(cls)
    for key, child in node.children.items():
        below = hint.child(key) if cls is None else hints.get(key, ANY)
        if key in values:
            problems[f"{path}.{key}"] = f"is there twice, also inside {path}"
        values[key] = read_node(child, below, f"{path}.{key}", problems)
    if len(problems) > known:
        return None
    if cls is None:
        return values
    try:
        return build(cls, values)
    except UnreadableError as error:
        problems[path] = str(error)
        return None


def _own_part(own: Json, hint: Hint) -> tuple[type | None, dict[Any, Any]]:
    """What the parent's own param says of a value with children: its class, and some values."""
    if own is None:
        return hint.dataclass, {}
    if type(own) is not dict:
        raise UnreadableError("has params below it, but is no object itself")
    if TYPE in own:
        cls = find_class(own[TYPE])
        if not is_dataclass_class(cls):
            raise UnreadableError(f"{class_name(cls)} is no dataclass")
        return cls, {key: unmark(item) for key, item in own.items() if key != TYPE}
    values: Any = unmark(own)
    if type(values) is not dict:
        raise UnreadableError("has params below it, but is no object itself")
    return (None if is_marked(own) else hint.dataclass), values
