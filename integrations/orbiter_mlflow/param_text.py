"""The value of a param as Python would show it, from its text alone: no class is looked up.

Only for showing: what differs as a param differs here too, but what this gives is not read back.
"""

import base64
from collections.abc import Callable

from orbiter_mlflow.codec.config_error import UnreadableError
from orbiter_mlflow.codec.json_text import Json, parse
from orbiter_mlflow.codec.markers import REDACTED, TEXT, holds

__all__ = ["is_redacted", "shown"]


def shown(text: str) -> str:
    """`{"$tuple":[1,2]}` as `(1, 2)`, `grpo` as `'grpo'`; what is no param of ours, as a string.

    Args:
        text: a param as `encode_config` gives it, its pieces joined.
    """
    try:
        return _shown(parse(text))
    except (UnreadableError, RecursionError):
        return text


def is_redacted(text: str) -> bool:
    """Whether a secret was taken out of the value: two such values may differ, or be the same."""
    try:
        return REDACTED in text and holds(parse(text), REDACTED)
    except (UnreadableError, RecursionError):
        return True


def _shown(value: Json) -> str:
    if type(value) is list:
        return f"[{', '.join(map(_shown, value))}]"
    if type(value) is not dict:
        return repr(value)
    name = next((key for key in value if key[:1] == "$"), None)
    try:
        if name in ("$type", "$namedtuple"):
            fields = (f"{key}={_shown(item)}" for key, item in value.items() if key != name)
            return f"{_dotted(value[name])}({', '.join(fields)})"
        if name is not None and len(value) == 1:
            return _MARKED[name](value[name]) if name in _MARKED else _call(name, value[name])
    except (TypeError, ValueError, LookupError, AttributeError):
        pass  # no marker of ours, whatever it looks like
    return f"{{{', '.join(f'{key!r}: {_shown(item)}' for key, item in value.items())}}}"


def _call(name: str, payload: Json) -> str:
    """`Decimal('1.5')`: the marker's name as a function of what it holds."""
    return f"{name[1:]}({_arguments(payload)})"


def _arguments(payload: Json) -> str:
    return ", ".join(map(_shown, payload)) if type(payload) is list else _shown(payload)


def _dotted(name: str) -> str:
    return name.replace(":", ".")


def _tuple(items: list[Json]) -> str:
    return f"({_shown(items[0])},)" if len(items) == 1 else f"({_arguments(items)})"


def _set(items: list[Json]) -> str:
    return f"{{{_arguments(items)}}}" if items else "set()"


def _dict(pairs: list[list[Json]]) -> str:
    return f"{{{', '.join(f'{_shown(key)}: {_shown(item)}' for key, item in pairs)}}}"


def _enum(payload: list[Json]) -> str:
    kind, member = payload
    return f"{_dotted(kind)}.{member}" if type(member) is str else f"{_dotted(kind)}({member!r})"


def _redacted(visible: str | None) -> str:
    return "redacted" if visible is None else f"redacted: {visible!r}"


_MARKED: dict[str, Callable[[Json], str]] = {
    REDACTED: _redacted,
    TEXT: lambda inner: f"<{inner if type(inner) is str else _shown(inner)}>",
    "$leaf": lambda inner: _shown(inner),
    "$json": lambda inner: _shown(inner),
    "$float": lambda text: str(text),
    "$int": lambda text: str(text),
    "$str": lambda parts: repr("".join(parts)),
    "$tuple": _tuple,
    "$set": _set,
    "$frozenset": lambda items: f"frozenset({_set(items) if items else ''})",
    "$dict": _dict,
    "$enum": _enum,
    "$bytes": lambda text: repr(base64.b64decode(text, validate=True)),
    "$bytearray": lambda text: f"bytearray({base64.b64decode(text, validate=True)!r})",
    "$path": lambda payload: f"{payload[0]}({payload[1]!r})",
    "$numpy": lambda payload: f"numpy.dtype({payload[0]!r}).type({_shown(payload[1])})",
}
