"""`orbiter-mlflow runs`: the runs of an experiment, with the columns in which they differ."""

import json
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING

import click

from orbiter_mlflow.cli.options import (
    console,
    runs_filter,
    store_errors,
    store_options,
    store_settings,
    table_or_json,
)
from orbiter_mlflow.runs.model import StoredRun
from orbiter_mlflow.text.clock import utc
from orbiter_mlflow.text.escaping import in_json, plain

if TYPE_CHECKING:
    from rich.console import RenderableType

SCHEMA = 1
"""Version of the JSON; increases with any change that could break a reader."""
_PAGE = 200
"""Runs that are read at once."""


@click.command()
@click.option(
    "--last", type=click.IntRange(min=1), default=20, show_default=True, help="Runs shown."
)
@runs_filter
@table_or_json
@store_options("Its name.  [default: $MLFLOW_EXPERIMENT_NAME, else Default]")
def runs(
    last: int,
    filter_string: str,
    output_format: str,
    tracking_uri: str | None,
    experiment: str | None,
) -> None:
    """List the runs of an experiment, the latest first.

    The columns are those that `ui` gives to the run table: the params in which the runs differ, and
    the main metrics.
    """
    from orbiter_mlflow.gate.run_selection import experiment_of
    from orbiter_mlflow.runs.store import RunStore

    with store_errors():
        settings = store_settings(tracking_uri, experiment)
        store = RunStore(settings.tracking_uri)
        name = experiment_of(settings, store)
        page = min(_PAGE, last + 1)
        matching = store.search(filter_string, [store.experiment_id(name)], page=page)
        found = list(islice(matching, last + 1))
    shown, more = found[:last], len(found) > last
    if output_format == "json":
        click.echo(_json_report(name, shown, more))
    else:
        console().print(_terminal_report(name, shown, more))


def _json_report(experiment: str, runs: Sequence[StoredRun], more: bool) -> str:
    """`{schema, experiment, columns, runs, more}`: all params and metrics of each run; `columns`
    names those of the table. NaN and infinities are the strings nan, inf, -inf."""
    from orbiter_mlflow.gate.reports import figures
    from orbiter_mlflow.ui.columns import table_metrics, table_params

    content = {
        "schema": SCHEMA,
        "experiment": experiment,
        "columns": {
            "params": table_params([run.params for run in runs]),
            "metrics": table_metrics(runs),
        },
        "runs": [
            {
                "run_id": run.run_id,
                "name": run.name,
                "status": run.status,
                "start_time": utc(run.start_time),
                "end_time": None if run.end_time is None else utc(run.end_time),
                "params": dict(run.params),
                "metrics": {
                    key: value if figures.is_finite(value) else figures.number(value).lower()
                    for key, value in run.metrics.items()
                },
            }
            for run in runs
        ],
        "more": more,
    }
    return in_json(json.dumps(content, indent=2, allow_nan=False))


def _terminal_report(experiment: str, runs: Sequence[StoredRun], more: bool) -> "RenderableType":
    """A table, the latest run first; texts are shown as text, never as markup."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from orbiter_mlflow.gate.reports import figures
    from orbiter_mlflow.ui.columns import table_metrics, table_params

    def text(shown: str) -> Text:
        return Text(plain(shown), overflow="fold")

    params, metrics = table_params([run.params for run in runs]), table_metrics(runs)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("run", overflow="fold")
    for title in ("id", "status", "started (UTC)"):
        table.add_column(title, no_wrap=True)
    for title in params:
        table.add_column(text(title), overflow="fold")
    for title in metrics:
        prefix, slash, key = title.rpartition("/")  # in two lines, as the numbers are short
        heading = Text("\n").join(text(part) for part in (f"{prefix}{slash}", key) if part)
        table.add_column(heading, justify="right", overflow="fold")
    for run in runs:
        table.add_row(
            text(run.name),
            text(run.run_id[:8]),
            text(run.status),
            text(utc(run.start_time)[:16].replace("T", " ")),
            *(text(run.params.get(key, figures.NONE)) for key in params),
            *(text(figures.number(run.metrics.get(key))) for key in metrics),
        )
    if not runs:
        return text(f"experiment {experiment}: no runs")
    ending = [text("older runs are left out: --last shows more")] if more else []
    return Group(table, *([Text(), *ending] if ending else []))
