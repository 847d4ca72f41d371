"""Params read as `load_config` does: secrets come from the user, classes may have changed since."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any

from pydantic_core import to_jsonable_python

from orbiter_mlflow.codec.classes import class_name, find_class, is_dataclass_class, rebuild
from orbiter_mlflow.codec.config_error import UnreadableError
from orbiter_mlflow.codec.hints import Hint, hints_of
from orbiter_mlflow.codec.json_text import Json, canonical, parse
from orbiter_mlflow.codec.leaves import is_adapted, read_leaf
from orbiter_mlflow.codec.markers import (
    DICT,
    JSON,
    NAMEDTUPLE,
    REDACTED,
    TEXT,
    TYPE,
    holds,
    is_plain,
    mark,
)
from orbiter_mlflow.codec.reading import IS_TEXT, Reading, changes_of
from orbiter_mlflow.codec.scalars import READERS
from orbiter_mlflow.codec.tree import Node

__all__ = ["Loading"]

_WANTED = "is a secret, which was redacted when it was logged: give it in `secrets`, by this path"
_CLASS_MARKS = frozenset({TYPE, NAMEDTUPLE})
_ENUM = "$enum"


class Loading(Reading):
    """One reading of the params of a run.

    Args:
        secrets: path -> value, for what was redacted. `clients[1].api_key` is in the second item of
            the list `clients`; `by_rank[0]` stands under the key 0, where keys are no strings.
        allow_unknown: leave out what is no field of its class any more.
        moved: module that the config's class was in, and the one it is in now. Other classes of the
            old module that are not found there are looked for in the new one.

    Attributes:
        notes: what the user should know of the config, a sentence each.
    """

    def __init__(
        self,
        secrets: Mapping[str, Any],
        *,
        allow_unknown: bool = False,
        moved: tuple[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.notes: list[str] = []
        self._secrets = secrets
        self._allow_unknown = allow_unknown
        self._moved = moved

    def expect(self, nodes: Mapping[str, Node]) -> None:
        """Refuse secrets that were none, and those whose path means several values."""
        redacted = [path for name, node in nodes.items() for path in _redacted(node, name)]
        shown = ", ".join(sorted(set(redacted))) or "nothing"
        for path in self._secrets:
            if path not in redacted:
                self.problems[path] = f"is in `secrets`, but was not redacted; redacted: {shown}"
            elif redacted.count(path) > 1:
                self.problems[path] = "stands for several redacted values, which cannot be told"

    def json(self, own: Json, hint: Hint, path: str, *, is_leaf: bool) -> Json:
        if self._moved is not None:
            own = self._with_moved_classes(own)
        if holds(own, REDACTED):
            own = self._resupplied(own, hint, path, is_leaf)
        if holds(own, TEXT):
            raise UnreadableError(IS_TEXT)
        return own

    def secret(self, path: str) -> Any:
        if path not in self._secrets:
            raise UnreadableError(_WANTED)
        return self._secrets[path]

    def leaf(self, own: Json, hint: Hint, path: str) -> Any:
        value = read_leaf(own, hint, lambda cls, values: self.build(cls, values, path))
        if is_adapted(own, hint):
            changes = changes_of(own, hint, value, path)
            if changes.gone and not self._allow_unknown:
                raise UnreadableError(_dropped(list(changes.gone)))
            self.notes += [_left_out(name) for name in changes.gone]
            self.notes += [_added(name) for name in changes.new]
            self.notes += [_read_otherwise(name) for name in changes.otherwise]
        return value

    def build(self, cls: type, values: Mapping[str, Any], path: str) -> Any:
        if not is_dataclass_class(cls):
            raise UnreadableError(f"{class_name(cls)} is no dataclass")
        known = hints_of(cls)
        gone = sorted(values.keys() - known.keys())
        new = [name for name in known if name not in values]
        if gone and not self._allow_unknown:
            raise UnreadableError(_dropped([f"{path}.{name}" for name in gone]))
        if wanting := [name for name in new if _has_no_default(cls, name)]:
            raise UnreadableError(
                f"{class_name(cls)} has fields that were not logged, and that have no default: "
                f"{', '.join(wanting)}"
            )
        self.notes += [_left_out(f"{path}.{name}") for name in gone]
        self.notes += [_added(f"{path}.{name}") for name in new]
        return rebuild(cls, {name: values[name] for name in known if name in values})

    def leaves_out(self, cls: type, path: str) -> bool:
        if self._allow_unknown:
            self.notes.append(_left_out(path))
        return self._allow_unknown

    def unknown(self, cls: type, path: str) -> None:
        self.problems[path] = _dropped([path])

    def missing(self, cls: type, path: str) -> None:
        if _has_no_default(cls, path):
            self.problems[path] = "was not logged, as it seems to be new, and has no default"
        else:
            self.notes.append(_added(path))

    def _resupplied(self, own: Json, hint: Hint, path: str, is_leaf: bool) -> Json:
        """The JSON of a param with the secrets in it, in the form that the rest of it has."""
        adapted = is_leaf and is_adapted(own, hint)
        marked = not adapted or _holds_marker(own)

        def supply(place: str) -> Json:
            if place not in self._secrets:
                self.problems[place] = _WANTED
                return None
            value = self._secrets[place]
            written = mark(value) if marked else _as_json(value)
            if holds(written, TEXT):
                self.problems[place] = "was given in `secrets` as a value that has no encoding"
            return written

        filled = _replaced(own, path, supply)
        return {JSON: filled} if adapted and marked else filled

    def _with_moved_classes(self, value: Json) -> Json:
        if type(value) is list:
            return [self._with_moved_classes(item) for item in value]
        if type(value) is not dict:
            return value
        out = {}
        for key, item in value.items():
            if key in _CLASS_MARKS:
                out[key] = self._new_name(item)
            elif key == _ENUM and type(item) is list and item:
                out[key] = [self._new_name(item[0]), *item[1:]]
            else:
                out[key] = self._with_moved_classes(item)
        return out

    def _new_name(self, name: Json) -> Json:
        old, new = self._moved or ("", "")
        module, _, qualname = str(name).partition(":")
        # What is in `__main__` now is another script's, unless the class itself is there.
        if module != old or (old != "__main__" and _is_there(str(name))):
            return name
        moved = f"{new}:{qualname}"
        return moved if _is_there(moved) else name


def _is_there(name: str) -> bool:
    if name.partition(":")[0] not in sys.modules:
        return False
    try:
        find_class(name)
    except UnreadableError:
        return False
    return True


def _has_no_default(cls: type, name: str) -> bool:
    all_fields: tuple[Any, ...] = fields(cls)
    (found,) = (f for f in all_fields if f.name == name)
    return found.init and found.default is MISSING and found.default_factory is MISSING


def _dropped(paths: list[str]) -> str:
    shown = ", ".join(paths)
    return f"{shown} is no field of its class any more: allow_unknown=True leaves it out"


def _left_out(path: str) -> str:
    return f"{path} is no field of its class any more, and is left out"


def _added(path: str) -> str:
    return f"{path} is new since the run, and takes its default"


def _read_otherwise(path: str) -> str:
    return f"{path} is not read as it was logged, since it has another type now"


def _redacted(node: Node, path: str) -> list[str]:
    """The path of each secret in a param and those below it."""
    if node.is_secret:
        return [path]
    found: list[str] = []
    if node.text is not None and REDACTED in node.text:
        _replaced(parse(node.text), path, found.append)
    for key, child in node.children.items():
        found += _redacted(child, f"{path}.{key}")
    return found


def _replaced(value: Json, path: str, supply: Callable[[str], Json]) -> Json:
    """The JSON with what `supply` gives for the path of each secret in it."""
    if type(value) is list:
        return [_replaced(item, f"{path}[{i}]", supply) for i, item in enumerate(value)]
    if type(value) is not dict:
        return value
    if REDACTED in value:
        return supply(path)
    if len(value) == 1:
        [(name, payload)] = value.items()
        if name in READERS and holds(payload, REDACTED):  # one value, whatever it is written as
            return supply(path)
        if name == DICT:
            if any(holds(key, REDACTED) for key, _ in payload):
                return supply(path)
            return {name: [[k, _replaced(v, _under(path, k), supply)] for k, v in payload]}
    return {
        key: _replaced(item, path if key[:1] == "$" else f"{path}.{key}", supply)
        for key, item in value.items()
    }


def _under(path: str, key: Json) -> str:
    return f"{path}.{key}" if type(key) is str else f"{path}[{canonical(key)}]"


def _holds_marker(value: Json) -> bool:
    """Whether there is a marker in the JSON, besides those of secrets."""
    if type(value) is dict:
        if REDACTED in value:
            return False
        return any(key[:1] == "$" or _holds_marker(item) for key, item in value.items())
    return type(value) is list and any(map(_holds_marker, value))


def _as_json(value: Any) -> Json:
    """The value as pydantic writes it; a text marker where it does not know how."""
    if is_plain(value):
        return value
    try:
        written = to_jsonable_python(value)
    except Exception:
        return {TEXT: None}
    return written if is_plain(written) else {TEXT: None}
