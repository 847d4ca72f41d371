"""`orbiter-mlflow history`: a metric over the blessings, with its change points."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from orbiter_mlflow.cli.options import console, store_options, store_settings, table_or_json
from orbiter_mlflow.text.escaping import plain

if TYPE_CHECKING:
    from orbiter_mlflow.gate.policy import Policy


@click.command()
@click.argument("metric")
@click.option(
    "--policy",
    type=click.Path(path_type=Path),
    help="Read the baseline of this policy, at the point of the history that it names.",
)
@click.option(
    "--filter",
    "filter_string",
    metavar="FILTER",
    help="Read the blessings of the runs that match.  [default: tags.baseline = 'main']",
)
@click.option(
    "--file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Read this baseline file and no store.",
)
@click.option(
    "--last", type=click.IntRange(min=1), default=20, show_default=True, help="Blessings shown."
)
@table_or_json
@store_options("Where the filter is looked up.  [default: $MLFLOW_EXPERIMENT_NAME, else Default]")
def history(
    metric: str,
    policy: Path | None,
    filter_string: str | None,
    file: Path | None,
    last: int,
    output_format: str,
    tracking_uri: str | None,
    experiment: str | None,
) -> None:
    """Show a metric over the blessings.

    A change point is a blessing that differs from the one before beyond chance.
    """
    from orbiter_mlflow.errors import (
        CannotCompareError,
        FilterError,
        PolicyError,
        StoreError,
    )
    from orbiter_mlflow.gate.history import history_of
    from orbiter_mlflow.gate.read_history import HistoryRequest, read_history
    from orbiter_mlflow.gate.reports import history as report

    if filter_string is not None and file is not None:
        raise click.UsageError("--filter is for a store, --file for a file: use one of them")
    try:
        request = HistoryRequest(
            metric=metric,
            settings=store_settings(tracking_uri, experiment),
            last=last,
            policy=_loaded(policy),
            policy_file=policy,
            filter=filter_string,
            file=file,
        )
        points = history_of(metric, read_history(request))
    except (PolicyError, FilterError) as error:
        raise click.UsageError(plain(str(error))) from error
    except (CannotCompareError, StoreError) as error:
        raise click.ClickException(plain(str(error))) from error
    if output_format == "json":
        click.echo(report.json_report(metric, points))
    else:
        console().print(report.terminal_report(metric, points))


def _loaded(policy: Path | None) -> "Policy | None":
    from orbiter_mlflow.gate.policy import load_policy

    return None if policy is None else load_policy(policy)
