"""Run a program of `programs/`, all of which log with MLflow's own API."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from paths import PYTHONPATH
from programs.pauses import DOWN, FOLDER, UP
from waiting import eventually


@dataclass
class Program:
    """A program that runs in a folder of its own."""

    name: str
    folder: Path
    process: "subprocess.Popen[bytes]"

    def reach(self, name: str) -> None:
        """Wait until it pauses; fail if it ends before."""
        self._wait(self.folder / f"{name}.reached")

    def go_on(self, name: str) -> None:
        (self.folder / f"{name}.go").touch()

    def finish(self, within: float = 240) -> None:
        """Go through the pauses that are left, and wait for a clean end."""
        self.go_on(DOWN)
        self.go_on(UP)
        assert self.process.wait(within) == 0, self.log

    @property
    def log(self) -> str:
        """All that it printed."""
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")

    def _wait(self, file: Path) -> None:
        eventually(lambda: file.exists() or self.process.poll() is not None, within=240)
        assert file.exists(), self.log


@contextlib.contextmanager
def started(name: str, uri: str, folder: Path) -> Iterator[Program]:
    """Start a program with a tracking URI; it is killed at the end if it still runs."""
    folder.mkdir()
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": uri,
        # No process of its own that loads each logged model to see what it imports.
        "MLFLOW_REQUIREMENTS_INFERENCE_TIMEOUT": "0",
        "OMP_NUM_THREADS": "1",  # sums in another order differ in the last digit
        "PYTHONPATH": PYTHONPATH,
        FOLDER: str(folder),
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", f"programs.{name}"],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        yield Program(name, folder, process)
    finally:
        process.kill()
        process.wait()
