"""Manifests: which files a checkpoint in the store has, and which of several is the last or best.

A manifest is written once all files of its checkpoint are in the store, each under its SHA-256. Its
keys are part of the format that `docs/how-to/checkpoints.md` describes.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import PureWindowsPath
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter
from pydantic_core import to_json

Keep = Literal["last", "best", "all"]


@dataclass(frozen=True, slots=True)
class StoredFile:
    """The content of a file in the store."""

    size: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True, slots=True)
class Manifest:
    """A checkpoint in the store.

    Attributes:
        of: the report that it comes from.
        title: the name of its folder.
        step: the step that it holds.
        time: of the report, in milliseconds since the epoch.
        keep: which checkpoints the training kept.
        metric: key of the metric by which the best one is told; None without one.
        higher: whether more of that is better.
        value: of the metric at the step; None where it is not known.
        files: by path in the folder, parted by `/`.
    """

    of: str
    title: str
    step: int
    time: int
    keep: Keep
    metric: str | None
    higher: bool
    value: float | None
    files: Mapping[str, StoredFile]
    format: Literal[1] = 1

    @property
    def contents(self) -> set[str]:
        """The SHA-256 of its files."""
        return {file.sha256 for file in self.files.values()}

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())

    def rivals(self, other: "Manifest") -> bool:
        """Whether only one of the two is kept."""
        mine, others = ((one.keep, one.metric, one.higher) for one in (self, other))
        return self.keep != "all" and mine == others


def encoded(manifest: Manifest) -> bytes:
    """The manifest as JSON."""
    return to_json(manifest, indent=2)


def decoded(content: bytes) -> Manifest:
    """The manifest from JSON.

    Raises:
        ValueError: it is none, or has names that lead out of a folder.
    """
    found = _adapter().validate_json(content)
    for name in found.files:
        if not is_inside(name):
            raise ValueError(f"the name of a file leads out of the checkpoint: {name!r}")
    if "/" in found.title or not is_inside(found.title):
        raise ValueError(f"no name of a folder: {found.title!r}")
    return found


def is_inside(name: str) -> bool:
    """Whether a path, parted by `/`, stays in the folder that it is joined to, on any system."""
    parts = name.split("/")
    plain = all(part not in ("", ".", "..") and "\0" not in part for part in parts)
    windows = PureWindowsPath(name)
    return plain and not windows.drive and ".." not in windows.parts and not windows.root


def newest(manifests: Iterable[Manifest]) -> Manifest | None:
    """The one that was reported last."""
    return max(manifests, key=lambda one: one.time, default=None)


def best(manifests: Iterable[Manifest], higher: bool) -> Manifest | None:
    """The one with the best value; of several the one that was reported first."""
    known = [one for one in manifests if is_value(one.value)]
    return min(known, key=lambda one: (_rank(one.value, higher), one.time), default=None)


def is_better(value: float | None, than: float | None, higher: bool) -> bool:
    """Whether a value is better than another one; any is better than none, and NaN is none."""
    if not is_value(value):
        return False
    return not is_value(than) or _rank(value, higher) < _rank(than, higher)


def is_value(value: float | None) -> bool:
    """Whether it can be compared."""
    return value is not None and not math.isnan(value)


def _rank(value: float | None, higher: bool) -> float:
    assert value is not None  # noqa: S101  asked of values that can be compared
    return -value if higher else value


@cache
def _adapter() -> TypeAdapter[Manifest]:
    return TypeAdapter(Manifest)
