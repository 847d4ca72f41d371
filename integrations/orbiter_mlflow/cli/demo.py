"""`orbiter-mlflow demo`: train six small models, track them, and show what to do next."""

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

    from orbiter_mlflow.cli.demo_result import Result

_FIGURES_NOTE = (
    "Your figures may differ a little from those in the documentation: accuracy and loss depend on "
    "the CPU and on NumPy's version, the seconds on the load of the machine."
)

_EPOCHS = {"policy-gradient": 40, "trl": 20}
"""Epochs of a run by default, for each backend."""


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
    "--epochs",
    type=click.IntRange(1, 10_000),
    help=f"Of each run.  [default: {_EPOCHS['policy-gradient']}, with trl {_EPOCHS['trl']}]",
)
@click.option(
    "--backend",
    type=click.Choice(list(_EPOCHS)),
    default="policy-gradient",
    show_default=True,
    help="trl: GRPO on small language models; needs TRL, and takes some minutes.",
)
def demo(
    tracking_uri: str | None, experiment: str, seeds: int, epochs: int | None, backend: str
) -> None:
    """Train six small models, and track them: policies on images of digits, or with TRL."""
    # Without a run id: one from the environment would make all of them the same run.
    options = {"experiment": experiment, "run_id": None}
    if tracking_uri is not None:
        options["tracking_uri"] = tracking_uri
    epochs = epochs or _EPOCHS[backend]
    train = _train_trl if backend == "trl" else _train_policies
    settings = settings_from(options)
    sys.exit(_show(settings, *train(settings, seeds, epochs)))


def _train_policies(
    settings: MLflowSettings, seeds: int, epochs: int
) -> "tuple[str, list[Result]]":
    """The title of the results, and those of the reference backend."""
    from orbiter_mlflow.cli.demo_runs import demo_configs, load_digits, train_all

    train_data, test_data = load_digits()
    configs, code = demo_configs(seeds, epochs), code_tags(Path(__file__).parent)
    rows = f"{len(train_data[0])} images of digits, tested on {len(test_data[0])} others"
    _print_head(settings, code, f"{len(configs)} runs of {epochs} epochs on {rows}")
    results = asyncio.run(train_all(configs, train_data, test_data, settings, code))
    return "Accuracy on the held-out images before and after training", results


def _train_trl(settings: MLflowSettings, seeds: int, epochs: int) -> "tuple[str, list[Result]]":
    """The title of the results, and those of GRPO."""
    from orbiter_mlflow.cli.demo_trl import LEARNING_RATES, require_trl, sums, train_all

    require_trl()
    code, runs = code_tags(Path(__file__).parent), len(LEARNING_RATES) * seeds
    _print_head(settings, code, f"{runs} runs of {epochs} epochs of GRPO on {len(sums())} sums")
    results = asyncio.run(train_all(seeds, epochs, settings, code))
    return "Share of right answers, sampled, before and after training", results


def _print_head(settings: MLflowSettings, code: dict[str, str], what: str) -> None:
    where = plain(display_uri(settings.tracking_uri))
    click.echo(f"orbiter {version('orbiter')}{_commit(code)}: {what}; tracked in {where}")


def _show(settings: MLflowSettings, title: str, results: "list[Result]") -> int:
    """Print the results and what to do next; returns the exit code."""
    console().print(_table(title, results))
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


def _table(title: str, results: "list[Result]") -> "Table":
    from rich.table import Table

    table = Table(title=title, min_width=80)
    for heading in ("run", "learning rate", "seed", "before", "after", "loss", "seconds"):
        table.add_column(heading, justify="left" if heading == "run" else "right")
    table.add_column("status")
    for result in results:
        table.add_row(
            (result.run_id or "-")[:8],
            str(result.learning_rate),
            str(result.seed),
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
