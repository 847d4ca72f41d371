"""`orbiter-mlflow demo`: train six small policies, track them, and show what to do next."""

import asyncio
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orbiter_mlflow import names
from orbiter_mlflow.cli.options import console, settings_from
from orbiter_mlflow.runs.reproduction import code_tags
from orbiter_mlflow.settings import MLflowSettings
from orbiter_mlflow.text.escaping import in_shell, plain
from orbiter_mlflow.ui.pages import command_path, display_uri, print_pages

if TYPE_CHECKING:
    from rich.table import Table

    from orbiter_mlflow.cli.demo_runs import Result

_FIGURES_NOTE = (
    "Your figures may differ a little from those in the documentation: accuracy and loss depend on "
    "the CPU and on NumPy's version, the seconds on the load of the machine."
)


@click.command()
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
    # Without a run id: one from the environment would make all of them the same run.
    options = {"experiment": experiment, "run_id": None}
    if tracking_uri is not None:
        options["tracking_uri"] = tracking_uri
    sys.exit(_run_demo(settings_from(options), seeds, epochs))


def _run_demo(settings: MLflowSettings, seeds: int, epochs: int) -> int:
    """Train all runs and print their results; returns the exit code."""
    from orbiter_mlflow.cli.demo_runs import demo_configs, load_digits, train_all

    train_data, test_data = load_digits()
    configs = demo_configs(seeds, epochs)
    code = code_tags(Path(__file__).parent)
    click.echo(
        f"orbiter {version('orbiter')}{_commit(code)}: {len(configs)} runs of {epochs} epochs on "
        f"{len(train_data[0])} images of digits, tested on {len(test_data[0])} others; tracked in "
        f"{plain(display_uri(settings.tracking_uri))}"
    )
    results = asyncio.run(train_all(configs, train_data, test_data, settings, code))
    console().print(_table(results))
    click.echo(_FIGURES_NOTE)
    if not all(result.delivered for result in results):
        _print_command("See what is not delivered yet, and why", "status")
        _print_command("Deliver it", "sync")
        return 1
    _print_next_steps(settings.tracking_uri, results)
    return 0


def _commit(code: dict[str, str]) -> str:
    """The commit of the demo's own code, where it runs from a clone."""
    if names.GIT_COMMIT not in code:
        return ""
    changed = ", with uncommitted changes" if code.get(names.GIT_DIRTY) == "true" else ""
    return f" (commit {code[names.GIT_COMMIT][:8]}{changed})"


def _table(results: "list[Result]") -> "Table":
    from rich.table import Table

    table = Table(title="Accuracy on the held-out images before and after training", min_width=80)
    for heading in ("run", "learning rate", "seed", "before", "after", "loss", "seconds"):
        table.add_column(heading, justify="left" if heading == "run" else "right")
    table.add_column("status")
    for result in results:
        table.add_row(
            (result.run_id or "-")[:8],
            str(result.config.learning_rate),
            str(result.config.seed),
            f"{result.before:.1%}",
            f"{result.after:.1%}",
            f"{result.loss:.3f}",
            f"{result.seconds:.1f}",
            "FINISHED" if result.delivered else "waits in the journal",
        )
    return table


def _print_next_steps(tracking_uri: str, results: "list[Result]") -> None:
    from orbiter_mlflow.runs.store import RunStore

    ranked = sorted(results, key=lambda result: result.after, reverse=True)
    best, worst = (result.run_id or "" for result in (ranked[0], ranked[-1]))
    store = RunStore(tracking_uri)
    print_pages(console(), store, store.get(best).experiment_id)
    where = "--tracking-uri", display_uri(tracking_uri)
    _print_command(
        f"Print the config of the best run ({ranked[0].after:.1%})", "reproduce", best, *where
    )
    _print_command(
        f"Compare it with the worst run ({ranked[-1].after:.1%})", "diff", worst, best, *where
    )
    _print_command("List all commands", "--help")


def _print_command(title: str, *words: str) -> None:
    command = " ".join(map(in_shell, (command_path("orbiter-mlflow"), *words)))
    click.echo(f"\n{title}:\n  {command}")
