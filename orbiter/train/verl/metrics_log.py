"""Read verl's metrics from the file of its `file` logger, while verl writes it."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

_VALIDATION = ("val/", "val-core/", "val-aux/")
_HEAD = 256
"""Bytes of a file's beginning by which one that was started anew is recognized."""


class Entry(NamedTuple):
    """The metrics of one line.

    Attributes:
        step: of verl, from 1; a validation before the training has 0.
        train: measured on the training data, by verl's names, without the prefix `train/`.
        validation: measured on the test data, without the prefix `val/`.
    """

    step: int
    train: Mapping[str, Any]
    validation: Mapping[str, Any]


class MetricsLog:
    """A file that verl appends to, line by line, and starts anew when a job resumes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._head = b""

    def read(self) -> Iterator[Entry]:
        """The lines that are complete and were not read before."""
        try:
            with self._path.open("rb") as file:
                head = file.read(_HEAD)
                size = file.seek(0, os.SEEK_END)
                if size < self._offset or not head.startswith(self._head):
                    self._offset = 0
                file.seek(self._offset)
                fresh = file.read()
        except FileNotFoundError:
            return
        complete = fresh[: fresh.rfind(b"\n") + 1]
        self._offset += len(complete)
        self._head = head[: min(self._offset, _HEAD)]
        for line in complete.splitlines():
            entry = _parsed(line)
            if entry is not None:
                yield entry


def _parsed(line: bytes) -> Entry | None:
    try:
        found = json.loads(line)
        step, data = int(found["step"]), dict(found["data"])
    except (KeyError, OverflowError, TypeError, ValueError):  # cut short by a full disk or a kill
        return None
    train: dict[str, Any] = {}
    validation: dict[str, Any] = {}
    for key, value in data.items():
        measured = math.nan if value is None else value  # the logger writes NaN as null
        if key.startswith(_VALIDATION):
            validation[key.removeprefix("val/")] = measured
        else:
            train[key.removeprefix("train/")] = measured
    return Entry(step, train, validation)
