"""Digests of functions by their source: two trainings with different rewards can be told apart."""

import functools
import hashlib
import inspect
import textwrap
from collections.abc import Mapping
from types import CodeType
from typing import Any

_DIGITS = 16
_UNASSIGNED = type("Unassigned", (), {})()


def source_digest(function: Any) -> str:
    """Digest of a function's source; equal for equal source, wherever it is run.

    Arguments that are bound (`functools.partial`, defaults, values of an enclosing function) count;
    functions that it calls do not. Where there is no source, as in `python -c`, the bytecode
    counts, which other versions of Python compile otherwise.
    """
    bound: list[object] = []
    while isinstance(function, functools.partial):
        bound.append((function.args, sorted(function.keywords.items())))
        function = function.func
    plain = inspect.unwrap(function)
    if not inspect.isroutine(plain):  # an object with a __call__
        bound.append(sorted(getattr(plain, "__dict__", {}).items()))
        plain = type(plain)
    bound += [getattr(plain, "__defaults__", None), getattr(plain, "__kwdefaults__", None)]
    bound += [_contents(cell) for cell in getattr(plain, "__closure__", None) or ()]
    text = "\n".join([_source_of(plain), *map(_described, bound)])
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:_DIGITS]


def _contents(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return _UNASSIGNED


def _source_of(plain: Any) -> str:
    try:
        return textwrap.dedent(inspect.getsource(plain))
    except (OSError, TypeError):
        code = getattr(plain, "__code__", None)
        return f"{plain.__qualname__} {_code_text(code)}" if code else repr(plain.__qualname__)


def _code_text(code: CodeType) -> str:
    consts = [_code_text(one) if isinstance(one, CodeType) else repr(one) for one in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {consts}"


def _described(value: object) -> str:
    """A value as text, without the addresses that differ from process to process."""
    if isinstance(value, str | bytes | int | float | bool | None):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {_described(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_described, value)) + "]"
    if isinstance(value, set | frozenset):
        return "{" + ", ".join(sorted(map(_described, value))) + "}"
    return (
        f"{type(value).__module__}.{type(value).__qualname__} {getattr(value, '__qualname__', '')}"
    )
