"""How params are read: what is made of a text, of a secret, of fields that a class lacks.

`Reading` is strict: a class has exactly the fields that were logged, and a secret is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orbiter_mlflow.codec.config_error import UnreadableError
from orbiter_mlflow.codec.hints import Hint
from orbiter_mlflow.codec.json_text import Json, canonical
from orbiter_mlflow.codec.leaves import is_adapted, read_leaf
from orbiter_mlflow.codec.markers import REDACTED, TEXT, build, holds
from orbiter_mlflow.codec.tree import Node

__all__ = ["IS_SECRET", "IS_TEXT", "Changes", "Checked", "Reading", "changes_of"]

IS_SECRET = "is a secret, which was redacted when it was logged"  # noqa: S105  says so
IS_TEXT = "was logged as text only, since it has no exact encoding"


class Reading:
    """One reading of params.

    Attributes:
        problems: what is wrong so far: path -> reason.
    """

    def __init__(self) -> None:
        self.problems: dict[str, str] = {}

    def expect(self, nodes: Mapping[str, Node]) -> None:
        """Look at the params of all fields before they are read."""

    def json(self, own: Json, hint: Hint, path: str, *, is_leaf: bool) -> Json:
        """The object or list in a param, where it is no secret as a whole.

        Raises:
            UnreadableError: it holds a secret, or what was logged as text only.
        """
        if holds(own, REDACTED):
            raise UnreadableError(IS_SECRET)
        if holds(own, TEXT):
            raise UnreadableError(IS_TEXT)
        return own

    def secret(self, path: str) -> Any:
        """What stands where a whole value was redacted.

        Raises:
            UnreadableError: nothing does.
        """
        raise UnreadableError(IS_SECRET)

    def leaf(self, own: Json, hint: Hint, path: str) -> Any:
        """The value of a param that has none below it.

        Raises:
            UnreadableError: it has no value.
        """
        return read_leaf(own, hint)

    def build(self, cls: type, values: Mapping[str, Any], path: str) -> Any:
        """The dataclass from the values of its fields.

        Raises:
            UnreadableError: when it is none, has other fields, or refuses the values.
        """
        return build(cls, values)

    def leaves_out(self, cls: type, path: str) -> bool:
        """Whether a param is not even read, which is no field of its class."""
        return False

    def unknown(self, cls: type, path: str) -> None:
        """Take note of a field of the config that is none of its class."""
        self.problems[path] = "is no field of this class"

    def missing(self, cls: type, path: str) -> None:
        """Take note of a field of the config's class that has no param."""
        self.problems[path] = "is missing"


class Checked(Reading):
    """Also sees fields that pydantic would pass over, or add, inside a list or the like."""

    def leaf(self, own: Json, hint: Hint, path: str) -> Any:
        value = super().leaf(own, hint, path)
        if is_adapted(own, hint):
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
    """How the JSON differs from what pydantic makes of the value that was read from it.

    When it was logged, the JSON was what pydantic makes of the value.
    """
    changes = Changes()
    if hint.adapter is not None:
        now = hint.adapter.dump_python(value, mode="json", warnings=False)
        changes.compare(own, now, path)
    return changes
