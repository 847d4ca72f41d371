"""The runs of `orbiter-mlflow demo`: two learning rates and some seeds, trained on real images.

It does what a user does: a backend, the mixin, `evaluate`, `train`, `evaluate`.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click

from orbiter.train.policy_gradient.trainer import (
    PolicyGradientConfig,
    PolicyGradientTrainer,
    SoftmaxPolicy,
)
from orbiter_mlflow import names
from orbiter_mlflow.mixin import MLflowTrainerMixin
from orbiter_mlflow.settings import MLflowSettings

__all__ = ["Data", "DemoTrainer", "Result", "demo_configs", "load_digits", "train_all"]

LEARNING_RATES = (0.5, 0.1)
ACTIONS = 10
_DELIVERY_TIMEOUT = 5.0
"""Seconds to wait, after `train` has, for what is delivered last: artifacts."""
_POLL_INTERVAL = 0.02
_CODE_TAGS = (names.GIT_COMMIT, names.GIT_BRANCH, names.GIT_REPO_URL)

Data = tuple[Any, Any]


class DemoTrainer(MLflowTrainerMixin, PolicyGradientTrainer):
    """The reference backend, tracked."""


@dataclass(frozen=True)
class Result:
    """The result of one run; accuracies and loss are those on the held-out images."""

    run_id: str | None
    config: PolicyGradientConfig
    before: float
    after: float
    loss: float
    seconds: float
    delivered: bool


def load_digits() -> tuple[Data, Data]:
    """Split scikit-learn's 1,797 images of digits, 8 x 8 and scaled to [0, 1]: 80% for training."""
    try:
        from sklearn import datasets
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise click.ClickException(
            "the demo's images come with scikit-learn: pip install 'orbiter[demo]'"
        ) from error
    images, labels = datasets.load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(
        images / 16.0, labels, test_size=0.2, random_state=0, stratify=labels
    )
    return (x_train, y_train), (x_test, y_test)


def demo_configs(seeds: int, epochs: int) -> list[PolicyGradientConfig]:
    """One config for each learning rate and seed."""
    return [
        PolicyGradientConfig(epochs=epochs, learning_rate=rate, seed=seed)
        for rate in LEARNING_RATES
        for seed in range(seeds)
    ]


async def train_all(
    configs: list[PolicyGradientConfig],
    train_data: Data,
    test_data: Data,
    settings: MLflowSettings,
    code_tags: Mapping[str, str],
) -> list[Result]:
    """Train one run for each config, one after the other.

    Args:
        settings: the settings of all runs, without a run id.
        code_tags: git tags of the demo's own code. The repository of the working folder, which
            provenance would find, is not the demo's.
    """
    results = []
    for config in configs:
        batches = -(-len(train_data[0]) // config.batch_size)
        own = {
            "run_name": f"learning_rate={config.learning_rate} seed={config.seed}",
            "progress": config.epochs * batches,
            "tags": {
                **settings.tags,
                **{tag: code_tags[tag] for tag in _CODE_TAGS if tag in code_tags},
            },
            "skip_provenance": (*settings.skip_provenance, "git"),
        }
        trainer = DemoTrainer(config, mlflow=settings.model_copy(update=own))
        results.append(await _train_one(trainer, config, train_data, test_data))
    return results


async def _train_one(
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
    delivered = run_id is not None and await _wait_delivered(trainer)
    return Result(run_id, config, before.accuracy, after.accuracy, after.loss, seconds, delivered)


async def _wait_delivered(trainer: DemoTrainer) -> bool:
    deadline = time.monotonic() + _DELIVERY_TIMEOUT
    while not trainer.delivered:
        if time.monotonic() >= deadline:
            return False
        await asyncio.sleep(_POLL_INTERVAL)
    return True
