"""The settings in force for a command: what was given to it, else the environment's."""

from collections.abc import Mapping

import click
from pydantic import ValidationError

from orbiter_mlflow.settings import MLflowSettings, resolve


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
        raise click.UsageError(f"{where}: {what} (given: {fault['input']!r})") from error
