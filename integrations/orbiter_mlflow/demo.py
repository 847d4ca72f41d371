"""`orbiter-mlflow demo`: two learning rates and some seeds, trained on real images, tracked.

What it does is what a user does: a backend, the mixin, `evaluate`, `train`, `evaluate`.
"""

import asyncio
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from orbiter.train import TrainMetrics
from orbiter.train.policy_gradient import (
    PolicyGradientConfig,
    PolicyGradientTrainer,
    SoftmaxPolicy,
)
from orbiter_mlflow.links import compare_page, runs_page
from orbiter_mlflow.mixin import MLflowTrainerMixin
from orbiter_mlflow.settings import MLflowSettings, without_userinfo

LEARNING_RATES = (0.5, 0.1)
ACTIONS = 10
UI = "http://127.0.0.1:5000"

Data = tuple[Any, Any]


class DemoTrainer(MLflowTrainerMixin, PolicyGradientTrainer):
    """The reference backend, tracked; `on_report` moves a progress bar besides."""

    on_report: Callable[[int], None] | None = None

    def _on_report(self, metrics: Mapping[str, Any] | TrainMetrics, step: int) -> None:
        super()._on_report(metrics, step)
        if self.on_report is not None:
            self.on_report(step)


@dataclass(frozen=True)
class Result:
    """What one run of the demo gave; accuracies and loss on the held-out images."""

    run_id: str | None
    config: PolicyGradientConfig
    before: float
    after: float
    loss: float
    seconds: float
    status: str


def digits() -> tuple[Data, Data]:
    """scikit-learn's 1,797 images of digits, 8 x 8, scaled to [0, 1]: four fifths to train on."""
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise click.ClickException(
            "the demo's images come with scikit-learn: pip install 'orbiter[demo]'"
        ) from error
    images, labels = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(
        images / 16.0, labels, test_size=0.2, random_state=0, stratify=labels
    )
    return (x_train, y_train), (x_test, y_test)


def run_demo(settings: MLflowSettings, *, seeds: int, epochs: int) -> int:
    """Run it all and print what came of it; gives the exit code.

    Args:
        settings: those in force, the environment's included.
        seeds: runs for each learning rate.
        epochs: of each run.
    """
    console = Console()
    train_data, test_data = digits()
    configs = [
        PolicyGradientConfig(epochs=epochs, learning_rate=rate, seed=seed)
        for rate in LEARNING_RATES
        for seed in range(seeds)
    ]
    console.print(
        f"{len(configs)} runs of {epochs} epochs on {len(train_data[0])} images of digits, "
        f"tested on {len(test_data[0])} others; tracked in {_shown(settings.tracking_uri)}",
        soft_wrap=True,
    )
    with Progress(
        TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console
    ) as progress:
        results = asyncio.run(_run_all(configs, train_data, test_data, settings, progress))
    console.print(_table(results))
    if any(result.run_id is None or result.status != "FINISHED" for result in results):
        return 1
    _print_next_steps(console, settings, results)
    return 0


async def _run_all(
    configs: list[PolicyGradientConfig],
    train_data: Data,
    test_data: Data,
    settings: MLflowSettings,
    progress: Progress,
) -> list[Result]:
    results = []
    for config in configs:
        batches = -(-len(train_data[0]) // config.batch_size)
        name = f"learning_rate={config.learning_rate} seed={config.seed}"
        task = progress.add_task(
            name,
            total=config.epochs * batches,
        )
        trainer = DemoTrainer(config, mlflow=settings.model_copy(update={"run_name": name}))
        trainer.on_report = partial(_advance, progress, task)
        results.append(await _run_one(trainer, config, train_data, test_data))
    return results


async def _run_one(
    trainer: DemoTrainer, config: PolicyGradientConfig, train_data: Data, test_data: Data
) -> Result:
    start = time.monotonic()
    trainer.check_agent(SoftmaxPolicy(train_data[0].shape[1], ACTIONS))
    trainer.check_dataset(train_data, test_data)
    trainer.check_reward()
    trainer.check_config()
    before = await trainer.evaluate()
    trainer.mark_validated()
    await trainer.train()
    after = await trainer.evaluate()
    run_id = await trainer.wait_run_id()
    delivered = run_id is not None and trainer.delivered
    return Result(
        run_id=run_id,
        config=config,
        before=before.accuracy,
        after=after.accuracy,
        loss=after.loss,
        seconds=time.monotonic() - start,
        status="FINISHED" if delivered else "waits in the journal",
    )


def _advance(progress: Progress, task: TaskID, step: int) -> None:
    progress.update(task, completed=step)


def _table(results: list[Result]) -> Table:
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
            result.status,
        )
    return table


def _print_next_steps(console: Console, settings: MLflowSettings, results: list[Result]) -> None:
    from orbiter_mlflow.delivery.sink import MLflowSink

    uri = settings.tracking_uri
    experiment_id = MLflowSink(uri).experiment_id(settings.experiment, settings.experiment_id)
    served = uri.startswith(("http://", "https://"))
    base = _shown(uri) if served else UI
    run_ids = [result.run_id for result in results if result.run_id is not None]
    best = max(results, key=lambda result: result.after)

    def say(text: str) -> None:
        console.print(text, soft_wrap=True, highlight=False, markup=False)

    if not served:
        say(f"\nStart the UI:\n  {_mlflow()} server --backend-store-uri {_shown(uri)} --port 5000")
    say(f"\nSee the runs:\n  {runs_page(base, experiment_id)}")
    say(f"\nCompare them:\n  {compare_page(base, experiment_id, run_ids)}")
    # Without indentation: it is there to be pasted.
    say(
        f"\nRebuild the config of the best run ({best.after:.1%}):\n\n"
        "from mlflow import MlflowClient\n"
        "from orbiter.train.policy_gradient import PolicyGradientConfig\n"
        "from orbiter_mlflow import config_from_params\n"
        f"run = MlflowClient({_shown(uri)!r}).get_run({best.run_id!r})\n"
        "config = config_from_params(run.data.params, PolicyGradientConfig)"
    )


def _shown(tracking_uri: str) -> str:
    """The URI as one would type it, without credentials; a file in the present folder, relative."""
    uri = without_userinfo(tracking_uri)
    here = f"sqlite:///{Path.cwd()}/"
    return f"sqlite:///{uri.removeprefix(here)}" if uri.startswith(here) else uri


def _mlflow() -> str:
    """The command `mlflow` as one can type it here, also where its environment is not activated."""
    if shutil.which("mlflow"):
        return "mlflow"
    beside = Path(sys.executable).with_name("mlflow")
    return str(beside.relative_to(Path.cwd()) if beside.is_relative_to(Path.cwd()) else beside)
