"""`orbiter-mlflow sync` and `status`: deliver journals, or list what waits in them."""

import sys
from pathlib import Path

import click

from orbiter_mlflow.cli.options import settings_from, store_settings


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option("--tracking-uri", help="Deliver there, instead of where the journals say.")
@click.option("--trust-uri", is_flag=True, help="Deliver to any store that a journal names.")
@click.option("--dry-run", is_flag=True, help="Only list what waits.")
@click.option("--ended", is_flag=True, help="Treat trainers on other machines as ended.")
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    help="Seconds to keep trying while the store cannot be reached.",
)
def sync(
    paths: tuple[Path, ...],
    tracking_uri: str | None,
    trust_uri: bool,
    dry_run: bool,
    ended: bool,
    wait: float,
) -> None:
    """Deliver journals: files or folders; by default those in the spool."""
    from orbiter_mlflow.cli.sync_report import Destination, show, sync_all

    journals = _journals(paths)
    in_force = store_settings(tracking_uri).tracking_uri
    if dry_run:
        show(journals)
        return
    instead = None if tracking_uri is None else in_force
    destination = Destination(in_force, instead, trust_uri)
    sys.exit(sync_all(journals, destination, ended=ended, wait=wait))


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
def status(paths: tuple[Path, ...]) -> None:
    """List the journals that are not delivered yet, what waits in each, and why."""
    from orbiter_mlflow.cli.sync_report import show

    show(_journals(paths))


def _journals(paths: tuple[Path, ...]) -> list[Path]:
    from orbiter_mlflow.delivery.spool_folder import is_usable
    from orbiter_mlflow.delivery.sync import find_journals

    try:
        return find_journals(paths or filter(is_usable, settings_from({}).spool_folders))
    except FileNotFoundError as error:
        raise click.UsageError(str(error)) from error
