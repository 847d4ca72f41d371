"""One value as the JSON of one param: plain if possible, with a marker if necessary.

A marker may be left out where the field's annotation tells the type: such "typed" JSON is plain,
and is read by the annotation. It is chosen only after reading it back gave the identical value,
since types alone do not tell: `datetime`, `Decimal`, `complex` and patterns have values that
pydantic reads back changed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orbiter_mlflow.config.codec.equality import same
from orbiter_mlflow.config.codec.hints import ANY, Hint, Rule, hints_of, is_scalar_value
from orbiter_mlflow.config.codec.json_text import Json, canonical, parse, to_text
from orbiter_mlflow.config.codec.markers import JSON, TEXT, is_marked, is_marker, is_plain
from orbiter_mlflow.config.codec.marking import Maker, mark, unmark
from orbiter_mlflow.config.codec.objects import State, shape_of, state_of
from orbiter_mlflow.config.codec.unencodable import as_text
from orbiter_mlflow.errors import UnreadableError

__all__ = ["Leaf", "has_rule", "read_leaf", "validated", "write_leaf"]

_COLLECTIONS: dict[str, type] = {"list": list, "set": set, "frozenset": frozenset, "tuple": tuple}


@dataclass(frozen=True, slots=True)
class Leaf:
    """A value as JSON.

    Attributes:
        json: the JSON to be read back.
        named: the same with all names, if `json` may lack some, as that of a NamedTuple written
            as a list does. Secrets are found by name.
    """

    json: Json
    named: Json = None


def write_leaf(value: Any, hint: Hint, maker: Maker) -> Leaf:
    """The shortest form of the value that reads back identical; `$text` if none does.

    `maker` makes the objects for the comparison.
    """
    if hint.native:
        if is_plain(value) and not (type(value) is dict and hint.dataclass):
            return Leaf(value)
    else:
        try:
            leaf = Leaf(_typed(value, hint), mark(value))
        except _NotTypedError:
            pass
        else:
            if _reads_back(leaf, hint, value, maker):
                return leaf
    marked = mark(value)
    for form in (Leaf(marked), Leaf({JSON: marked})):
        if _reads_back(form, hint, value, maker):
            return form
    return Leaf(marked if type(marked) is dict and TEXT in marked else as_text(marked, "changed"))


def _reads_back(leaf: Leaf, hint: Hint, value: Any, maker: Maker) -> bool:
    """Whether the leaf's text gives the identical value, except where it is kept as text."""
    try:
        return same(read_leaf(parse(to_text(leaf.json)), hint, maker), value)
    except Exception:
        return False


def read_leaf(json: Json, hint: Hint, maker: Maker) -> Any:
    """The value of a param's JSON.

    Args:
        json: the JSON in the param's text.
        hint: the hint of the field.
        maker: makes the objects in it.

    Raises:
        UnreadableError: the JSON has no value.
    """
    if type(json) is dict and hint.dataclass is not None and not is_marked(json):
        # One param of an object whose other fields have their own: annotations do not apply.
        fields = {name: unmark(item, maker) for name, item in json.items()}
        return maker.build(hint.dataclass, State(fields))
    return _read(json, hint, maker)


def _read(json: Json, hint: Hint, maker: Maker) -> Any:
    if hint.native or is_marked(json):
        return unmark(json, maker)
    if json is None or type(json) in hint.atoms:
        return json if hint.scalar is None else _scalar(json, hint, maker)
    if hint.rule is not None:
        return _read_typed(json, hint, hint.rule, maker)
    return maker.validated(json, hint)


def has_rule(json: Json, hint: Hint) -> bool:
    """Whether the annotation of the field reads this JSON."""
    return not (hint.native or is_marked(json) or hint.adapter is None)


def validated(json: Json, hint: Hint, maker: Maker) -> Any:
    """The value that pydantic reads; the plain value if pydantic cannot handle the annotation.

    Except for scalars, which run no code of a user's class, only version 1 wrote such JSON.
    """
    if hint.adapter is None:
        return unmark(json, maker)
    try:
        return hint.adapter.validate_json(canonical(json))
    except Exception:
        raise UnreadableError("is not a value of the field's type") from None


# -- typed JSON ----------------------------------------------------------------------------------


