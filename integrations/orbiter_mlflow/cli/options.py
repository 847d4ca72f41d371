"""What the commands share: options of a store, the settings in force, the console for a report.

A setting is what was given to the command, else the environment's.
"""

import os
import sys
import traceback
from collections.abc import Callable, Mapping
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from pydantic import ValidationError

from orbiter_mlflow.gate.options import Option
from orbiter_mlflow.redaction.redactor import Redactor
from orbiter_mlflow.settings import MLflowSettings, resolve
from orbiter_mlflow.text.escaping import message

if TYPE_CHECKING:
    from rich.console import Console

_WIDTH = 120
"""Columns of a table where there is no terminal: a log of CI scrolls."""

DEBUG = "ORBITER_MLFLOW_DEBUG"
"""Environment variable: show the traceback of an error that nobody has foreseen."""


class NoAnswer(click.ClickException):
    """A question whose answers are exit codes 0 and 1 could not be answered."""

    exit_code = 3


_Command = Callable[..., None]


def with_options(*options: Option) -> Callable[[_Command], _Command]:
    """Give a command these options, in this order."""

    def add(command: _Command) -> _Command:
        for one in reversed(options):
            # Not `is_flag=False`: click then takes the value for one that may be left out.
            kind: dict[str, Any] = {"is_flag": True} if one.kind == "flag" else {}
            if one.kind == "path":
                kind = {"type": click.Path(path_type=Path)}
            command = click.option(f"--{one.name}", metavar=one.metavar, help=one.help, **kind)(
                command
            )
        return command

    return add


def settings(given: Mapping[str, str | None]) -> MLflowSettings:
    """The settings; a field that is given as None has no value, whatever the environment says.

    Raises:
        click.UsageError: a value is wrong; it names the field.
    """
    try:
        return resolve(MLflowSettings.model_validate(given), None)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in fault["loc"]) or "settings"
        what = fault["msg"].removeprefix("Value error, ")
        told = Redactor().text(f"{where}: {what} (given: {fault['input']!r})")
        raise click.UsageError(message(told)) from error


def store_settings(tracking_uri: str | None, experiment: str | None = None) -> MLflowSettings:
    """The settings of a command that reads runs; None stands for an option that was not given.

    Raises:
        click.UsageError: a value is wrong; it names the field.
    """
    given = {"tracking_uri": tracking_uri, "experiment": experiment}
    # Without a run id: one from the environment is for what trains.
    return settings(
        {key: text for key, text in given.items() if text is not None} | {"run_id": None}
    )


def unforeseen(error: Exception) -> str:
    """What is told of an error that nobody has foreseen; where it came from, only if asked for."""
    if os.environ.get(DEBUG):
        traceback.print_exception(error)
    what = message(Redactor().text(f"{type(error).__name__}: {error}"))
    return f"{what} (not foreseen: {DEBUG}=1 shows where)"


def console() -> "Console":
    """Where a report is shown: as wide as the terminal or `$COLUMNS`, whatever it can write."""
    from rich.console import Console

    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # names may be more than the locale can write
    return Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else _WIDTH)
