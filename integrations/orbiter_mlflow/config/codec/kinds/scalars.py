"""Single values of the standard library: numbers, bytes, times, paths, enums, patterns.

`str`, `int` and `float` have a marker for the few values that plain JSON would not give back.
"""

import base64
import pathlib
import re
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import partial
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from orbiter_mlflow.config.codec.classes import class_name, find_class
from orbiter_mlflow.config.codec.kinds.kind import Json, Kind, NotWholeError
from orbiter_mlflow.config.codec.markers import SURROGATE_PAIR
from orbiter_mlflow.errors import UnreadableError

__all__ = ["ENUM", "SCALARS"]

_PATHS = ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")

Show = Callable[[Json], str]


def _bytes_of(payload: Json) -> bytes:
    return base64.b64decode(payload, validate=True)


def _hidden(payload: Json) -> str:
    return _bytes_of(payload).decode("latin-1")


def _enum_payload(value: Enum) -> list[Any]:
    kind = type(value)
    known = value.name in kind.__members__  # a combination of flags has no name
    return [class_name(kind), value.name if known else value.value]


def _read_enum(payload: list[Any]) -> Enum:
    name, member = payload
    kind = find_class(name)
    if not issubclass(kind, Enum):
        raise TypeError("not an enum")
    try:
        return kind[member] if isinstance(member, str) else kind(member)
    except (KeyError, ValueError):
        raise UnreadableError(f"needs {name}, which has no {member!r}") from None


def _show_enum(payload: Json, show: Show) -> str:
    kind, member = payload
    name = kind.replace(":", ".")
    return f"{name}.{member}" if type(member) is str else f"{name}({member!r})"


def _write_iso(value: datetime | time) -> Any:
    zone = value.tzinfo
    if not value.fold and (zone is None or _is_plain_offset(zone)):
        return value.isoformat()
    return [value.replace(tzinfo=None, fold=0).isoformat(), value.fold, zone]


def _read_iso(cls: type[datetime] | type[time], payload: Any) -> datetime | time:
    if isinstance(payload, str):
        return cls.fromisoformat(payload)
    text, fold, zone = payload
    return cls.fromisoformat(text).replace(fold=fold, tzinfo=zone)


def _is_plain_offset(zone: Any) -> bool:
    """Whether the offset in an ISO text says everything about it; a name would be lost."""
    return type(zone) is timezone and repr(zone) == repr(timezone(zone.utcoffset(None)))


def _write_timezone(value: timezone) -> list[Any]:
    # The second argument of `timezone`, if there was one.
    return list(value.__getinitargs__())  # type: ignore[attr-defined]  # typeshed lacks it


def _write_zone(value: ZoneInfo) -> str:
    if value.key is None:
        raise NotWholeError("object")
    return value.key


def _read_path(payload: list[Any]) -> pathlib.PurePath:
    name, text = payload
    if name not in _PATHS:
        raise ValueError("not a path class")
    path: pathlib.PurePath = getattr(pathlib, name)(text)
    return path


def _bare(payload: Json, show: Show) -> str:
    return str(payload)


_PATH = Kind(
    "$path",
    lambda value: [type(value).__name__, str(value)],
    _read_path,
    lambda payload, show: f"{payload[0]}({payload[1]!r})",
    plain=True,
)

ENUM = Kind("$enum", _enum_payload, _read_enum, _show_enum, lambda payload: [payload[0]])
"""All enums; each is its own class."""

SCALARS: dict[type, Kind] = {
    str: Kind(
        "$str",
        SURROGATE_PAIR.split,
        "".join,
        lambda halves, show: repr("".join(halves)),
        hidden="".join,
        plain=True,
    ),
    float: Kind("$float", repr, float, _bare, plain=True),
    int: Kind("$int", hex, lambda text: int(text, 16), _bare, plain=True),
    complex: Kind(
        "$complex",
        lambda value: [value.real, value.imag],
        lambda parts: complex(*parts),
        plain=True,
    ),
    bytes: Kind(
        "$bytes",
        lambda value: base64.b64encode(value).decode(),
        _bytes_of,
        lambda payload, show: repr(_bytes_of(payload)),
        hidden=_hidden,
        plain=True,
    ),
    bytearray: Kind(
        "$bytearray",
        lambda value: base64.b64encode(value).decode(),
        lambda payload: bytearray(_bytes_of(payload)),
        lambda payload, show: f"bytearray({_bytes_of(payload)!r})",
        hidden=_hidden,
        plain=True,
    ),
    Decimal: Kind("$decimal", str, Decimal, plain=True),
    Fraction: Kind(
        "$fraction",
        lambda value: [value.numerator, value.denominator],
        lambda parts: Fraction(*parts),
    ),
    UUID: Kind("$uuid", str, UUID, plain=True),
    date: Kind("$date", date.isoformat, date.fromisoformat, plain=True),
    datetime: Kind("$datetime", _write_iso, partial(_read_iso, datetime), plain=True),
    time: Kind("$time", _write_iso, partial(_read_iso, time), plain=True),
    timedelta: Kind(
        "$timedelta",
        lambda value: [value.days, value.seconds, value.microseconds],
        lambda parts: timedelta(*parts),
        plain=True,
    ),
    timezone: Kind("$timezone", _write_timezone, lambda arguments: timezone(*arguments)),
    ZoneInfo: Kind("$zone", _write_zone, ZoneInfo),
    range: Kind(
        "$range", lambda value: [value.start, value.stop, value.step], lambda parts: range(*parts)
    ),
    re.Pattern: Kind(
        "$pattern",
        lambda value: [value.pattern, value.flags],
        lambda parts: re.compile(*parts),
        plain=True,
    ),
    type(...): Kind("$ellipsis", lambda value: None, lambda payload: ..., lambda *_: "..."),
    **{getattr(pathlib, name): _PATH for name in _PATHS},
}
