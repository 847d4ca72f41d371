"""Find the checkpoints of verl while it writes them."""

from contextlib import suppress
from pathlib import Path

_LATEST = "latest_checkpointed_iteration.txt"
"""The file in which verl says, once a checkpoint is complete, which step it holds."""


class CheckpointsLog:
    """The folder of checkpoints of a training; those that are there at first are not of it.

    Args:
        folder: may not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known = self._latest()

    def read(self) -> tuple[Path, int] | None:
        """The latest checkpoint and its step, if it is complete and was not read before."""
        step = self._latest()
        if step is None or step == self._known:
            return None
        self._known = step
        checkpoint = self._folder / f"global_step_{step}"
        return (checkpoint, step) if checkpoint.is_dir() else None

    def _latest(self) -> int | None:
        with suppress(OSError, ValueError):  # not there yet, or being written
            return int((self._folder / _LATEST).read_text())
        return None
