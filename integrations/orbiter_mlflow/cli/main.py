"""The command `orbiter-mlflow`.

Exit codes: 0 done, 1 it failed, 2 used wrongly, 3 it went wrong in a way that was not foreseen, so
that it is taken for no answer; `check` has more.
"""

import logging
import os
import signal
import sys
from pathlib import Path

import click

from orbiter_mlflow.cli.gate import bless, check
from orbiter_mlflow.cli.options import settings, store_settings, unforeseen
from orbiter_mlflow.cli.runs import diff, reproduce
from orbiter_mlflow.cli.ui import ui
from orbiter_mlflow.delivery.hosts.environment import DELIVERY_DEFAULTS
from orbiter_mlflow.text.escaping import plain
from orbiter_mlflow.text.suggestions import did_you_mean


class _Commands(click.Group):
    """Names the nearest command for one that does not exist; click itself does from 8.4 on."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = super().get_command(ctx, cmd_name)
        if found is None and not ctx.resilient_parsing and not cmd_name.startswith("-"):
            near = did_you_mean(cmd_name, {name: repr(name) for name in self.commands})
            raise click.UsageError(f"No such command {cmd_name!r}{near}", ctx)
        return found


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.pass_context
def commands(context: click.Context) -> None:
    """Track Orbiter trainers in MLflow."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        sys.exit(2)


@commands.command()
@click.option("--tracking-uri", help="Where to log.  [default: $MLFLOW_TRACKING_URI or mlflow.db]")
@click.option("--experiment", default="orbiter-demo", show_default=True, help="Its name.")
@click.option(
    "--seeds",
    type=click.IntRange(1, 100),
    default=3,
    show_default=True,
    help="Runs for each learning rate.",
)
@click.option(
    "--epochs", type=click.IntRange(1, 10_000), default=40, show_default=True, help="Of each run."
)
def demo(tracking_uri: str | None, experiment: str, seeds: int, epochs: int) -> None:
    """Train six small policies on images of digits, and track them."""
    from orbiter_mlflow.cli.demo import run_demo

    # Without a run id: one from the environment would make all of them the same run.
    given = {"experiment": experiment, "run_id": None}
    if tracking_uri is not None:
        given["tracking_uri"] = tracking_uri
    sys.exit(run_demo(settings(given), seeds=seeds, epochs=epochs))


@commands.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option("--tracking-uri", help="Where to, in place of what the journals say.")
@click.option("--trust-uri", is_flag=True, help="To the stores that the journals name, whichever.")
@click.option("--dry-run", is_flag=True, help="Only say what waits.")
@click.option("--ended", is_flag=True, help="Trainers on other machines are known to be over.")
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    help="Seconds to keep trying where the store cannot be reached.",
)
def sync(
    paths: tuple[Path, ...],
    tracking_uri: str | None,
    trust_uri: bool,
    dry_run: bool,
    ended: bool,
    wait: float,
) -> None:
    """Deliver journals: files, or folders of them; by default the spool."""
    from orbiter_mlflow.cli.sync_report import Destination, show, sync_all

    journals = _journals(paths)
    in_force = store_settings(tracking_uri).tracking_uri
    if dry_run:
        show(journals)
        return
    instead = None if tracking_uri is None else in_force
    destination = Destination(in_force, instead, trust_uri)
    sys.exit(sync_all(journals, destination, ended=ended, wait=wait))


@commands.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
def status(paths: tuple[Path, ...]) -> None:
    """List journals that are not delivered: what waits in each, and why."""
    from orbiter_mlflow.cli.sync_report import show

    show(_journals(paths))


commands.add_command(reproduce)
commands.add_command(diff)
commands.add_command(check)
commands.add_command(bless)
commands.add_command(ui)


def _journals(paths: tuple[Path, ...]) -> list[Path]:
    from orbiter_mlflow.delivery.spool_folder import is_usable
    from orbiter_mlflow.delivery.sync import find_journals

    try:
        return find_journals(paths or filter(is_usable, settings({}).spool_folders))
    except FileNotFoundError as error:
        raise click.UsageError(str(error)) from error


_QUIET = {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
"""It would stand between our lines, and in the files that they are piped into."""


class _Harmless(logging.Formatter):
    """Warnings name journals and artifacts, which others may have named."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's own name
        return plain(super().formatMessage(record))


def main() -> None:
    """Run the command; what goes wrong is told in a few lines that act on no log."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_Harmless())
    for name, value in {**DELIVERY_DEFAULTS, **_QUIET}.items():
        os.environ.setdefault(name, value)
    try:
        commands.main(standalone_mode=False)
    except click.ClickException as error:
        _tell(error.format_message())
        sys.exit(error.exit_code)
    except click.Abort:
        # The exit may wait for delivery; who presses Ctrl-C again does not want to.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        sys.exit(130)
    except Exception as error:
        _tell(unforeseen(error))
        sys.exit(3)


def _tell(text: str) -> None:
    click.echo("\n".join(map(plain, f"orbiter-mlflow: {text}".splitlines())), err=True)
