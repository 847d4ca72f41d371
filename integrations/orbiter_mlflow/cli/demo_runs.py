"""The runs of `orbiter-mlflow demo`: two learning rates and some seeds, trained on real images.

It does what a user does: a backend, the mixin, `evaluate`, `train`, `evaluate`.
"""

from collections.abc import Mapping
from typing import Any

import click

from orbiter.train.policy_gradient.trainer import (
    PolicyGradientConfig,
    PolicyGradientTrainer,
    SoftmaxPolicy,
)
from orbiter_mlflow.cli.demo_result import Result, settings_of_run, train_one
from orbiter_mlflow.mixin import MLflowTrainerMixin
from orbiter_mlflow.settings import MLflowSettings

__all__ = ["Data", "DemoTrainer", "demo_configs", "load_digits", "train_all"]

LEARNING_RATES = (0.5, 0.1)
ACTIONS = 10
_DELIVERY_TIMEOUT = 5.0

Data = tuple[Any, Any]


class DemoTrainer(MLflowTrainerMixin, PolicyGradientTrainer):
    """The reference backend, tracked."""


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
        rate, seed = config.learning_rate, config.seed
        batches = -(-len(train_data[0]) // config.batch_size)
        own = settings_of_run(settings, rate, seed, config.epochs * batches, code_tags)
        trainer = DemoTrainer(config, mlflow=own)

        def check(trainer: DemoTrainer = trainer) -> None:
            trainer.check_agent(SoftmaxPolicy(train_data[0].shape[1], ACTIONS))
            trainer.check_dataset(train_data, test_data)
            trainer.check_reward()
            trainer.check_config()

        results.append(
            await train_one(
                trainer, rate, seed, check, lambda found: found.accuracy, _DELIVERY_TIMEOUT
            )
        )
    return results
