"""The command `orbiter-mlflow`. A new command is a module in this package and a line here.

Exit codes: 0 success, 1 failure, 2 wrong usage, 3 an unexpected error, which is never an answer.
`check` has more.
"""

import logging
import os
import signal
import sys

import click

from orbiter_mlflow.cli.best import best
from orbiter_mlflow.cli.comment import comment
from orbiter_mlflow.cli.demo import demo
from orbiter_mlflow.cli.download import download
from orbiter_mlflow.cli.gate import bless, check
from orbiter_mlflow.cli.history import history
from orbiter_mlflow.cli.options import unexpected_error
from orbiter_mlflow.cli.rollouts import rollouts
from orbiter_mlflow.cli.run_list import runs
from orbiter_mlflow.cli.run_program import run
from orbiter_mlflow.cli.runs import diff, reproduce
from orbiter_mlflow.cli.sync import status, sync
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


_TRACK = (demo, run, sync, status, ui)
_READ = (runs, best, reproduce, diff, rollouts, download, check, bless, history, comment)
for _command in (*_TRACK, *_READ):
    commands.add_command(_command)

_QUIET = {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
"""MLflow's progress bar would mix with our lines, also in files they are piped into."""


class _PlainFormatter(logging.Formatter):
    """Escapes log messages: they contain names of journals and artifacts, which are not ours."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's own name
        return plain(super().formatMessage(record))


def main() -> None:
    """Run the command; errors are printed in a few lines that no CI service acts on."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_PlainFormatter())
    given = dict(os.environ)
    for name, value in {**DELIVERY_DEFAULTS, **_QUIET}.items():
        os.environ.setdefault(name, value)
    try:
        commands.main(standalone_mode=False, obj=given)
    except click.ClickException as error:
        _print_error(error.format_message())
        sys.exit(error.exit_code)
    except click.Abort:
        # The exit may wait for delivery; a second Ctrl-C must end it at once.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        sys.exit(130)
    except Exception as error:
        _print_error(unexpected_error(error))
        sys.exit(3)


def _print_error(text: str) -> None:
    click.echo("\n".join(map(plain, f"orbiter-mlflow: {text}".splitlines())), err=True)
