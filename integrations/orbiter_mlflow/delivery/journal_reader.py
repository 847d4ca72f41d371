"""Read journals: entries from an offset on, the head, and how far a journal goes.

A line that is damaged is reported, never skipped in silence; a last line without its newline is
left until it is complete.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from orbiter_mlflow.delivery.records import Close, Head, Record, decode, kind_of
from orbiter_mlflow.errors import DamagedLineError

_BLOCK = 1 << 22
"""Bytes read at a time: some 10,000 records, so that memory stays flat in a journal of any size."""
_TAIL = 1 << 16
"""Bytes at the end of a journal in which its last lines are looked for."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A record as it was read.

    Attributes:
        record: None where the line is damaged.
        end: offset in bytes behind the line.
        damage: why the line could not be decoded; empty where it could.
    """

    record: Record | None
    end: int
    damage: str = ""


def read_entries(
    path: Path, offset: int = 0, *, kind: type[Record] | None = None, holding: bytes = b""
) -> Iterator[Entry]:
    """Read the entries of a journal.

    Args:
        path: the journal.
        offset: where to begin, in bytes.
        kind: the only class of records to return; other lines are not decoded.
        holding: what a line must hold to be decoded.

    Raises:
        UnknownFormatError: the head is of another format version.
        OSError: the file cannot be read.
    """
    # As `encode` writes it.
    ending = b"" if kind is None else b'"kind":"%s"}}' % kind_of(kind).encode()
    with path.open("rb") as file:
        file.seek(offset)
        rest = b""
        while block := file.read(_BLOCK):
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                offset += len(line) + 1
                if not line or not line.endswith(ending) or holding not in line:
                    continue
                try:
                    yield Entry(decode(line), offset)
                except DamagedLineError as error:
                    yield Entry(None, offset, str(error))


def read_head(path: Path) -> Head:
    """Read the first record of a journal.

    Raises:
        ValueError: the file does not begin with a head.
        UnknownFormatError: the head is of another format version.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        line = file.readline()
    with suppress(DamagedLineError):
        if line.endswith(b"\n") and isinstance(record := decode(line[:-1]), Head):
            return record
    raise ValueError(f"{path} is no journal: its first line is not a head")


def whole_size(path: Path) -> int:
    """Bytes up to the end of the last complete line: all that can ever be delivered.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - _TAIL)
            file.seek(start)
            if (newline := file.read(end - start).rfind(b"\n")) >= 0:
                return start + newline + 1
            end = start
    return 0


def is_closed(path: Path) -> bool:
    """Whether the last complete line of a journal is a `Close`.

    Raises:
        OSError: the file cannot be read.
    """
    end = whole_size(path)
    with path.open("rb") as file:
        file.seek(max(0, end - 1024))
        *_, line, _ = b"\n", *file.read(min(end, 1024)).split(b"\n")
    with suppress(ValueError):
        return isinstance(decode(line), Close)
    return False


def last_lines(path: Path) -> list[bytes]:
    """The last lines of a journal, some hundred records; the first one may be cut.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        return file.read().split(b"\n")
