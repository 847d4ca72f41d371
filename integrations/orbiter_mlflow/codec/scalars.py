"""Single values of the types JSON lacks: the name of each type's marker, what it holds, and back.

A payload may itself need markers, as the time zone of a datetime does. A reader is given the
payload with those resolved; it raises on one that it did not write.
"""

import base64
import pathlib
import sys
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from orbiter_mlflow.codec.classes import class_name, find_class
from orbiter_mlflow.codec.config_error import UnreadableError

__all__ = ["READERS", "write_scalar"]

_PATHS = ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
_NUMPY_NUMBERS = "?bBhHiIlLqQefdFD"
"""Type codes of the numpy scalars that `item()` turns into the equal Python number."""


def write_scalar(value: Any) -> tuple[str, Any] | None:
    """Name and payload of the marker, or None where the type has no marker."""
    write = _WRITERS.get(type(value))
    if write is not None:
        return write(value)
    if issubclass(type(value), Enum):
        return "$enum", _enum_payload(value)
    numpy = sys.modules.get("numpy")
    if numpy is not None and issubclass(type(value), numpy.generic):
        return _numpy_marker(value)
    return None


def _enum_payload(value: Enum) -> list[Any]:
    kind = type(value)
    known = value.name in kind.__members__  # a combination of flags has no name of its own
    return [class_name(kind), value.name if known else value.value]


def _read_enum(payload: list[Any]) -> Enum:
    name, member = payload
    kind = find_class(name)
    if not issubclass(kind, Enum):
        raise TypeError("names no enum")
    try:
        return kind[member] if isinstance(member, str) else kind(member)
    except (KeyError, ValueError):
        raise UnreadableError(f"needs {name}, which has no {member!r}") from None


def _numpy_marker(value: Any) -> tuple[str, Any] | None:
    code = value.dtype.char
    if code in _NUMPY_NUMBERS:
        return "$numpy", [value.dtype.str, value.item()]
    if code in "mM":  # `item()` is a datetime, or an int, depending on the unit
        return "$numpy", [value.dtype.str, int(value.astype("int64"))]
    if code in "US":
        return "$numpy", [value.dtype.str, value.item()]
    return None


def _read_numpy(payload: list[Any]) -> Any:
    import numpy as np

    kind, item = payload
    dtype = np.dtype(kind)
    return np.int64(item).view(dtype) if dtype.kind in "mM" else dtype.type(item)


def _write_datetime(value: datetime) -> tuple[str, Any]:
    zone = value.tzinfo
    if not value.fold and (zone is None or _is_plain_offset(zone)):
        return "$datetime", value.isoformat()
    return "$datetime", [value.replace(tzinfo=None, fold=0).isoformat(), value.fold, zone]


def _read_datetime(payload: Any) -> datetime:
    if isinstance(payload, str):
        return datetime.fromisoformat(payload)
    text, fold, zone = payload
    return datetime.fromisoformat(text).replace(fold=fold, tzinfo=zone)


def _write_time(value: time) -> tuple[str, Any]:
    zone = value.tzinfo
    if not value.fold and (zone is None or _is_plain_offset(zone)):
        return "$time", value.isoformat()
    return "$time", [value.replace(tzinfo=None, fold=0).isoformat(), value.fold, zone]


def _read_time(payload: Any) -> time:
    if isinstance(payload, str):
        return time.fromisoformat(payload)
    text, fold, zone = payload
    return time.fromisoformat(text).replace(fold=fold, tzinfo=zone)


def _is_plain_offset(zone: Any) -> bool:
    """Whether an ISO text's offset tells all of it; it cannot tell a name."""
    return type(zone) is timezone and repr(zone) == repr(timezone(zone.utcoffset(None)))


def _write_timezone(value: timezone) -> tuple[str, Any]:
    # The second argument of `timezone`, if there was one.
    named = value.__getinitargs__()  # type: ignore[attr-defined]  # typeshed lacks it
    return "$timezone", list(named)


def _write_zone(value: ZoneInfo) -> tuple[str, Any] | None:
    return None if value.key is None else ("$zone", value.key)


def _write_path(value: pathlib.PurePath) -> tuple[str, Any]:
    return "$path", [type(value).__name__, str(value)]


def _read_path(payload: list[Any]) -> pathlib.PurePath:
    name, text = payload
    if name not in _PATHS:
        raise ValueError("names no path class")
    path: pathlib.PurePath = getattr(pathlib, name)(text)
    return path


_WRITERS: dict[type, Callable[[Any], tuple[str, Any] | None]] = {
    float: lambda value: ("$float", repr(value)),
    int: lambda value: ("$int", hex(value)),
    complex: lambda value: ("$complex", [value.real, value.imag]),
    bytes: lambda value: ("$bytes", base64.b64encode(value).decode()),
    bytearray: lambda value: ("$bytearray", base64.b64encode(value).decode()),
    Decimal: lambda value: ("$decimal", str(value)),
    UUID: lambda value: ("$uuid", str(value)),
    date: lambda value: ("$date", value.isoformat()),
    datetime: _write_datetime,
    time: _write_time,
    timedelta: lambda value: ("$timedelta", [value.days, value.seconds, value.microseconds]),
    timezone: _write_timezone,
    ZoneInfo: _write_zone,
    **{getattr(pathlib, name): _write_path for name in _PATHS},
}

READERS: dict[str, Callable[[Any], Any]] = {
    "$float": float,
    "$int": lambda text: int(text, 16),
    "$complex": lambda parts: complex(*parts),
    "$bytes": lambda text: base64.b64decode(text, validate=True),
    "$bytearray": lambda text: bytearray(base64.b64decode(text, validate=True)),
    "$decimal": Decimal,
    "$uuid": UUID,
    "$date": date.fromisoformat,
    "$datetime": _read_datetime,
    "$time": _read_time,
    "$timedelta": lambda parts: timedelta(*parts),
    "$timezone": lambda arguments: timezone(*arguments),
    "$zone": ZoneInfo,
    "$path": _read_path,
    "$enum": _read_enum,
    "$numpy": _read_numpy,
}
