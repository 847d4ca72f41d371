"""An oracle for the codec: compare two values by their pickled state.

`carried` gives the state that pickle would keep, as nested tuples that can be compared.
"""

import copyreg
import functools
import pathlib
import types
from typing import Any

__all__ = ["carried"]

_ATOMS = (int, float, bool, type(None), complex, bytes, str, type(...))


def carried(value: Any, ignore: frozenset[str] = frozenset()) -> Any:
    """The state of a value of any type, in order, without running its `__eq__`."""
    return _carried(value, ignore, ())


def _carried(value: Any, ignore: frozenset[str], above: tuple[int, ...]) -> Any:
    kind = type(value)
    if kind in _ATOMS:
        return (kind.__name__, repr(value))
    if id(value) in above:
        return ("cycle", above.index(id(value)))
    above = (*above, id(value))
    if kind in (list, tuple):
        return (kind.__name__, *(_carried(item, ignore, above) for item in value))
    if kind in (set, frozenset):
        return (kind.__name__, *sorted((_carried(x, ignore, above) for x in value), key=repr))
    if kind is dict:
        pairs = [(k, v) for k, v in value.items() if not (isinstance(k, str) and k in ignore)]
        return ("dict", *_pairs(pairs, ignore, above))
    if isinstance(value, type | types.FunctionType | types.BuiltinFunctionType):
        return ("named", value.__module__, value.__qualname__)
    if isinstance(value, pathlib.PurePath):  # newer Pythons keep the original text
        return (kind.__qualname__, str(value))
    if isinstance(value, functools.partial):
        parts = (value.func, value.args, value.keywords)
        return ("partial", *(_carried(part, ignore, above) for part in parts))
    if type(value).__module__.startswith("omegaconf"):
        return _omega(value, ignore, above)
    try:
        reduced = value.__reduce_ex__(2)
    except Exception:
        return (kind.__name__, repr(value))
    if isinstance(reduced, str):
        return ("global", reduced)
    _, args, *rest = reduced
    state, items, pairs = (*rest, None, None, None)[:3]
    name = f"{kind.__module__}.{kind.__qualname__}"
    is_new = reduced[0] is copyreg.__newobj__  # type: ignore[attr-defined]  # typeshed lacks it
    own = (args[1:] if is_new else args, state)
    return (
        name,
        *(_object_state(part, ignore, above) for part in own),
        *(_carried(item, ignore, above) for item in items or ()),
        *_pairs(pairs or (), ignore, above),
    )


def _pairs(pairs: Any, ignore: frozenset[str], above: tuple[int, ...]) -> list[Any]:
    return [(_carried(key, ignore, above), _carried(item, ignore, above)) for key, item in pairs]


def _object_state(state: Any, ignore: frozenset[str], above: tuple[int, ...]) -> Any:
    """The attributes, sorted: unlike the keys of a dict, they have no order."""
    if type(state) is tuple:
        return tuple(_object_state(part, ignore, above) for part in state)
    if type(state) is not dict:
        return _carried(state, ignore, above)
    kept = ((str(key), item) for key, item in state.items() if key not in ignore)
    return sorted((key, _carried(item, ignore, above)) for key, item in kept)


def _omega(value: Any, ignore: frozenset[str], above: tuple[int, ...]) -> Any:
    meta = value._metadata
    inner = value.__dict__.get("_content", value.__dict__.get("_val"))
    return (
        type(value).__name__,
        repr((meta.ref_type, meta.object_type)),
        # The flags in force: a part of a config inherits those of the whole.
        repr([value._get_flag(flag) for flag in ("struct", "readonly", "allow_objects")]),
        repr(getattr(meta, "element_type", None)),
        _carried(inner, ignore, above),
    )
