"""Read params as `load_config` does: the user supplies what is missing, and classes may change.

The user supplies secrets, and values for what was kept as text, by path.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from pydantic_core import to_jsonable_python

from orbiter_mlflow.config.codec.classes import class_name
from orbiter_mlflow.config.codec.hints import Hint
from orbiter_mlflow.config.codec.json_text import Json, parse
from orbiter_mlflow.config.codec.leaf import has_rule, read_leaf
from orbiter_mlflow.config.codec.markers import (
    REDACTED,
    SUPPLIED,
    TEXT,
    holds,
    holds_markers,
)
from orbiter_mlflow.config.codec.modules import MovedModule
from orbiter_mlflow.config.codec.objects import State, shape_of
from orbiter_mlflow.config.codec.paths import replace_values, values_of
from orbiter_mlflow.config.codec.reading import At, Reading, changes_of, is_text
from orbiter_mlflow.config.codec.rebuild import rebuild
from orbiter_mlflow.config.codec.tree import Node
from orbiter_mlflow.errors import UnreadableError

__all__ = ["Loading"]

_HOW_TO_SUPPLY = (
    "is a secret, which was redacted when it was logged: give it in `secrets`, by this path"
)


class Loading(Reading):
    """One reading of the params of a run.

    Args:
        secrets: path -> value, for what was redacted. `clients[1].api_key` is in the second item of
            the list `clients`; `by_rank[0]` is under the key 0, which is no string.
        overrides: likewise for what was kept as text.
        allow_unknown: leave out what is no longer a field of its class.
        moved: the module that classes were in, and the one they are in now.

    Attributes:
        notes: sentences for the user, on how the config differs from what was logged.
    """

    def __init__(
        self,
        secrets: Mapping[str, Any],
        overrides: Mapping[str, Any],
        *,
        allow_unknown: bool = False,
        moved: MovedModule | None = None,
    ) -> None:
        super().__init__()
        self.notes: list[str] = []
        self._secrets = secrets
        self._overrides = overrides
        self._allow_unknown = allow_unknown
        self._moved = moved

    def expect(self, nodes: Mapping[str, Node]) -> None:
        """Refuse values that nothing needs, and paths that stand for several values."""
        for supplied, marker, what, was in (
            (self._secrets, REDACTED, "secrets", "redacted"),
            (self._overrides, TEXT, "overrides", "logged as text only"),
        ):
            paths = [path for name, node in nodes.items() for path in _paths(node, name, marker)]
            shown = ", ".join(sorted(set(paths))) or "nothing"
            for path in supplied:
                if path not in paths:
                    self.problems[path] = f"is in `{what}`, but was not {was}; {was}: {shown}"
                elif paths.count(path) > 1:
                    self.problems[path] = f"is the path of several {was} values"

    def json(self, own: Json, path: str) -> Json:
        if self._moved is not None:
            own = self._moved.renamed(own)
        for marker in (REDACTED, TEXT):
            if holds(own, marker):
                own = replace_values(own, path, marker, self._supplier(marker))
        return own

    def _supplier(self, marker: str) -> Callable[[str, Json], Json]:
        supplied = self._secrets if marker == REDACTED else self._overrides

        def supply(place: str, own: Json) -> Json:
            if place in supplied:
                return {SUPPLIED: [marker, place]}
            self.problems[place] = _HOW_TO_SUPPLY if marker == REDACTED else _no_value(place, own)
            return None

        return supply

    def secret(self, path: str) -> Any:
        if path not in self._secrets:
            raise UnreadableError(_HOW_TO_SUPPLY)
        return self._secrets[path]

    def stand_in(self, own: Json, path: str) -> Any:
        marker, place = own[SUPPLIED]
        return self._secrets[place] if marker == REDACTED else self._overrides[place]

    def leaf(self, own: Json, hint: Hint, path: str) -> Any:
        if has_rule(own, hint) and hint.rule is None:
            own = self._supplied_as_json(own)
        value = read_leaf(own, hint, At(self, path))
        if has_rule(own, hint) and not holds_markers(own):
            changes = changes_of(own, hint, value, path)
            if hint.rule is None:  # only pydantic can read it
                if changes.dropped and not self._allow_unknown:
                    raise UnreadableError(_dropped(list(changes.dropped)))
                self.notes += [_left_out(name) for name in changes.dropped]
                self.notes += [_added(name) for name in changes.added]
            self.notes += [_converted(name) for name in changes.converted]
        return value

    def _supplied_as_json(self, own: Json) -> Json:
        """The JSON with supplied values as pydantic writes them, for pydantic to read."""
        if type(own) is list:
            return [*map(self._supplied_as_json, own)]
        if type(own) is not dict:
            return own
        if SUPPLIED in own:
            return to_jsonable_python(self.stand_in(own, ""))
        return {key: self._supplied_as_json(item) for key, item in own.items()}

    def build(self, cls: type, state: State, path: str) -> Any:
        shape = shape_of(cls)
        if shape is None:
            raise UnreadableError(f"{class_name(cls)} has state that cannot be set")
        values = state.fields
        gone = sorted(values.keys() - shape.fields.keys())
        new = [one for name, one in shape.fields.items() if name not in values]
        if gone and not self._allow_unknown:
            raise UnreadableError(_dropped([f"{path}.{name}" for name in gone]))
        missing = [
            one.name
            for one in new
            if one.default is None and (one.argument is not None or shape.is_model)
        ]
        if missing:
            raise UnreadableError(
                f"{class_name(cls)} has fields that were not logged and have no default: "
                f"{', '.join(missing)}"
            )
        self.notes += [_left_out(f"{path}.{name}") for name in gone]
        self.notes += [_added(f"{path}.{one.name}") for one in new]
        known = {name: values[name] for name in shape.fields if name in values}
        return self.rebuilt(rebuild(cls, replace(state, fields=known)))

    def leaves_out(self, cls: type, path: str) -> bool:
        if self._allow_unknown:
            self.notes.append(_left_out(path))
        return self._allow_unknown

    def unknown(self, cls: type, path: str) -> None:
        self.problems[path] = _dropped([path])

    def missing(self, cls: type, path: str) -> None:
        shape = shape_of(cls)
        one = None if shape is None else shape.fields.get(path)
        if one is not None and one.default is None and one.argument is not None:
            self.problems[path] = "was not logged, seems to be new, and has no default"
        else:
            self.notes.append(_added(path))


def _no_value(path: str, own: Json) -> str:
    return f"{is_text(own)}; or give its value: overrides={{{path!r}: ...}}"


def _dropped(paths: list[str]) -> str:
    shown = ", ".join(paths)
    return f"{shown} is no longer a field of its class: allow_unknown=True leaves it out"


def _left_out(path: str) -> str:
    return f"{path} is no longer a field of its class, and is left out"


def _added(path: str) -> str:
    return f"{path} is new since the run, and takes its default"


def _converted(path: str) -> str:
    return f"{path} is not read as it was logged, since its type has changed"


def _paths(node: Node, path: str, marker: str) -> list[str]:
    """The paths of all values with that marker in a param and those below it."""
    if node.is_secret:
        return [path] if marker == REDACTED else []
    found: list[str] = []
    if node.text is not None and marker in node.text:
        found += [place for place, _ in values_of(parse(node.text), path, marker)]
    for key, child in node.children.items():
        found += _paths(child, f"{path}.{key}", marker)
    return found
