"""`orbiter-mlflow run`: run any program so that MLflow's own functions write through the journal.

It is a wrapper that the program does not notice: the same input and output, signals are passed on,
and the exit code is the program's.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import TYPE_CHECKING

import click

from orbiter_mlflow.cli.options import store_options, store_settings
from orbiter_mlflow.delivery import opened_journals
from orbiter_mlflow.delivery.store_uri import PREFIX
from orbiter_mlflow.settings import to_environment
from orbiter_mlflow.text.escaping import message

if TYPE_CHECKING:
    from orbiter_mlflow.settings import MLflowSettings

_NOT_FOUND, _NOT_EXECUTABLE = 127, 126
"""Exit codes of a shell for a program that it cannot start."""

_PASSED_ON = ("SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGBREAK")
_OF_THE_KEYBOARD = ("SIGINT", "SIGQUIT", "SIGBREAK")
"""Signals that a terminal sends to the program, too."""


@click.command(context_settings={"allow_interspersed_args": False})
@click.argument("program", nargs=-1, required=True, type=click.UNPROCESSED)
@store_options("Its name, for MLflow and trainers.  [default: $MLFLOW_EXPERIMENT_NAME]")
@click.pass_obj
def run(
    environ: dict[str, str] | None,
    program: tuple[str, ...],
    tracking_uri: str | None,
    experiment: str | None,
) -> None:
    """Run a program whose MLflow calls go through the journal: `run -- python train.py`.

    At its end the runs that it wrote are listed on standard error, and what is not delivered yet.
    The exit code is the program's, or 128 and the number of the signal that ended it.
    """
    settings = store_settings(tracking_uri, experiment)
    with TemporaryDirectory(prefix="orbiter-run-", ignore_cleanup_errors=True) as folder:
        opened = Path(folder) / "opened"
        opened.touch(mode=0o600)
        code = _run(program, _environment(settings, environ or os.environ, opened))
        if code not in (_NOT_FOUND, _NOT_EXECUTABLE) or opened.stat().st_size:
            _report(opened, settings)
    sys.exit(code)


def _environment(
    settings: "MLflowSettings", environ: Mapping[str, str], opened: Path
) -> dict[str, str]:
    """The environment of the program."""
    changed = to_environment(
        {
            "tracking_uri": PREFIX + settings.tracking_uri,
            "experiment": settings.experiment,
            "experiment_id": settings.experiment_id,
        },
        environ,
    )
    changed[opened_journals.VARIABLE] = opened_journals.environment(opened, environ)
    return changed


def _run(program: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run the program to its end; returns the exit code."""
    with _passing_signals_on() as running:
        try:
            process = subprocess.Popen(program, env=environ)  # noqa: S603  the user's own
        except OSError as error:
            why = f"{program[0]} cannot be run: {error.strerror or error}"
            click.echo(f"orbiter-mlflow: {message(why)}", err=True)
            return _NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_EXECUTABLE
        running(process)
        code = process.wait()
    return code if code >= 0 else 128 - code


class _Signals:
    """Passes signals on to a process; those that come before it has started, afterwards."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []

    def __call__(self, process: "subprocess.Popen[bytes]") -> None:
        """Note that the process has started."""
        self._process = process
        while self._early:
            process.send_signal(self._early.pop(0))

    def arrived(self, number: int, _: FrameType | None) -> None:
        """The handler of the signals."""
        if signal.Signals(number).name in _OF_THE_KEYBOARD and _in_foreground():
            return  # the program has received it, too
        if self._process is None:
            self._early.append(number)
        else:
            self._process.send_signal(number)


@contextmanager
def _passing_signals_on() -> Iterator[_Signals]:
    """Inside the block, pass signals on to the process with which the value is called.

    A signal that this process was told to ignore, as by `nohup`, is left alone, so that the program
    ignores it too.
    """
    signals, before = _Signals(), {}
    for name in _PASSED_ON:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, signals.arrived)
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _in_foreground() -> bool:
    """Whether this process, and so the program, receives what is typed at a terminal."""
    if not hasattr(os, "ctermid"):
        return True  # Windows: Ctrl-C reaches each process of the console
    try:
        terminal = os.open(os.ctermid(), os.O_RDWR | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _report(opened: Path, settings: "MLflowSettings") -> None:
    """Wait for delivery, and print what was delivered. Ctrl-C ends the wait, then the printing."""
    # A report must not wait half a minute for a store that hangs.
    patience = str(max(1, round(settings.answer_timeout)))
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = patience
    with suppress(KeyboardInterrupt):
        from orbiter_mlflow.cli import delivered

        delivered.wait(opened, settings.flush_timeout, settings.answer_timeout)
    with suppress(KeyboardInterrupt):
        from orbiter_mlflow.cli import delivered

        for line in delivered.report(opened_journals.read(opened), settings.tracking_uri):
            click.echo(f"orbiter-mlflow: {line}", err=True)
