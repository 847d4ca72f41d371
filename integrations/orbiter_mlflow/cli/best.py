"""`orbiter-mlflow best`: the configs of an experiment, ranked by a metric over their seeds."""

from itertools import filterfalse
from typing import Literal

import click

from orbiter_mlflow.cli.options import (
    console,
    runs_filter,
    store_errors,
    store_options,
    store_settings,
    table_or_json,
)
from orbiter_mlflow.text.escaping import plain


@click.command()
@click.option("--metric", required=True, metavar="KEY", help="The metric: its last value counts.")
@click.option(
    "--direction",
    required=True,
    type=click.Choice(["higher", "lower"]),
    help="Which values are better.",
)
@click.option(
    "--group-by",
    "by",
    multiple=True,
    metavar="FIELD",
    help="Put runs with the same value together: params.learning_rate; may be given several times. "
    " [default: all params and datasets that differ, but for seeds]",
)
@runs_filter
@table_or_json
@store_options("Its name.  [default: $MLFLOW_EXPERIMENT_NAME, else Default]")
def best(
    metric: str,
    direction: Literal["higher", "lower"],
    by: tuple[str, ...],
    filter_string: str,
    output_format: str,
    tracking_uri: str | None,
    experiment: str | None,
) -> None:
    """Rank the configs of an experiment by a metric over their seeds.

    Each row is one config: the number of its runs, mean, standard deviation, and the confidence
    interval of the mean. Only runs count that are FINISHED and complete.
    """
    from orbiter_mlflow.errors import CannotCompareError
    from orbiter_mlflow.gate import run_selection
    from orbiter_mlflow.gate.ranking import rank
    from orbiter_mlflow.gate.reports import ranking as report
    from orbiter_mlflow.runs.store import RunStore

    with store_errors():
        settings = store_settings(tracking_uri, experiment)
        store = RunStore(settings.tracking_uri)
        where = store.experiment_id(run_selection.experiment_of(settings, store))
        found = [*filterfalse(run_selection.is_parent, store.search(filter_string, [where]))]
        waiting = run_selection.waiting_here(*settings.spool_folders)
        runs, _ = run_selection.gate_runs(store, None, found, (), waiting)
    try:
        ranking = rank(runs, metric, direction, by)
    except CannotCompareError as error:
        raise click.ClickException(plain(str(error))) from error
    if output_format == "json":
        click.echo(report.json_report(ranking))
    else:
        console().print(report.terminal_report(ranking))
