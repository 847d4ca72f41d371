"""`orbiter-mlflow ui`: print the addresses of an experiment in the MLflow UI."""

import click

from orbiter_mlflow.cli.options import console, store_options, store_settings
from orbiter_mlflow.errors import StoreError
from orbiter_mlflow.text.escaping import plain


@click.command()
@click.option("--address", help="Where the UI is served.  [default: the store's own, else local]")
@store_options("Its name.  [default: $MLFLOW_EXPERIMENT_NAME, else Default]")
def ui(address: str | None, tracking_uri: str | None, experiment: str | None) -> None:
    """Print links to an experiment's runs, curves and comparison in the MLflow UI.

    The run table gets columns for the params in which the runs differ and for the main metrics; a
    tag of the experiment stores them. If no server serves the store, the command that starts one
    is printed too.
    """
    from orbiter_mlflow.runs.store import RunStore
    from orbiter_mlflow.ui.pages import print_pages

    settings = store_settings(tracking_uri, experiment)
    try:
        store = RunStore(settings.tracking_uri)
        experiment_id = settings.experiment_id or store.experiment_id(
            settings.experiment or "Default"
        )
        print_pages(console(), store, experiment_id, address)
    except StoreError as error:
        raise click.ClickException(plain(str(error))) from error
