"""The tag that names the tables of a run: MLflow shows and loads no others as tables."""

import json
import threading
from collections import deque

from orbiter_mlflow import names
from orbiter_mlflow.delivery.records import Tags
from orbiter_mlflow.delivery.run_writer import RunWriter

__all__ = ["ShownTables"]

_LATEST = 100
"""Tables of rollouts that the tag names: the latest ones."""
_EACH = 20
"""Reports of rollouts after which the tag is written; it has some kilobytes, so further ones write
it only every so often."""


class ShownTables:
    """The tables of one run. Threads may share it.

    Args:
        writer: of the run.
    """

    def __init__(self, writer: RunWriter) -> None:
        self._writer = writer
        self._evaluations: list[str] = []
        self._rollouts: deque[str] = deque(maxlen=_LATEST)
        self._reports = 0
        self._written = ""
        self._lock = threading.RLock()

    def add(self, path: str) -> None:
        """Name a table of an evaluation, for good."""
        with self._lock:
            if path not in self._evaluations:
                self._evaluations.append(path)
                self.write()

    def add_rollouts(self, path: str) -> None:
        """Name a table of rollouts, until there are many later ones."""
        with self._lock:
            self._rollouts.append(path)
            self._reports += 1
            if self._reports <= _EACH or self._reports % _EACH == 0:
                self.write()

    def write(self) -> None:
        """Write the tag if it has changed."""
        with self._lock:
            paths = [*self._evaluations]
            for path in reversed(self._rollouts):
                if len(_text([*paths, path])) > names.MAX_DATA_TAG:
                    break
                paths.append(path)
            while len(text := _text(paths)) > names.MAX_DATA_TAG:
                paths.pop()
            if text != self._written and paths:
                self._written = text
                self._writer.append(Tags({names.LOGGED_TABLES: text}))


def _text(paths: list[str]) -> str:
    return json.dumps([{"path": path, "type": "table"} for path in paths])
