"""How params are read: what is made of a text, of a secret, of fields that a class lacks.

`Reading` is strict: a class has exactly the fields that were logged, and a secret is refused.
"""

from collections.abc import Mapping
from typing import Any

from orbiter_mlflow.codec.config_error import UnreadableError
from orbiter_mlflow.codec.hints import Hint
from orbiter_mlflow.codec.json_text import Json, canonical
from orbiter_mlflow.codec.leaves import is_adapted, read_leaf
from orbiter_mlflow.codec.markers import REDACTED, TEXT, build, holds
from orbiter_mlflow.codec.tree import Node

__all__ = ["IS_SECRET", "IS_TEXT", "Checked", "Reading", "changed_fields"]

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
            gone, new = changed_fields(own, hint, value, path)
            if gone or new:
                wrong = ", ".join([*gone, *new])
                raise UnreadableError(f"a class in it has missing or unknown fields: {wrong}")
        return value


def changed_fields(own: Json, hint: Hint, value: Any, path: str) -> tuple[list[str], list[str]]:
    """What pydantic has passed over in the JSON, and what it has added, by path.

    When it was logged, the JSON was what pydantic makes of the value.
    """
    gone: dict[str, None] = {}
    new: dict[str, None] = {}
    if type(own) in (list, dict) and hint.adapter is not None:
        now = hint.adapter.dump_python(value, mode="json", warnings=False)
        _compare(own, now, path, gone, new)
    return list(gone), list(new)


def _compare(
    logged: Json, now: Json, path: str, gone: dict[str, None], new: dict[str, None]
) -> None:
    if type(logged) is dict and type(now) is dict:
        gone.update((f"{path}.{key}", None) for key in logged if key not in now)
        new.update((f"{path}.{key}", None) for key in now if key not in logged)
        for key in logged.keys() & now.keys():
            _compare(logged[key], now[key], f"{path}.{key}", gone, new)
    elif type(logged) is list and type(now) is list and logged != now:
        # A set has another order in each process.
        pairs = zip(sorted(logged, key=canonical), sorted(now, key=canonical), strict=False)
        for one, other in pairs:
            _compare(one, other, f"{path}[]", gone, new)
