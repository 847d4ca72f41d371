"""The runs of `orbiter-mlflow demo --backend trl`: GRPO on a language model made on the spot.

The model learns sums of two digits from examples of which many are wrong; then GRPO rewards it for
right answers. Nothing is downloaded.
"""

import importlib.util
import os
import random
import warnings
from collections.abc import Mapping
from typing import Any

import click

from orbiter.train import TRLConfig, TRLTrainer
from orbiter_mlflow.cli.demo_model import tiny_agent
from orbiter_mlflow.cli.demo_result import Result, settings_of_run, train_one
from orbiter_mlflow.mixin import MLflowTrainerMixin
from orbiter_mlflow.settings import MLflowSettings

__all__ = ["DemoTRLTrainer", "require_trl", "sums", "train_all"]

LEARNING_RATES = (0.003, 0.001)
_EXAMPLES = 20
_RIGHT = 0.6
"""Share of the examples that are right."""
_SFT_STEPS = 120
_COMPLETIONS = 64
_GROUP = 8
_DELIVERY_TIMEOUT = 60.0
"""Seconds; rollouts take longer than metrics."""


class DemoTRLTrainer(MLflowTrainerMixin, TRLTrainer):
    """The TRL backend, tracked."""


def require_trl() -> None:
    """Require TRL.

    Raises:
        click.ClickException: it is not installed.
    """
    if importlib.util.find_spec("trl") is None:
        raise click.ClickException("this demo needs TRL: pip install 'orbiter[trl]'")


def sums() -> list[dict[str, str]]:
    """Sums of a digit and 0, 1 or 2 that have one digit."""
    return [
        {"prompt": f"{a}+{b}=", "answer": str(a + b)}
        for a in range(10)
        for b in range(3)
        if a + b < 10
    ]


def right(completion: str, row: Mapping[str, Any]) -> float:
    """1 for the right answer and nothing after it."""
    return float(completion == row["answer"])


async def train_all(
    seeds: int, epochs: int, settings: MLflowSettings, code_tags: Mapping[str, str]
) -> list[Result]:
    """Train one run for each learning rate and seed, one after the other."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # else TRL sends telemetry
    _quiet()
    import torch

    torch.set_num_threads(1)  # faster for so small a model
    weights = [await _pretrained(seed) for seed in range(seeds)]
    results = []
    for rate in LEARNING_RATES:
        for seed in range(seeds):
            config = TRLConfig(
                method="grpo",
                epochs=epochs,
                batch_size=_COMPLETIONS,
                num_generations=_GROUP,
                learning_rate=rate,
                max_completion_length=3,
                logging_steps=5,
                seed=seed,
                args={"disable_tqdm": True},
            )
            steps = epochs * len(sums()) // (_COMPLETIONS // _GROUP)
            own = settings_of_run(settings, rate, seed, steps, code_tags)
            trainer = DemoTRLTrainer(config, mlflow=own)

            def check(trainer: DemoTRLTrainer = trainer, seed: int = seed) -> None:
                model, tokenizer = tiny_agent(seed)
                model.load_state_dict(weights[seed])
                trainer.check_agent((model, tokenizer))
                trainer.check_dataset(sums(), sums())
                trainer.check_reward(right)
                trainer.check_config()

            results.append(
                await train_one(
                    trainer,
                    rate,
                    seed,
                    check,
                    lambda found: found.extra["reward"],
                    _DELIVERY_TIMEOUT,
                )
            )
    return results


def _quiet() -> None:
    """No bars for the preparation of small data, nor warnings of names that TRL uses."""
    import datasets

    datasets.disable_progress_bars()
    warnings.filterwarnings("ignore", ".*is deprecated and will be removed", FutureWarning)


async def _pretrained(seed: int) -> dict[str, Any]:
    """The weights of a model that has seen the sums, many of them wrong."""
    chance = random.Random(seed)  # noqa: S311  no secret
    examples = [
        {
            "prompt": row["prompt"],
            "completion": row["answer"] if chance.random() < _RIGHT else str(chance.randrange(10)),
        }
        for _ in range(_EXAMPLES)
        for row in sums()
    ]
    trainer = TRLTrainer(
        TRLConfig(
            max_steps=_SFT_STEPS,
            batch_size=len(sums()),
            learning_rate=0.005,
            seed=seed,
            args={"disable_tqdm": True, "logging_strategy": "no"},
        )
    )
    trainer.check_agent(tiny_agent(seed))
    trainer.check_dataset(examples)
    trainer.mark_validated()
    await trainer.train()
    found: dict[str, Any] = trainer.model.state_dict()
    return found
