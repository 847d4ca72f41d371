"""Show a param as Python would show its value, from its text alone: no class is looked up.

Params that differ are shown differently; the result is not read back.
"""

from collections.abc import Callable

from orbiter_mlflow.config.codec.json_text import Json, parse
from orbiter_mlflow.config.codec.kinds import KINDS
from orbiter_mlflow.config.codec.markers import (
    DICT,
    ITEMS,
    JSON,
    LEAF,
    NAMEDTUPLE,
    REDACTED,
    TEXT,
    TYPE,
    holds,
    marker_of,
)
from orbiter_mlflow.errors import UnreadableError

__all__ = ["as_python", "is_redacted"]


def as_python(text: str) -> str:
    """`{"$tuple":[1,2]}` as `(1, 2)`, `grpo` as `'grpo'`; a param that is not ours, as a string.

    Args:
        text: a param as `encode_config` gives it, with its pieces joined.
    """
    try:
        return _shown(parse(text))
    except (UnreadableError, RecursionError):
        return text


def is_redacted(text: str) -> bool:
    """Whether a secret was redacted in the value: two such values may differ or be the same."""
    try:
        return REDACTED in text and holds(parse(text), REDACTED)
    except (UnreadableError, RecursionError):
        return True


def _shown(value: Json) -> str:
    if type(value) is list:
        return f"[{', '.join(map(_shown, value))}]"
    if type(value) is not dict:
        return repr(value)
    name = marker_of(value)
    try:
        if TEXT in value:
            inner = value[TEXT]
            return f"<{inner if type(inner) is str else _shown(inner)}>"
        if name in (TYPE, NAMEDTUPLE):
            fields = (f"{key}={_shown(item)}" for key, item in value.items() if key != name)
            return f"{_dotted(value[name])}({', '.join(fields)})"
        if name is not None and name in KINDS and value.keys() <= {name, ITEMS}:
            return _kind(value, name)
        if name is not None and len(value) == 1:
            return _MARKED[name](value[name]) if name in _MARKED else _call(name, value[name])
    except (TypeError, ValueError, LookupError, AttributeError):
        pass  # it only looks like a marker
    return f"{{{', '.join(f'{key!r}: {_shown(item)}' for key, item in value.items())}}}"


def _kind(value: dict[str, Json], name: str) -> str:
    kind, payload = KINDS[name], value[name]
    if kind.items is None:
        return kind.show(payload, _shown) if kind.show else _call(name, payload)
    inner = _shown(value.get(ITEMS, {}))
    if kind.show is not None:
        return f"{kind.show(payload, _shown)}({inner})"
    head = "" if payload is None else f"{_shown(payload)}, "
    return f"{name[1:]}({head}{inner})"


def _call(name: str, payload: Json) -> str:
    """`decimal('1.5')`: the marker's name as a function of its payload."""
    return f"{name[1:]}({_arguments(payload)})"


def _arguments(payload: Json) -> str:
    return ", ".join(map(_shown, payload)) if type(payload) is list else _shown(payload)


def _dotted(name: str) -> str:
    return name.replace(":", ".")


def _dict(pairs: list[list[Json]]) -> str:
    return f"{{{', '.join(f'{_shown(key)}: {_shown(item)}' for key, item in pairs)}}}"


def _redacted(visible: str | None) -> str:
    return "redacted" if visible is None else f"redacted: {visible!r}"


_MARKED: dict[str, Callable[[Json], str]] = {
    REDACTED: _redacted,
    LEAF: _shown,
    JSON: _shown,
    DICT: _dict,
}