class _NotTypedError(Exception):
    """This annotation allows no plain JSON for the value."""


def _typed(value: Any, hint: Hint) -> Json:
    if hint.native:
        if not is_plain(value) or (type(value) is dict and hint.dataclass):
            raise _NotTypedError
        return value
    rule = hint.rule
    if value is None or (type(value) in hint.atoms and hint.scalar is None and is_plain(value)):
        return value
    if rule is None:
        raise _NotTypedError
    if rule.form == "scalar":
        return _dumped(value, hint)
    if rule.form == "dataclass":
        return _typed_fields(value, rule)
    if rule.form == "dict":
        return _typed_dict(value, hint, rule)
    expected: Any = rule.cls or _COLLECTIONS[rule.form]
    if type(value) is not expected:
        raise _NotTypedError
    # A NamedTuple may define its own `__iter__`.
    items = list(tuple.__iter__(value) if issubclass(expected, tuple) else value)
    if rule.parts is not None:
        if len(items) != len(rule.parts):
            raise _NotTypedError
        return [_typed(item, part) for item, part in zip(items, rule.parts, strict=True)]
    written = [_typed(item, rule.inner or ANY) for item in items]
    return sorted(written, key=canonical) if rule.form in ("set", "frozenset") else written


def _dumped(value: Any, hint: Hint) -> Json:
    if hint.scalar is None or not is_scalar_value(value):
        raise _NotTypedError
    try:
        written = hint.scalar.dump_python(value, mode="json", warnings=False)
    except Exception:
        raise _NotTypedError from None
    if not is_plain(written) or type(written) in (dict, list):
        raise _NotTypedError
    return written


def _typed_fields(value: Any, rule: Rule) -> Json:
    shape = shape_of(rule.cls)
    if type(value) is not rule.cls or shape is None:
        raise _NotTypedError
    state, hints = state_of(value, shape), hints_of(rule.cls)
    if state.more or any(map(is_marker, state.fields)):
        raise _NotTypedError
    return {name: _typed(item, hints[name]) for name, item in state.fields.items()}


def _typed_dict(value: Any, hint: Hint, rule: Rule) -> Json:
    if type(value) is not dict:
        raise _NotTypedError
    written = {}
    for key, item in value.items():
        name = _dumped(key, rule.keys) if rule.keys is not None else key
        if type(name) in (int, float):
            name = str(name)
        if type(name) is not str or is_marker(name) or not is_plain(name) or name in written:
            raise _NotTypedError
        written[name] = _typed(item, hint.child(name))
    return written


def _read_typed(json: Json, hint: Hint, rule: Rule, maker: Maker) -> Any:
    if rule.form == "scalar":
        return _scalar(json, hint, maker)
    if rule.form == "dataclass" and type(json) is dict:
        hints = hints_of(rule.cls)
        found = {name: _read(x, hints.get(name, ANY), maker) for name, x in json.items()}
        return maker.build(rule.cls, State(found))
    if rule.form == "dict" and type(json) is dict:
        return _read_dict(json, hint, rule, maker)
    if rule.form in (*_COLLECTIONS, "namedtuple") and type(json) is list:
        if rule.parts is None:
            made: Any = _COLLECTIONS[rule.form]
            return made(_read(item, rule.inner or ANY, maker) for item in json)
        if len(json) == len(rule.parts):
            pairs = zip(json, rule.parts, strict=True)
            return tuple.__new__(rule.cls or tuple, [_read(x, h, maker) for x, h in pairs])
    return maker.validated(json, hint)


def _read_dict(json: Mapping[str, Json], hint: Hint, rule: Rule, maker: Maker) -> dict[Any, Any]:
    made = {}
    for name, item in json.items():
        key = name if rule.keys is None else _key(name, rule.keys)
        made[key] = _read(item, hint.child(name), maker)
    return made


def _key(name: str, hint: Hint) -> Any:
    if hint.adapter is None:
        return name
    try:
        return hint.adapter.validate_python(name)
    except Exception:
        raise UnreadableError("has a key that is not of the field's type") from None


def _scalar(json: Json, hint: Hint, maker: Maker) -> Any:
    return json if hint.scalar is None else validated(json, hint, maker)
