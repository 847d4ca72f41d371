"""Read params that another tool logged as a config, as far as the types of its fields allow.

Other tools log `str(value)`: `None`, `True`, `1e-05`, `[1, 2]`; nested values have keys with dots
or slashes. An ambiguous text is read by the field's annotation.
"""

import ast
import json
import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Generic, TypeVar

from orbiter_mlflow.config.codec.classes import class_name
from orbiter_mlflow.config.codec.hints import Hint, hints_of
from orbiter_mlflow.config.codec.tree import Node, tree
from orbiter_mlflow.errors import ConfigError
from orbiter_mlflow.redaction.redactor import Redactor

__all__ = ["BestEffort", "read_best_effort"]

T = TypeVar("T")

_SEPARATOR = re.compile(r"[./]")
_NONE = frozenset({"None", "null"})
_CONSTANTS = {"true": True, "false": False, "nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_LONGEST = 100_000
"""Characters of a text that may be parsed as a list or the like."""
_FAILED = object()


@dataclass(frozen=True)
class BestEffort(Generic[T]):
    """A config, and which params it was read from.

    Attributes:
        config: the config.
        taken: keys of the params that were read.
        defaulted: paths of the fields without a param.
        unreadable: keys of the params that do not fit their field, which has its default.
        ignored: keys of the params of no field.
    """

    config: T
    taken: tuple[str, ...]
    defaulted: tuple[str, ...]
    unreadable: tuple[str, ...]
    ignored: tuple[str, ...]

    @property
    def summary(self) -> str:
        """Everything but the config, in one line."""
        parts = {
            "taken": self.taken,
            "left at their defaults": self.defaulted,
            "unreadable and left at their defaults": self.unreadable,
            "of no field and ignored": self.ignored,
        }
        return "; ".join(f"{name}: {', '.join(keys)}" for name, keys in parts.items() if keys)


def read_best_effort(params: Mapping[str, str], config_type: type[T]) -> BestEffort[T]:
    """The config that these params most likely were.

    Args:
        params: all params of a run.
        config_type: a dataclass.

    Raises:
        ConfigError: fields have neither a fitting param nor a default, or the class refuses the
            values.
    """
    effort = _Effort()
    root = tree((_SEPARATOR.split(key), text) for key, text in params.items())
    values = effort.fields(root, config_type, "")
    taken = {_key_path(key): key for key in params}
    if not effort.problems:
        try:
            config = config_type(**values)
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
            effort.problems["the config"] = Redactor().text(problem)
        else:
            return BestEffort(
                config,
                tuple(taken[path] for path in effort.taken),
                tuple(effort.defaulted),
                tuple(taken[path] for path in effort.unreadable),
                tuple(taken[path] for path in effort.ignored),
            )
    raise ConfigError(class_name(config_type), effort.problems)


def _key_path(key: str) -> str:
    return ".".join(_SEPARATOR.split(key))


class _Effort:
    """One best-effort reading."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.defaulted: list[str] = []
        self.unreadable: list[str] = []
        self.ignored: list[str] = []
        self.problems: dict[str, str] = {}

    def fields(self, node: Node, cls: type, path: str) -> dict[str, Any]:
        """The arguments for the constructor of a dataclass."""
        all_fields: tuple[Any, ...] = fields(cls)
        hints, values = hints_of(cls), {}
        settable = {f.name: f for f in all_fields if f.init}
        for name, child in node.children.items():
            below = f"{path}{name}"
            if name not in settable:
                self._ignore(child, below)
            elif (value := self._value(child, hints[name], below)) is not _FAILED:
                values[name] = value
        for name, f in settable.items():
            if name in values:
                continue
            if f.default is MISSING and f.default_factory is MISSING:
                logged = name in node.children
                reason = "does not fit the field's type" if logged else "is missing"
                self.problems[f"{path}{name}"] = f"{reason}, and the field has no default"
            elif name not in node.children:
                self.defaulted.append(f"{path}{name}")
        return values

    def _value(self, node: Node, hint: Hint, path: str) -> Any:
        if not node.children:
            return self._leaf(node, hint, path)
        if node.text is not None:  # both `lora` and `lora.r`: the latter say more
            self.ignored.append(path)
        if hint.dataclass is not None:
            arguments = self.fields(node, hint.dataclass, f"{path}.")
            try:
                return hint.dataclass(**arguments)
            except Exception:
                self.problems.setdefault(path, f"{class_name(hint.dataclass)} refuses its values")
                return _FAILED
        if not _fits({}, hint):
            self._ignore(Node(children=node.children), path)
            return _FAILED
        items = {
            key: self._value(child, hint.child(key), f"{path}.{key}")
            for key, child in node.children.items()
        }
        return {key: item for key, item in items.items() if item is not _FAILED}

    def _leaf(self, node: Node, hint: Hint, path: str) -> Any:
        value = _coerced(node.text or "", hint)
        (self.unreadable if value is _FAILED else self.taken).append(path)
        return value

    def _ignore(self, node: Node, path: str) -> None:
        if node.text is not None:
            self.ignored.append(path)
        for key, child in node.children.items():
            self._ignore(child, f"{path}.{key}")


def _coerced(text: str, hint: Hint) -> Any:
    """The value of a text by the field's type; `_FAILED` if it has none."""
    if text in _NONE and _fits(None, hint):
        return None
    literal = _literal(text)
    if hint.adapter is None:
        return literal
    attempts = [(literal, True), (literal, False), (text, False)]
    if type(literal) is str:
        attempts = [(text, True), (text, False)]
    elif type(literal) not in (list, tuple, dict, set):  # "3.7" is no int, but "3.0" is
        attempts = [(literal, True), (text, False), (literal, False)]
    for value, strict in attempts:
        try:
            return hint.adapter.validate_python(value, strict=strict)
        except Exception:  # noqa: S112  try the next one
            continue
    return _FAILED


def _fits(value: Any, hint: Hint) -> bool:
    if hint.adapter is None:
        return True
    try:
        hint.adapter.validate_python(value, strict=True)
    except Exception:
        return False
    return True


def _literal(text: str) -> Any:
    """The text as JSON or as Python's `repr`; the text itself if it is neither."""
    if text.lower() in _CONSTANTS:
        return _CONSTANTS[text.lower()]
    if text in _NONE:
        return None
    if len(text) > _LONGEST:
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd escapes in the text
            return ast.literal_eval(text.strip())
    except Exception:
        return text
