"""Read completions from the files that verl writes them to, at a validation or each step."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orbiter.train.rollouts import Rollout


class CompletionsLog:
    """A folder to which verl adds files `<step>.jsonl`.

    Args:
        folder: need not exist; the files that it has already are those of an earlier job.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[Path, tuple[int, int]] = {}
        self._done = {file: _version(file) for file in folder.glob("*.jsonl")}

    def read(self, *, ended: bool) -> Iterator[tuple[int, list[Rollout]]]:
        """The step and the rollouts of each file that has become complete.

        Args:
            ended: whether verl has ended; before that, a file is taken for complete when it has not
                grown since the last call.
        """
        for file in self._folder.glob("*.jsonl"):
            version = _version(file)
            if not file.stem.isdecimal() or version == self._done.get(file):
                continue
            _, size = version
            if ended or (size and version == self._seen.get(file)):
                self._done[file] = version
                yield int(file.stem), [_rollout(line) for line in _objects(file)]
            self._seen[file] = version


def _version(file: Path) -> tuple[int, int]:
    """By which a file that has grown or was written again is recognized: its time and size."""
    stat = file.stat()
    return stat.st_mtime_ns, stat.st_size


def _objects(file: Path) -> Iterator[dict[str, Any]]:
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            found = json.loads(line)
        except ValueError:  # cut short by a kill
            continue
        if isinstance(found, dict):
            yield found


def _rollout(line: dict[str, Any]) -> Rollout:
    """verl's line: `input`, `output`, `score`, `gts` for the ground truth, and others."""
    prompt, completion = line.pop("input", ""), line.pop("output", "")
    score = line.pop("score", None)
    line.pop("step", None)
    more = {"ground_truth" if name == "gts" else name: value for name, value in line.items()}
    return Rollout(
        prompt=str(prompt),
        completion=str(completion),
        rewards={} if score is None or math.isnan(score) else {"score": float(score)},
        extra={name: value for name, value in more.items() if value is not None},
    )
