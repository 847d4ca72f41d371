"""One value as the text of one param: plain where it can be, with a marker where it must be.

A text is only ever chosen after it was read back and gave the identical value.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pydantic_core import ValidationError

from orbiter_mlflow.codec.classes import is_dataclass_value
from orbiter_mlflow.codec.config_error import UnreadableError
from orbiter_mlflow.codec.hints import Hint, hints_of
from orbiter_mlflow.codec.json_text import Json, canonical, parse, to_text
from orbiter_mlflow.codec.markers import (
    JSON,
    TEXT,
    Build,
    build,
    holds,
    is_marked,
    is_plain,
    mark,
    unmark,
)
from orbiter_mlflow.codec.sameness import same

__all__ = ["Leaf", "is_adapted", "read_leaf", "reads_back", "write_leaf"]


@dataclass(frozen=True, slots=True)
class Leaf:
    """A value as JSON.

    Attributes:
        json: what is to be read back.
        named: the same with each part under its name, where `json` has lost names; pydantic writes
            a NamedTuple as a list. Secrets are found by names.
    """

    json: Json
    named: Json = None


def write_leaf(value: Any, hint: Hint) -> Leaf:
    """The first form of the value that reads back; `$text`, which is never read, if none does."""
    if hint.native and is_plain(value) and not (type(value) is dict and hint.dataclass):
        return Leaf(value)
    marked = mark(value)
    if not hint.native:
        dumped = _dumped(value, hint, known=not holds(marked, TEXT))
        if dumped is not None and reads_back(dumped, hint, value):
            return Leaf(dumped.json, marked)
    for form in (Leaf(marked), Leaf({JSON: marked})):
        if reads_back(form, hint, value):
            return form
    return Leaf(marked if holds(marked, TEXT) else {TEXT: marked})


def read_leaf(json: Json, hint: Hint, make: Build = build) -> Any:
    """The value of a param's JSON.

    Args:
        json: what the param's text holds.
        hint: what is known of the value's type.
        make: makes the dataclasses in it.

    Raises:
        UnreadableError: when it has none.
    """
    if type(json) is dict and not is_marked(json) and hint.dataclass is not None:
        return make(hint.dataclass, {name: unmark(item, make) for name, item in json.items()})
    if hint.adapter is None or not is_adapted(json, hint):
        return unmark(json, make)
    try:
        return hint.adapter.validate_json(canonical(json))
    except Exception as error:
        raise UnreadableError(f"is no value of the field's type{_lacking(error)}") from None


def is_adapted(json: Json, hint: Hint) -> bool:
    """Whether pydantic reads this JSON, by the field's annotation."""
    return not (
        hint.native
        or hint.adapter is None
        or (type(json) is dict and (is_marked(json) or hint.dataclass is not None))
    )


def _lacking(error: Exception) -> str:
    """The fields that pydantic has missed; nothing of what it was given."""
    if not isinstance(error, ValidationError):
        return ""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    missed = {str(one["loc"][-1]) for one in found if one["type"] == "missing" and one["loc"]}
    return f", or lacks fields: {', '.join(sorted(missed))}" if missed else ""


def reads_back(leaf: Leaf, hint: Hint, value: Any) -> bool:
    """Whether the leaf's text gives the identical value."""
    try:
        return same(read_leaf(parse(to_text(leaf.json)), hint), value)
    except Exception:
        return False


def _dumped(value: Any, hint: Hint, *, known: bool) -> Leaf | None:
    """What pydantic makes of the value by its hint, if that is plain JSON."""
    if hint.adapter is None or not (known or not _holds_iterator(value)):
        return None
    with suppress(Exception):
        dumped = hint.adapter.dump_python(value, mode="json", warnings=False)
        if is_plain(dumped):
            return Leaf(dumped)
    return None


def _holds_iterator(value: Any) -> bool:
    """Whether to write the value might use it up."""
    return any(isinstance(item, Iterator) for item in _walk(value))


def _walk(value: Any) -> Iterator[Any]:
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        yield item
        if isinstance(item, dict):
            waiting += item.values()
        elif isinstance(item, list | tuple | set | frozenset):
            waiting += item
        elif is_dataclass_value(item):
            waiting += (getattr(item, name) for name in hints_of(type(item)))
