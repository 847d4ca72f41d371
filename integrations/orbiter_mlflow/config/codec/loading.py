"""Params read as `load_config` does: what is missing comes from the user, classes may have changed.

The user gives secrets, and values for what was kept as text, by path.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from pydantic_core import to_jsonable_python

from orbiter_mlflow.config.codec.classes import class_name
from orbiter_mlflow.config.codec.hints import Hint
from orbiter_mlflow.config.codec.json_text import Json, canonical, parse
from orbiter_mlflow.config.codec.kinds.registry import KINDS
from orbiter_mlflow.config.codec.leaf import has_rule, read_leaf
from orbiter_mlflow.config.codec.markers import DICT, GIVEN, REDACTED, holds, holds_markers
from orbiter_mlflow.config.codec.moved import Moved
from orbiter_mlflow.config.codec.objects import State, shape_of
from orbiter_mlflow.config.codec.reading import At, Reading, changes_of, is_text
from orbiter_mlflow.config.codec.rebuild import rebuild
from orbiter_mlflow.config.codec.text_only import TEXT
from orbiter_mlflow.config.codec.tree import Node
from orbiter_mlflow.errors import UnreadableError

__all__ = ["Loading", "values_of"]

_WANTED = "is a secret, which was redacted when it was logged: give it in `secrets`, by this path"


class Loading(Reading):
    """One reading of the params of a run.

    Args:
        secrets: path -> value, for what was redacted. `clients[1].api_key` is in the second item of
            the list `clients`; `by_rank[0]` stands under the key 0, where keys are no strings.
        overrides: likewise for what was kept as text.
        allow_unknown: leave out what is no field of its class any more.
        moved: where classes are now.

    Attributes:
        notes: what the user should know of the config, a sentence each.
    """

    def __init__(
        self,
        secrets: Mapping[str, Any],
        overrides: Mapping[str, Any],
        *,
        allow_unknown: bool = False,
        moved: Moved | None = None,
    ) -> None:
        super().__init__()
        self.notes: list[str] = []
        self._secrets = secrets
        self._overrides = overrides
        self._allow_unknown = allow_unknown
        self._moved = moved

    def expect(self, nodes: Mapping[str, Node]) -> None:
        """Refuse values that nothing asks for, and those whose path means several."""
        for given, marker, what, was in (
            (self._secrets, REDACTED, "secrets", "redacted"),
            (self._overrides, TEXT, "overrides", "logged as text only"),
        ):
            paths = [path for name, node in nodes.items() for path in _paths(node, name, marker)]
            shown = ", ".join(sorted(set(paths))) or "nothing"
            for path in given:
                if path not in paths:
                    self.problems[path] = f"is in `{what}`, but was not {was}; {was}: {shown}"
                elif paths.count(path) > 1:
                    self.problems[path] = f"stands for several {was} values, which cannot be told"

    def json(self, own: Json, path: str) -> Json:
        if self._moved is not None:
            own = self._moved.renamed(own)
        for marker in (REDACTED, TEXT):
            if holds(own, marker):
                own = _replaced(own, path, marker, self._stands_for(marker))
        return own

    def _stands_for(self, marker: str) -> Callable[[str, Json], Json]:
        given = self._secrets if marker == REDACTED else self._overrides

        def supply(place: str, own: Json) -> Json:
            if place in given:
                return {GIVEN: [marker, place]}
            self.problems[place] = _WANTED if marker == REDACTED else _no_value(place, own)
            return None

        return supply

    def secret(self, path: str) -> Any:
        if path not in self._secrets:
            raise UnreadableError(_WANTED)
        return self._secrets[path]

    def stand_in(self, own: Json, path: str) -> Any:
        marker, place = own[GIVEN]
        return self._secrets[place] if marker == REDACTED else self._overrides[place]

    def leaf(self, own: Json, hint: Hint, path: str) -> Any:
        if has_rule(own, hint) and hint.rule is None:
            own = self._given_as_json(own)
        value = read_leaf(own, hint, At(self, path))
        if has_rule(own, hint) and not holds_markers(own):
            changes = changes_of(own, hint, value, path)
            if hint.rule is None:  # pydantic alone has read it
                if changes.gone and not self._allow_unknown:
                    raise UnreadableError(_dropped(list(changes.gone)))
                self.notes += [_left_out(name) for name in changes.gone]
                self.notes += [_added(name) for name in changes.new]
            self.notes += [_read_otherwise(name) for name in changes.otherwise]
        return value

    def _given_as_json(self, own: Json) -> Json:
        """The JSON with what was given as pydantic writes it, for pydantic to read it."""
        if type(own) is list:
            return [*map(self._given_as_json, own)]
        if type(own) is not dict:
            return own
        if GIVEN in own:
            return to_jsonable_python(self.stand_in(own, ""))
        return {key: self._given_as_json(item) for key, item in own.items()}

    def build(self, cls: type, state: State, path: str) -> Any:
        shape = shape_of(cls)
        if shape is None:
            raise UnreadableError(f"{class_name(cls)} is no dataclass of plain instances")
        values = state.fields
        gone = sorted(values.keys() - shape.fields.keys())
        new = [one for name, one in shape.fields.items() if name not in values]
        if gone and not self._allow_unknown:
            raise UnreadableError(_dropped([f"{path}.{name}" for name in gone]))
        wanting = [
            one.name
            for one in new
            if one.default is None and (one.argument is not None or shape.is_model)
        ]
        if wanting:
            raise UnreadableError(
                f"{class_name(cls)} has fields that were not logged, and that have no default: "
                f"{', '.join(wanting)}"
            )
        self.notes += [_left_out(f"{path}.{name}") for name in gone]
        self.notes += [_added(f"{path}.{one.name}") for one in new]
        kept = {name: values[name] for name in shape.fields if name in values}
        return self.rebuilt(rebuild(cls, replace(state, fields=kept)))

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
            self.problems[path] = "was not logged, as it seems to be new, and has no default"
        else:
            self.notes.append(_added(path))


def _no_value(path: str, own: Json) -> str:
    return f"{is_text(own)}; or give its value: overrides={{{path!r}: ...}}"


def _dropped(paths: list[str]) -> str:
    shown = ", ".join(paths)
    return f"{shown} is no field of its class any more: allow_unknown=True leaves it out"


def _left_out(path: str) -> str:
    return f"{path} is no field of its class any more, and is left out"


def _added(path: str) -> str:
    return f"{path} is new since the run, and takes its default"


def _read_otherwise(path: str) -> str:
    return f"{path} is not read as it was logged, since it has another type now"


def _paths(node: Node, path: str, marker: str) -> list[str]:
    """The path of each value of that marker in a param and those below it."""
    if node.is_secret:
        return [path] if marker == REDACTED else []
    found: list[str] = []
    if node.text is not None and marker in node.text:
        found += [place for place, _ in values_of(parse(node.text), path, marker)]
    for key, child in node.children.items():
        found += _paths(child, f"{path}.{key}", marker)
    return found


def values_of(own: Json, path: str, marker: str) -> list[tuple[str, Json]]:
    """Path and JSON of each value of that marker in the JSON of a param."""
    found: list[tuple[str, Json]] = []
    _replaced(own, path, marker, lambda place, value: found.append((place, value)))
    return found


def _replaced(value: Json, path: str, marker: str, supply: Callable[[str, Json], Json]) -> Json:
    """The JSON with what `supply` gives for each value of that marker in it, by its path."""
    if type(value) is list:
        return [_replaced(x, f"{path}[{i}]", marker, supply) for i, x in enumerate(value)]
    if type(value) is not dict:
        return value
    if TEXT in value or REDACTED in value:
        return supply(path, value) if marker in value else value
    if any(key in KINDS and holds(payload, marker) for key, payload in value.items()):
        return supply(path, value)  # one value, whatever it is written as
    if DICT in value:
        if any(holds(key, marker) for key, _ in value[DICT]):
            return supply(path, value)
        pairs = ((key, item, _under(path, key)) for key, item in value[DICT])
        return {DICT: [[k, _replaced(x, at, marker, supply)] for k, x, at in pairs]}
    return {
        key: _replaced(item, path if key[:1] == "$" else f"{path}.{key}", marker, supply)
        for key, item in value.items()
    }


def _under(path: str, key: Json) -> str:
    return f"{path}.{key}" if type(key) is str else f"{path}[{canonical(key)}]"
