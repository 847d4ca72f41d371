"""A minimal tracked trainer whose training is a function that the caller passes."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.contenders import EXPERIMENT, WARM_UP
from orbiter.train import TrainConfig, Trainer, TrainerState, TrainMetrics
from orbiter_mlflow import MLflowSettings, MLflowTrainerMixin

Body = Callable[["Benchmarked"], Awaitable[None]]


class Backend(Trainer):
    """Trains by running `body`."""

    body: Body

    def check_agent(self, agent: Any) -> None: ...

    def check_dataset(self, train_data: Any, test_data: Any = None) -> None: ...

    def check_reward(self, reward_fn: Any = None) -> None: ...

    def check_config(self, config: Any = None) -> None: ...

    async def train(self) -> TrainMetrics:
        self._require_validated()
        self._state = TrainerState.TRAINING
        assert isinstance(self, Benchmarked)  # noqa: S101  for mypy
        await self.body(self)
        self._state = TrainerState.COMPLETED
        return TrainMetrics(0.5, 0.5, 1)

    async def evaluate(self, test_data: Any = None) -> TrainMetrics:
        return TrainMetrics(0.5, 0.5)


class Benchmarked(MLflowTrainerMixin, Backend):
    """The backend with tracking."""


def benchmarked(uri: str, config: TrainConfig | None = None, **settings: Any) -> Benchmarked:
    """A trainer that logs to `uri`."""
    values = {"tracking_uri": uri, "experiment": EXPERIMENT, "flush_timeout": 3600.0} | settings
    return Benchmarked(config, mlflow=MLflowSettings.model_validate(values))


async def warm_up(trainer: Benchmarked) -> None:
    """Wait until the run exists and has stored a first metric."""
    trainer.report(WARM_UP, step=0)
    await delivered(trainer)


async def delivered(trainer: Benchmarked) -> None:
    """Wait until every record is delivered; `train` itself does not wait for datasets."""
    while not trainer.delivered:  # noqa: ASYNC110  delivery is in another process
        await asyncio.sleep(0.001)


def train(trainer: Benchmarked, body: Body) -> None:
    """Validate and train."""

    async def run() -> None:
        trainer.body = body
        trainer.mark_validated()
        await trainer.train()

    asyncio.run(run())
