"""Run verl in a process of its own, which ends with this one."""

import asyncio
import re
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_INTERVAL = 0.2
"""Seconds from one look at the metrics to the next."""
_PATIENCE = 15.0
"""Seconds that verl gets to end by itself: torchrun ends its workers, Ray its cluster."""
_READ_BACK = 256 * 1024
"""Bytes of a log's end that are read for its last lines."""
_SHOWN_LINES = 30
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_TORCHRUN_REPORT = "failed (exitcode: "
"""Where torchrun's own report begins, below the error of the process it has started."""
_GUARD = Path(__file__).with_name("guard.py")
"""Started by its file: whatever `orbiter` the working directory has, this one is run."""


async def run_guarded(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    log: Path,
    on_tick: Callable[[bool], None],
) -> int:
    """Run a command until it ends, and end it when this call is cancelled, however often.

    Args:
        command: the program and its arguments.
        environment: all of its environment variables.
        log: the file for what it prints.
        on_tick: called five times a second with False, and once after the end with True.

    Returns:
        The exit code; 128 and the signal for a command that a signal has ended.
    """
    with log.open("wb") as output:
        guard = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", str(_GUARD), str(_PATIENCE), *command),
            env=environment,
            stdin=PIPE,
            stdout=output,
            stderr=STDOUT,
            start_new_session=True,  # the terminal's Ctrl-C is for the caller alone
        )
    ended = asyncio.ensure_future(guard.wait())
    try:
        while not ended.done():
            await asyncio.wait([ended], timeout=_INTERVAL)
            on_tick(False)
    finally:
        if not ended.done():
            await _end(guard, ended)
        on_tick(True)
    return ended.result()


async def _end(guard: Process, ended: "asyncio.Future[int]") -> None:
    """Close the guard's input, at which it ends all below it, and wait for that."""
    if guard.stdin is not None:
        guard.stdin.close()
    while not ended.done():
        with suppress(asyncio.CancelledError):  # the first one is on its way already
            await asyncio.wait([ended])


def last_lines(log: Path) -> str:
    """The end of what a process has printed, for an error message; without torchrun's report."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _READ_BACK))
        text, cut, _ = file.read().decode(errors="replace").partition(_TORCHRUN_REPORT)
    if cut:
        text = text.rpartition("\n")[0]
    text = _COLOUR.sub("", text)
    lines = [line.rpartition("\r")[2].rstrip() for line in text.split("\n")]  # progress bars
    return "\n".join([line for line in lines if line][-_SHOWN_LINES:])
