"""`orbiter-mlflow demo`: two learning rates and some seeds, trained on real images, tracked.

What it does is what a user does: a backend, the mixin, `evaluate`, `train`, `evaluate`.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from orbiter.train.policy_gradient.trainer import (
    PolicyGradientConfig,
    PolicyGradientTrainer,
    SoftmaxPolicy,
)
from orbiter_mlflow.mixin import MLflowTrainerMixin
from orbiter_mlflow.settings import MLflowSettings
from orbiter_mlflow.text.escaping import in_shell
from orbiter_mlflow.ui.pages import installed, say_pages, typed

LEARNING_RATES = (0.5, 0.1)
_POLL, _LOOKS = 0.02, 250
"""Seconds between looks, and how many, before the table says that something of a run waits."""
ACTIONS = 10

Data = tuple[Any, Any]


class DemoTrainer(MLflowTrainerMixin, PolicyGradientTrainer):
    """The reference backend, tracked."""


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
        f"tested on {len(test_data[0])} others; tracked in {typed(settings.tracking_uri)}",
        soft_wrap=True,
        markup=False,
    )
    results = asyncio.run(_run_all(configs, train_data, test_data, settings))
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
) -> list[Result]:
    results = []
    for config in configs:
        batches = -(-len(train_data[0]) // config.batch_size)
        name = f"learning_rate={config.learning_rate} seed={config.seed}"
        own = {"run_name": name, "progress": config.epochs * batches}
        trainer = DemoTrainer(config, mlflow=settings.model_copy(update=own))
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
    seconds = time.monotonic() - start
    delivered = run_id is not None and await _delivered(trainer)
    return Result(
        run_id=run_id,
        config=config,
        before=before.accuracy,
        after=after.accuracy,
        loss=after.loss,
        seconds=seconds,
        status="FINISHED" if delivered else "waits in the journal",
    )


async def _delivered(trainer: DemoTrainer) -> bool:
    """Whether all is in the store; artifacts follow the metrics that `train` waits for."""
    for _ in range(_LOOKS):
        if trainer.delivered:
            return True
        await asyncio.sleep(_POLL)
    return False


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
    from orbiter_mlflow.runs.store import RunStore

    uri = settings.tracking_uri
    ranked = sorted(results, key=lambda result: result.after, reverse=True)
    best, *_, worst = (result.run_id or "" for result in ranked)
    store = RunStore(uri)

    def command(*words: str) -> str:
        given = (installed("orbiter-mlflow"), *words, "--tracking-uri", typed(uri))
        return " ".join(map(in_shell, given))

    say_pages(console, store, store.get(best).experiment_id)
    console.print(
        f"\nThe config of the best run ({ranked[0].after:.1%}):\n  {command('reproduce', best)}\n"
        f"\nCompare it with the worst run:\n  {command('diff', worst, best)}",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )
