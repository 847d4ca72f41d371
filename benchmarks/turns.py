"""Loops in processes that take turns: one runs for some seconds while the others are stopped.

The speed of a shared machine drifts by more than a small cost within the time that a whole training
takes. Turns of some seconds compare loops under the same conditions.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.processes import delivery_of, end_delivery, environment, memory_mb

_START = 120.0
"""Seconds allowed until a loop has reached its steady state."""


class Loop:
    """A loop in a process of its own, with its delivery process if it has one. It starts stopped.

    Args:
        function: of a module; loops until it is killed, and appends `time.monotonic_ns()` as a line
            to the file that is its first argument, once a step.
        folder: its working folder; made here.
        args: the other arguments, passed as JSON.
        warm_up: steps that it makes first.

    Raises:
        RuntimeError: it ended; the message has its output.
    """

    def __init__(
        self, function: Callable[..., None], folder: Path, *args: Any, warm_up: int
    ) -> None:
        folder.mkdir()
        self._folder = folder
        self._times, self._output = folder / "times", folder / "output"
        self._times.touch()
        where = f"{function.__module__}:{function.__qualname__}"
        arguments = json.dumps([str(self._times), *args])
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.child", where, os.devnull, arguments],
                cwd=folder,
                env=environment(folder),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        deadline = time.monotonic() + _START
        while len(self._steps()) <= warm_up:
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._process.kill()
                raise RuntimeError(f"{where}: {self._output.read_text(errors='replace')[-4000:]}")
            time.sleep(0.05)
        self._delivery = delivery_of(self._process.pid)
        self._signal(signal.SIGSTOP)

    def turn(self, seconds: float) -> list[int]:
        """Run for so long; the times of the steps that began and ended meanwhile, in ns."""
        begin = time.monotonic_ns()
        self._signal(signal.SIGCONT)
        time.sleep(seconds)
        self._signal(signal.SIGSTOP)
        end = time.monotonic_ns()
        inside = [at for at in self._steps() if begin < at < end]
        return [after - before for before, after in pairwise(inside)]

    def peak_mb(self) -> float:
        """The largest memory of the loop's process so far."""
        return memory_mb("VmHWM", self._process.pid)

    def end(self) -> None:
        """Kill the loop; its delivery process ends by itself."""
        self._process.kill()
        self._process.wait()
        if self._delivery is not None:
            os.kill(self._delivery, signal.SIGCONT)
            end_delivery(self._delivery, self._folder)

    def _signal(self, number: signal.Signals) -> None:
        os.kill(self._process.pid, number)
        if self._delivery is not None:
            os.kill(self._delivery, number)

    def _steps(self) -> list[int]:
        lines = self._times.read_bytes().split(b"\n")
        return [int(line) for line in lines[:-1]]
