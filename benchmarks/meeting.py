"""Phases that several processes begin together: a process arrives, and waits to be let through.

Both are files in a folder, so that nothing but the folder has to be passed on.
"""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

_POLL = 0.02
_PATIENCE = 1_800.0


class Meeting:
    """A place where `count` processes wait for each other before each phase.

    Args:
        folder: for the files.
        count: of the processes.
    """

    def __init__(self, folder: Path | str, count: int) -> None:
        self._folder = Path(folder)
        self._count = count

    def arrive(self, phase: str, index: int) -> None:
        """Say that process `index` has done all that comes before a phase."""
        (self._folder / f"{phase}.{index}").touch()

    def wait(self, phase: str, index: int) -> None:
        """Arrive, and wait until the phase begins."""
        self.arrive(phase, index)
        deadline = time.monotonic() + _PATIENCE
        while not self._begun(phase) and time.monotonic() < deadline:
            time.sleep(_POLL)

    async def wait_async(self, phase: str) -> None:
        """Wait until the phase begins."""
        deadline = time.monotonic() + _PATIENCE
        while not self._begun(phase) and time.monotonic() < deadline:  # noqa: ASYNC110  a file
            await asyncio.sleep(_POLL)

    def all_arrived(self, phase: str, failed: Callable[[], bool]) -> None:
        """Wait until all processes have arrived.

        Raises:
            RuntimeError: a process failed meanwhile.
        """
        while len(list(self._folder.glob(f"{phase}.*"))) < self._count:
            if failed():
                raise RuntimeError(f"a process failed before {phase}")
            time.sleep(_POLL)

    def begin(self, phase: str) -> None:
        """Let all processes through."""
        (self._folder / phase).touch()

    def _begun(self, phase: str) -> bool:
        return (self._folder / phase).exists()
