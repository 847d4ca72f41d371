"""Run a subprocess with a timeout and a limit on its output.

The only place that starts a short-lived program and reads its answer. A program that takes too
long, or says too much, is killed together with all that it has started.
"""

import hashlib
import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

__all__ = ["MAX_OUTPUT", "Answer", "run_subprocess"]

MAX_OUTPUT = 64 * 1024
"""Bytes of the output that are read unless the caller asks for more."""
_MAX_ERRORS = 16 * 1024
"""Bytes that are kept of the standard error."""
_BLOCK = 64 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of a subprocess.

    Attributes:
        code: its exit status; negative where a signal ended it.
        output: the first bytes of its standard output.
        size: bytes of standard output that were read, those not kept included.
        errors: the first 16 KiB of its standard error.
        timed_out: whether it was killed because it took too long.
    """

    code: int
    output: bytes
    size: int
    errors: bytes
    timed_out: bool

    @property
    def text(self) -> str:
        """The output, without the white space around it."""
        return self.output.decode("utf-8", "replace").strip()

    @property
    def error_text(self) -> str:
        """The standard error on one line, for messages."""
        return " ".join(self.errors.decode("utf-8", "replace").split())


def run_subprocess(
    command: Sequence[str],
    folder: Path,
    timeout: float,
    *,
    environment: Mapping[str, str],
    max_output: int = MAX_OUTPUT,
    digest: "hashlib._Hash | None" = None,
) -> Answer:
    """Run a program to its end and return what it printed.

    Args:
        command: the program and its arguments.
        folder: its working folder.
        timeout: seconds after which it is killed.
        environment: its whole environment.
        max_output: bytes of standard output that are kept. A program that prints more is killed.
        digest: is updated with all of the output; the program may then print more than
            `max_output`, and the rest is read but not kept.

    Raises:
        OSError: the program cannot be started.
    """
    with subprocess.Popen(  # noqa: S603  git or nvidia-smi
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None and process.stderr is not None  # noqa: S101,PT018  pipes
        late = threading.Event()
        timer = threading.Timer(timeout, _stop, [process, late])
        timer.daemon = True
        timer.start()
        errors = bytearray()
        reader = threading.Thread(target=_read_errors, args=[process.stderr, errors], daemon=True)
        reader.start()
        try:
            output, size = _read(process, process.stdout, max_output, digest)
            reader.join()
            code = process.wait()
        finally:
            timer.cancel()
    return Answer(code, output, size, bytes(errors), late.is_set())


def _read(
    process: "subprocess.Popen[bytes]",
    stdout: IO[bytes],
    max_output: int,
    digest: "hashlib._Hash | None",
) -> tuple[bytes, int]:
    output, size = bytearray(), 0
    while block := stdout.read(_BLOCK):
        size += len(block)
        output += block[: max(0, max_output - len(output))]
        if digest is not None:
            digest.update(block)
        elif size > max_output:
            _kill(process)
            break
    return bytes(output), size


def _read_errors(stderr: IO[bytes], errors: bytearray) -> None:
    while block := stderr.read(_BLOCK):  # to its end: a full pipe would block the program
        errors += block[: max(0, _MAX_ERRORS - len(errors))]


def _stop(process: "subprocess.Popen[bytes]", late: threading.Event) -> None:
    late.set()
    _kill(process)


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """Kill a process that leads a session of its own, with all that it has started."""
    with suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:  # Windows
            process.kill()
