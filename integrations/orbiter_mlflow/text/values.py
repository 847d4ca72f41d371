"""Read values of any type as numbers, or as text that fits into a tag.

Nothing here imports numpy or torch, reads more of a value than can be shown, or raises an exception
of a user's object.
"""

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from math import inf, nan
from numbers import Real
from typing import Any

from orbiter_mlflow import names
from orbiter_mlflow.text.shortening import cut_note

_MAX_DEPTH = 64
_MAX_NODES = names.MAX_TAG_VALUE
"""Elements of a container to read: more than a tag can show, so that the text is marked as cut."""

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def read(value: Any) -> float | str | Mapping[Any, Any]:
    """Convert `value` to a number, to a mapping that is still to be flattened, or else to text."""
    try:
        if isinstance(value, Real | Decimal):
            return to_float(value)
        if isinstance(value, str):
            return tag_value(str.__str__(value))
        if isinstance(value, Mapping):
            return value
        if _is_scalar_array(value):
            value = value.item()
            if isinstance(value, Real | Decimal):
                return to_float(value)
        return text_of(value)
    except Exception as error:
        return placeholder(value, error)


def _is_scalar_array(value: Any) -> bool:
    """Whether this is a scalar of numpy, torch or jax. A masked one has no value, so it is not."""
    return (
        getattr(value, "shape", None) == ()
        and callable(getattr(value, "item", None))
        and not bool(getattr(value, "mask", False))
    )


def to_float(value: Any) -> float:
    """`float(value)`; infinite where that overflows."""
    try:
        return float(value)
    except OverflowError:  # an int or a fraction past 1.8e308
        return inf if value > 0 else -inf
    except ValueError:
        if isinstance(value, Decimal):  # a signalling NaN
            return nan
        raise


def bounded_int(value: Any) -> int:
    """Convert a step to what MLflow stores: a plain `int`, clamped to signed 64 bits.

    Accepts everything that `int()` converts without a loss: bools, ints, whole floats and decimals,
    scalars of numpy and torch, text of an int.

    Raises:
        TypeError: it is not a number.
        ValueError: the number is not whole (`0.5`, NaN, infinity), or it is other text.
    """
    number = value
    try:
        if getattr(value, "shape", ()) != ():
            raise TypeError("more than one number")
        if _is_scalar_array(value):
            number = value.item()
        whole = int(number)
        rounded = not isinstance(number, str | bytes) and bool(whole != number)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"a step must be a whole number, not {read(value)}") from error
    except Exception as error:
        raise TypeError(f"a step must be an int, not {type_name(value)}") from error
    if rounded:
        raise ValueError(f"a step must be a whole number, not {read(value)}")
    return max(-(2**63), min(2**63 - 1, whole))


# -- texts ---------------------------------------------------------------------------------------


def tag_value(text: str) -> str:
    """Convert `text` to the value of a tag that every MLflow store accepts.

    NUL and lone surrogates become `\\x00` and `\\ud800`. A text longer than `names.MAX_TAG_VALUE`
    characters is cut, and ends with a note of its length.
    """
    return _storable(text, str(len(text)))


def _storable(text: str, length: str) -> str:
    shown = _UNSTORABLE.sub(_visible, text[: names.MAX_TAG_VALUE + 1])
    if len(shown) <= names.MAX_TAG_VALUE:
        return shown
    note = cut_note(length)
    return shown[: names.MAX_TAG_VALUE - len(note)] + note


def _visible(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\u{code:04x}" if code else "\\x00"


def text_of(value: object) -> str:
    """Compact JSON if `value` is JSON, else its `repr`.

    It reads no more of a built-in container than a tag can show.
    """
    try:
        trimmer = _Trimmer()
        part = trimmer.trim(value)
        try:
            text = json.dumps(part, ensure_ascii=False, separators=(",", ":"))
        except (TypeError, ValueError):
            text = str.__str__(repr(part))
    except Exception as error:
        return placeholder(value, error)
    return _storable(text, f"more than {len(text)}" if trimmer.cut else str(len(text)))


class _Trimmer:
    """Copies nested built-in containers up to the size that a tag can show."""

    def __init__(self) -> None:
        self.cut = False
        self._left = _MAX_NODES

    def trim(self, value: Any, depth: int = 0) -> Any:
        kind = type(value)
        self._left -= 1
        if kind in (str, bytes) and len(value) > names.MAX_TAG_VALUE:
            self.cut = True
            return value[: names.MAX_TAG_VALUE]
        if kind not in (list, tuple, set, frozenset, dict):
            return value
        if depth == _MAX_DEPTH:
            self.cut = True
            return "..."
        copied: list[Any] = []
        for item in value.items() if kind is dict else value:
            if self._left <= 0:
                self.cut = True
                break
            if kind is dict:
                copied.append((item[0], self.trim(item[1], depth + 1)))
            else:
                copied.append(self.trim(item, depth + 1))
        return kind(copied)


def type_name(value: object) -> str:
    """The name of the class of `value`: `dict`, `numpy.ndarray`."""
    kind = type(value)
    name = kind.__qualname__
    return name if kind.__module__ == "builtins" else f"{kind.__module__}.{name}"


def placeholder(value: object, error: Exception) -> str:
    """The text for a value that could not be read."""
    return f"<{type_name(value)}: unreadable, {type(error).__name__}>"


def message_of(error: BaseException) -> str:
    """The message of an exception, whatever its `__str__` does."""
    try:
        return str(error)
    except Exception:
        return f"(the message of this {type(error).__name__} could not be read)"
