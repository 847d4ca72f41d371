"""Short-lived programs that are asked something: bounded in time and in what they may answer."""

import hashlib
import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Answer", "ask"]

MAX_ANSWER = 64 * 1024
"""Bytes that are read of an answer."""
_BLOCK = 64 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """What a program said.

    Attributes:
        code: its exit status.
        output: the first bytes of its standard output.
        size: bytes of all its output that were read.
        timed_out: whether it was killed for taking too long.
    """

    code: int
    output: bytes
    size: int
    timed_out: bool

    @property
    def text(self) -> str:
        """The output, less the white space around it."""
        return self.output.decode("utf-8", "replace").strip()


def ask(
    command: Sequence[str],
    folder: Path,
    timeout: float,
    *,
    environment: Mapping[str, str],
    given: bytes = b"",
    keep: int = MAX_ANSWER,
    digest: "hashlib._Hash | None" = None,
    errors: bool = False,
) -> Answer:
    """What a program says; one that takes too long is killed, with all it has started.

    Args:
        command: the program and its arguments.
        folder: where it runs.
        timeout: seconds that it may take.
        environment: its environment.
        given: what it finds on its standard input; it must read all of it before it answers.
        keep: bytes of its output that are kept. One that says more is killed, too.
        digest: takes in all output, however long; the program is then left to its end.
        errors: whether what it says on standard error belongs to the output.

    Raises:
        OSError: it cannot be started.
    """
    with subprocess.Popen(  # noqa: S603  git, nvidia-smi, or ourselves
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE if given else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if errors else subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        late = threading.Event()
        timer = threading.Timer(timeout, _stop, [process, late])
        timer.daemon = True
        timer.start()
        try:
            if process.stdin:
                with suppress(BrokenPipeError):  # it ended early; its exit status tells
                    process.stdin.write(given)
                    process.stdin.close()
            kept, size = _read(process, keep, digest)
            code = process.wait()
        finally:
            timer.cancel()
    return Answer(code, kept, size, late.is_set())


def _read(
    process: "subprocess.Popen[bytes]", keep: int, digest: "hashlib._Hash | None"
) -> tuple[bytes, int]:
    kept, size = bytearray(), 0
    while process.stdout and (block := process.stdout.read(_BLOCK)):
        size += len(block)
        kept += block[: max(0, keep - len(kept))]
        if digest is not None:
            digest.update(block)
        elif size >= keep:
            _kill(process)
            break
    return bytes(kept), size


def _stop(process: "subprocess.Popen[bytes]", late: threading.Event) -> None:
    late.set()
    _kill(process)


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """Kill a process that leads a session of its own, with all that it has started."""
    with suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
