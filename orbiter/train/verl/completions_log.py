"""Read completions from the files that verl writes them to, at a validation or each step."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orbiter.train._log_throttle import quiet_logger
from orbiter.train.rollouts import Rollout

_logger = quiet_logger(__name__)

_Version = tuple[int, int]
"""By which a file that has grown or was written again is recognized: its time and size."""


class CompletionsLog:
    """A folder to which verl adds files `<step>.jsonl`, one after the other.

    Args:
        folder: need not exist; the files that it has already are those of an earlier job.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._earlier = {file: _version(file) for file in folder.glob("*.jsonl")}
        self._offsets: dict[Path, int] = {}

    def read(self, *, reached: int, ended: bool) -> Iterator[tuple[int, list[Rollout]]]:
        """The step and the rollouts of each file that verl has left for a later step.

        verl writes a file line by line, on a thread of its own. One that grows after it was read
        gives what was added.

        Args:
            reached: the last step with metrics.
            ended: whether verl has ended, and so has written all files.
        """
        found = sorted(
            (int(file.stem), file)
            for file in self._folder.glob("*.jsonl")
            if file.stem.isdecimal() and _version(file) not in (None, self._earlier.get(file))
        )
        if not found:
            return
        reached = max(reached, found[-1][0])
        for step, file in found:
            if ended or step < reached:
                rollouts = self._added(file, ended)
                if rollouts:
                    yield step, rollouts

    def _added(self, file: Path, ended: bool) -> list[Rollout]:
        """The rollouts of the lines that are complete and were not read before."""
        offset = self._offsets.get(file, 0)
        try:
            with file.open("rb") as opened:
                opened.seek(offset)
                fresh = opened.read()
        except FileNotFoundError:
            return []
        if not ended:
            fresh = fresh[: fresh.rfind(b"\n") + 1]
        self._offsets[file] = offset + len(fresh)
        lines = [line for line in fresh.split(b"\n") if line]
        parsed = [_parsed(line) for line in lines]
        rollouts = [_rollout(line) for line in parsed if line is not None]
        if len(rollouts) < len(lines):
            _logger.warning(
                "%d of %d lines of %s could not be read",
                len(lines) - len(rollouts),
                len(lines),
                file,
            )
        return rollouts


def _version(file: Path) -> _Version | None:
    try:
        stat = file.stat()
    except FileNotFoundError:
        return None
    return stat.st_mtime_ns, stat.st_size


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:  # cut short by a kill, maybe inside a character
        return None
    return found if isinstance(found, dict) else None


def _rollout(line: dict[str, Any]) -> Rollout:
    """verl's line: `input`, `output`, `score`, `gts` for the ground truth, and others."""
    prompt, completion = line.pop("input", ""), line.pop("output", "")
    score = _number(line.pop("score", None))
    line.pop("step", None)
    more = {"ground_truth" if name == "gts" else name: value for name, value in line.items()}
    return Rollout(
        prompt=str(prompt),
        completion=str(completion),
        rewards={} if score is None else {"score": score},
        extra={name: value for name, value in more.items() if value is not None},
    )


def _number(value: Any) -> float | None:
    if not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return None if math.isnan(number) else number
