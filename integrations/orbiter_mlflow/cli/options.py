"""Shared by the commands: store options, the settings in force, and the console for reports.

A setting comes from the command line, else from the environment.
"""

import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from pydantic import ValidationError

from orbiter_mlflow.errors import FilterError, RunNotFoundError, StoreError
from orbiter_mlflow.gate.options import TRACKING_URI, Option
from orbiter_mlflow.redaction.redactor import Redactor
from orbiter_mlflow.settings import MLflowSettings, resolve
from orbiter_mlflow.text.escaping import message, plain

if TYPE_CHECKING:
    from rich.console import Console

    from orbiter_mlflow.runs.model import StoredRun
    from orbiter_mlflow.runs.store import RunStore

_WIDTH = 120
"""Columns of a table where there is no terminal: a CI log scrolls."""

DEBUG = "ORBITER_MLFLOW_DEBUG"
"""Environment variable: print the traceback of an unexpected error."""


class NoAnswerError(click.ClickException):
    """A command that answers with exit code 0 or 1 could not find the answer."""

    exit_code = 3


_Command = Callable[..., None]


def with_options(*options: Option) -> Callable[[_Command], _Command]:
    """Decorate a command with these options, in this order."""

    def add(command: _Command) -> _Command:
        for option in reversed(options):
            # `is_flag=False` would let click accept the option without a value.
            kind: dict[str, Any] = {"is_flag": True} if option.kind == "flag" else {}
            if option.kind == "path":
                kind = {"type": click.Path(path_type=Path)}
            command = click.option(
                f"--{option.name}", metavar=option.metavar, help=option.help, **kind
            )(command)
        return command

    return add


def store_options(experiment_help: str) -> Callable[[_Command], _Command]:
    """Decorate a command with `--tracking-uri` and `--experiment`."""
    return with_options(TRACKING_URI, Option("experiment", experiment_help))


table_or_json = click.option(
    "--format",
    "output_format",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
)
"""Decorates a command with `--format`."""

runs_filter = click.option(
    "--filter",
    "filter_string",
    default="",
    metavar="FILTER",
    help="Only runs that match this filter of MLflow's.",
)
"""Decorates a command with `--filter` for the runs that it reads."""


def settings_from(options: Mapping[str, str | None]) -> MLflowSettings:
    """The settings in force; an option that is None switches off the environment's value.

    Raises:
        click.UsageError: a value is invalid; the message names the field.
    """
    try:
        return resolve(MLflowSettings.model_validate(options), None)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "settings"
        reason = first["msg"].removeprefix("Value error, ")
        text = Redactor().text(f"{field}: {reason} (given: {first['input']!r})")
        raise click.UsageError(message(text)) from error


def store_settings(tracking_uri: str | None, experiment: str | None = None) -> MLflowSettings:
    """The settings of a command that reads runs; None stands for an option that was left out.

    Raises:
        click.UsageError: a value is invalid; the message names the field.
    """
    options = {"tracking_uri": tracking_uri, "experiment": experiment}
    # Without a run id: one in the environment is for training.
    return settings_from(
        {name: text for name, text in options.items() if text is not None} | {"run_id": None}
    )


@contextmanager
def store_errors() -> Iterator[None]:
    """Errors of reading a store, as those of a command.

    Raises:
        click.UsageError: no run, or several, have the name that was given; MLflow does not
            understand a filter.
        click.ClickException: the store cannot be read.
    """
    try:
        yield
    except (FilterError, RunNotFoundError) as error:
        raise click.UsageError(plain(str(error))) from error
    except StoreError as error:
        raise click.ClickException(plain(str(error))) from error


def opened_runs(
    tracking_uri: str | None, experiment: str | None, texts: Iterable[str]
) -> tuple["RunStore", list["StoredRun"]]:
    """The store, and the runs that are given by id, its start, or name; raises `store_errors`."""
    from orbiter_mlflow.runs.store import RunStore

    with store_errors():
        settings = store_settings(tracking_uri, experiment)
        store = RunStore(settings.tracking_uri)
        return store, [store.find(text, experiment=settings.experiment) for text in texts]


def unexpected_error(error: BaseException) -> str:
    """The message for an error that no code handles; prints the traceback if `DEBUG` is set."""
    if os.environ.get(DEBUG):
        traceback.print_exception(error)
    text = message(Redactor().text(f"{type(error).__name__}: {error}"))
    return f"{text} (unexpected error; set {DEBUG}=1 to see the traceback)"


def console() -> "Console":
    """A console for reports: as wide as the terminal or `$COLUMNS`, else 120 columns."""
    from rich.console import Console

    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a name may not fit the locale's encoding
    return Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else _WIDTH)
