"""Paths and texts of params back to values; what `flatten` wrote.

All problems are collected, by path: a config that cannot be rebuilt says everything that is wrong.
"""

from typing import Any

from orbiter_mlflow.codec.classes import class_name, find_class, is_dataclass_class
from orbiter_mlflow.codec.config_error import UnreadableError
from orbiter_mlflow.codec.hints import ANY, Hint, hints_of
from orbiter_mlflow.codec.json_text import Json, parse
from orbiter_mlflow.codec.markers import REDACTED, TYPE, is_marked, unmark
from orbiter_mlflow.codec.reading import Reading
from orbiter_mlflow.codec.tree import Node

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
                own = reading.json(own, hint, path, is_leaf=not node.children)
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
        cls, values = _own_part(own, hint, path, reading)
    except UnreadableError as error:
        problems.setdefault(path, str(error))
        cls, values = None, {}  # goes on, for what is wrong below
    hints = {} if cls is None else hints_of(cls)
    for key, child in node.children.items():
        if cls is not None and key not in hints and reading.leaves_out(cls, f"{path}.{key}"):
            continue
        below = hint.child(key) if cls is None else hints.get(key, ANY)
        if key in values:
            problems[f"{path}.{key}"] = f"is there twice, also inside {path}"
        values[key] = read_node(child, below, f"{path}.{key}", reading)
    if len(problems) > known:
        return None
    if cls is None:
        return values
    try:
        return reading.build(cls, values, path)
    except UnreadableError as error:
        problems[path] = str(error)
        return None


def _own_part(
    own: Json, hint: Hint, path: str, reading: Reading
) -> tuple[type | None, dict[Any, Any]]:
    """What the parent's own param says of a value with children: its class, and some values."""

    def make(cls: type, values: Any) -> Any:
        return reading.build(cls, values, path)

    if own is None:
        return hint.dataclass, {}
    if type(own) is not dict:
        raise UnreadableError("has params below it, but is no object itself")
    if TYPE in own:
        cls = find_class(own[TYPE])
        if not is_dataclass_class(cls):
            raise UnreadableError(f"{class_name(cls)} is no dataclass")
        return cls, {key: unmark(item, make) for key, item in own.items() if key != TYPE}
    values: Any = unmark(own, make)
    if type(values) is not dict:
        raise UnreadableError("has params below it, but is no object itself")
    return (None if is_marked(own) else hint.dataclass), values
