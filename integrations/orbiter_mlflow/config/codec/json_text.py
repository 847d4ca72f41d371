"""JSON values and their one canonical text; a string that is not JSON itself stands bare.

The text is compact, and escapes only control characters and lone surrogates. Writing and reading
share one strict predicate, `is_json`: it decides whether a string needs quotes.
"""

import json
import re
from typing import Any, NoReturn, TypeAlias

from orbiter_mlflow.errors import UnreadableError

__all__ = ["Json", "canonical", "is_json", "parse", "to_text"]

Json: TypeAlias = Any
"""None, bool, int, finite float, str, list of these, dict of str to these; no subclasses."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_STARTS_JSON = frozenset('{["-0123456789tfn')
_WORDS = {"true": True, "false": False, "null": None}
_WHITESPACE = " \t\n\r"


class _NotJsonError(ValueError):
    pass


def _refuse(constant: str) -> NoReturn:
    raise _NotJsonError(constant)


_ENCODER = json.JSONEncoder(
    ensure_ascii=False,
    check_circular=False,
    allow_nan=False,
    separators=(",", ":"),
)
_SORTING = json.JSONEncoder(
    ensure_ascii=False,
    check_circular=False,
    allow_nan=False,
    sort_keys=True,
    separators=(",", ":"),
)
_DECODER = json.JSONDecoder(parse_constant=_refuse)
# `int` refuses thousands of digits, by a limit that a process may set; the grammar has no limit.
_GRAMMAR = json.JSONDecoder(parse_constant=_refuse, parse_int=len)


def canonical(value: Json) -> str:
    """The one JSON text of a value, whatever the order of its keys."""
    return _escaped(_SORTING.encode(value))


def _escaped(text: str) -> str:
    if text.isascii():
        return text
    return _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def is_json(text: str) -> bool:
    """Whether the text is JSON by the grammar: not NaN and Infinity; padding is allowed.

    Text that nests too deep to be parsed counts as JSON, so that such a string is quoted.
    """
    if not _may_be_json(text):
        return False
    try:
        _GRAMMAR.decode(text)
    except (json.JSONDecodeError, _NotJsonError):
        return False
    except RecursionError:
        return True
    return True


def to_text(value: Json) -> str:
    """The text of a JSON value, keys in their order; `parse` reads it back."""
    if type(value) is int or type(value) is float:
        return repr(value)  # the same text as the encoder's, without its setup
    if type(value) is str and not _needs_quotes(value):
        text: str = value
        return text
    return _escaped(_ENCODER.encode(value))


def _needs_quotes(text: str) -> bool:
    return not text or "\0" in text or is_json(text) or _SURROGATE.search(text) is not None


def parse(text: str) -> Json:
    """The JSON value of a text; a text that is not JSON is the string itself.

    Raises:
        UnreadableError: JSON that nests too deep, or with an integer too long.
    """
    if not _may_be_json(text):
        return text
    try:
        return _decoded(text)
    except (json.JSONDecodeError, _NotJsonError):
        return text
    except RecursionError:
        raise UnreadableError("nests too deep") from None
    except ValueError:
        if is_json(text):
            raise UnreadableError("holds an integer of too many digits") from None
        return text


def _decoded(text: str) -> Json:
    # `decode` skips white space by two patterns, which takes longer than parsing a number.
    if text[0] not in _WHITESPACE:
        value, end = _DECODER.raw_decode(text)
        if end == len(text):
            return value
    return _DECODER.decode(text)


def _may_be_json(text: str) -> bool:
    """False only if the text is certainly not JSON; `json` would raise a slow exception."""
    start = text[:1]
    if start in _WHITESPACE:  # or the text is empty
        text = text.strip(_WHITESPACE)
        start = text[:1]
    if start not in _STARTS_JSON:
        return False
    return start not in ("t", "f", "n") or text.strip(_WHITESPACE) in _WORDS
