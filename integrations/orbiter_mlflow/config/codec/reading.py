"""How params are read: what is made of a text, of a secret, of fields that a class lacks.

`Reading` is strict: a class has exactly the fields that were logged, and a secret is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orbiter_mlflow.config.codec.classes import class_name
from orbiter_mlflow.config.codec.hints import Hint
from orbiter_mlflow.config.codec.json_text import Json, canonical
from orbiter_mlflow.config.codec.leaf import has_rule, read_leaf, validated
from orbiter_mlflow.config.codec.markers import holds_markers
from orbiter_mlflow.config.codec.objects import State, shape_of
from orbiter_mlflow.config.codec.order import Order
from orbiter_mlflow.config.codec.rebuild import Rebuilt, rebuild
from orbiter_mlflow.config.codec.text_only import TEXT, WHY, advice
from orbiter_mlflow.config.codec.tree import Node
from orbiter_mlflow.errors import UnreadableError

__all__ = ["IS_SECRET", "Changes", "Checked", "Reading", "changes_of", "is_text"]

IS_SECRET = "is a secret, which was redacted when it was logged"  # noqa: S105  says so


def is_text(own: Json) -> str:
    """Why a value that was logged as text cannot be read."""
    return f"was logged as text only: {advice(own.get(WHY))}"


class Reading:
    """One reading of params.

    Attributes:
        problems: what is wrong so far: path -> reason.
        order: of the keys of dicts, by path.
        unconstructed: classes of which an instance was made without the constructor, since that
            fails for what was logged.
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
        """What stands where a whole value was redacted.

        Raises:
            UnreadableError: nothing does.
        """
        raise UnreadableError(IS_SECRET)

    def stand_in(self, own: Json, path: str) -> Any:
        """What stands for JSON that does not hold the value itself.

        Raises:
            UnreadableError: nothing does.
        """
        raise UnreadableError(is_text(own) if TEXT in own else IS_SECRET)

    def validated(self, json: Json, hint: Hint, path: str) -> Any:
        """What the annotation makes of JSON that no rule of ours reads.

        Raises:
            UnreadableError: it has no value.
        """
        return validated(json, hint, At(self, path))

    def leaf(self, own: Json, hint: Hint, path: str) -> Any:
        """The value of a param that has none below it.

        Raises:
            UnreadableError: it has no value.
        """
        return read_leaf(own, hint, At(self, path))

    def build(self, cls: type, state: State, path: str) -> Any:
        """The object that carries this.

        Raises:
            UnreadableError: when it is none, has other fields, or refuses the values.
        """
        shape = shape_of(cls)
        known = shape.fields.keys() if shape is not None else state.fields.keys()
        if known != state.fields.keys():
            wrong = ", ".join(sorted(known ^ state.fields.keys()))
            raise UnreadableError(f"{class_name(cls)} has missing or unknown fields: {wrong}")
        return self.rebuilt(rebuild(cls, state))

    @property
    def of_construction(self) -> list[str]:
        """What the user should know of how objects were made, a sentence or none."""
        if not self.unconstructed:
            return []
        which = ", ".join(self.unconstructed)
        why = "made without their constructors, which refuse these values, with all fields set"
        return [f"{why}: {which}"]

    def rebuilt(self, found: Rebuilt) -> Any:
        """The object, of which it is noted how it came about."""
        if not found.constructed:
            self.unconstructed[class_name(type(found.value))] = None
        return found.value

    def leaves_out(self, cls: type, path: str) -> bool:
        """Whether a param is not even read, which is no field of its class."""
        return False

    def unknown(self, cls: type, path: str) -> None:
        """Take note of a field of the config that is none of its class."""
        self.problems[path] = "is no field of this class"

    def missing(self, cls: type, path: str) -> None:
        """Take note of a field of the config's class that has no param."""
        self.problems[path] = "is missing"


@dataclass(frozen=True, slots=True)
class At:
    """A reading at one path: what makes the objects in the JSON of one param."""

    reading: Reading
    path: str

    def build(self, cls: type, state: State) -> Any:
        return self.reading.build(cls, state, self.path)

    def validated(self, json: Json, hint: Hint) -> Any:
        return self.reading.validated(json, hint, self.path)

    def stand_in(self, own: Json) -> Any:
        return self.reading.stand_in(own, self.path)


class Checked(Reading):
    """Also sees fields that pydantic would pass over, or add, inside a list or the like."""

    def leaf(self, own: Json, hint: Hint, path: str) -> Any:
        value = super().leaf(own, hint, path)
        if has_rule(own, hint) and hint.rule is None and not holds_markers(own):
            changes = changes_of(own, hint, value, path)
            if changes.gone or changes.new:
                wrong = ", ".join([*changes.gone, *changes.new])
                raise UnreadableError(f"a class in it has missing or unknown fields: {wrong}")
        return value


@dataclass(frozen=True, slots=True)
class Changes:
    """What pydantic makes of JSON that is otherwise than when it was logged, by path.

    Attributes:
        gone: fields that it has passed over.
        new: fields that it has added.
        otherwise: values that it has made others of, since their type is another one now.
    """

    gone: dict[str, None] = field(default_factory=dict)
    new: dict[str, None] = field(default_factory=dict)
    otherwise: dict[str, None] = field(default_factory=dict)

    def compare(self, logged: Json, now: Json, path: str) -> None:
        """Take note of all in which the two differ."""
        if type(logged) is dict and type(now) is dict:
            self.gone.update((f"{path}.{key}", None) for key in logged if key not in now)
            self.new.update((f"{path}.{key}", None) for key in now if key not in logged)
            for key in logged.keys() & now.keys():
                self.compare(logged[key], now[key], f"{path}.{key}")
        elif type(logged) is list and type(now) is list:
            before, after = [*map(_unordered, logged)], [*map(_unordered, now)]
            if len(before) != len(after):
                self.otherwise[path] = None
            alike = {*before} & {*after}
            changed = (x for x, text in zip(logged, before, strict=True) if text not in alike)
            others = (x for x, text in zip(now, after, strict=True) if text not in alike)
            for one, other in zip(changed, others, strict=False):
                self.compare(one, other, f"{path}[]")
        elif canonical(logged) != canonical(now):
            self.otherwise[path] = None


def _unordered(value: Json) -> str:
    """A text that tells JSON apart but for the order in lists: that of a set is never the same."""
    if type(value) is list:
        return f"[{','.join(sorted(map(_unordered, value)))}]"
    if type(value) is dict:
        return canonical({key: _unordered(item) for key, item in value.items()})
    return canonical(value)


def changes_of(own: Json, hint: Hint, value: Any, path: str) -> Changes:
    """How the JSON differs from what pydantic makes of the value that was read from it."""
    changes = Changes()
    if hint.adapter is not None:
        try:
            now = hint.adapter.dump_python(value, mode="json", warnings=False)
        except Exception:  # a part of the value is of no type that pydantic knows
            return changes
        changes.compare(own, now, path)
    return changes
