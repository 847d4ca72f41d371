"""`orbiter-mlflow ui`: the addresses of an experiment in the MLflow UI."""

import click

from orbiter_mlflow.cli.options import console, store_settings, with_options
from orbiter_mlflow.errors import StoreError
from orbiter_mlflow.gate.options import TRACKING_URI, Option
from orbiter_mlflow.text.escaping import plain


@click.command()
@click.option("--address", help="Where the UI is served.  [default: the store's own, else local]")
@with_options(
    TRACKING_URI,
    Option("experiment", "Its name.  [default: $MLFLOW_EXPERIMENT_NAME, else Default]"),
)
def ui(address: str | None, tracking_uri: str | None, experiment: str | None) -> None:
    """Print links to an experiment's runs, curves and comparison in the MLflow UI.

    The table has the columns in which the runs differ, and the main metrics: they are kept in a
    tag of the experiment. Nothing is started; where no server serves the store, the command that
    does is printed too.
    """
    from orbiter_mlflow.runs.store import RunStore
    from orbiter_mlflow.ui.pages import say_pages

    found = store_settings(tracking_uri, experiment)
    try:
        store = RunStore(found.tracking_uri)
        experiment_id = found.experiment_id or store.experiment_id(found.experiment or "Default")
        say_pages(console(), store, experiment_id, address)
    except StoreError as error:
        raise click.ClickException(plain(str(error))) from error
