"""A backend of your own, tracked in MLflow: `python own_trainer.py`.

The backend does not know MLflow; one line adds the mixin.
"""

import asyncio
import random
from dataclasses import dataclass
from typing import Any

from orbiter.train import TrainConfig, Trainer, TrainerError, TrainMetrics
from orbiter_mlflow import MLflowSettings, MLflowTrainerMixin, load_config

Points = list[tuple[float, float]]


@dataclass(slots=True)
class LineConfig(TrainConfig):
    """Settings of the fit; `extra` takes anything else to keep with the run."""

    epochs: int = 100
    learning_rate: float = 0.5
    betas: tuple[float, float] = (0.0, 1.0)
    seed: int = 0


class LineBackend(Trainer):
    """Fits a line to points by stochastic gradient descent."""

    slope = offset = 0.0
    config: LineConfig

    def check_agent(self, agent: Any = None) -> None: ...

    def check_reward(self, reward_fn: Any = None) -> None: ...

    def check_config(self, config: Any = None) -> None:
        if self.config.learning_rate <= 0:
            raise TrainerError(f"learning_rate={self.config.learning_rate}: must be above 0")

    def check_dataset(self, train_data: Points, test_data: Points | None = None) -> None:
        if not train_data:
            raise TrainerError("there are no points to train on")
        self.train_data, self.test_data = train_data, test_data or train_data

    async def train(self) -> TrainMetrics:
        chance = random.Random(self.config.seed)
        for step in range(self.config.epochs):
            batch = chance.sample(self.train_data, self.config.batch_size)
            errors = [self.slope * x + self.offset - y for x, y in batch]
            rate = self.config.learning_rate / len(batch)
            self.slope -= rate * sum(e * x for e, (x, _) in zip(errors, batch, strict=True))
            self.offset -= rate * sum(errors)
            loss = sum(e * e for e in errors) / len(batch)
            self.report({"loss": loss}, step=step)
        return TrainMetrics(loss=loss, steps=self.config.epochs)

    async def evaluate(self, test_data: Points | None = None) -> TrainMetrics:
        errors = [abs(self.slope * x + self.offset - y) for x, y in test_data or self.test_data]
        hits = sum(error < 0.2 for error in errors)
        return TrainMetrics(accuracy=hits / len(errors), extra={"worst": max(errors)})


class TrackedLine(MLflowTrainerMixin, LineBackend):
    """The backend, tracked."""


async def main() -> None:
    """Train once and load the config back from the run."""
    chance = random.Random(0)
    xs = [chance.uniform(-1, 1) for _ in range(300)]
    points = [(x, 2 * x + 1 + chance.gauss(0, 0.1)) for x in xs]
    config = LineConfig(extra={"data": {"kind": "line", "noise": 0.1}})
    settings = MLflowSettings(experiment="own-trainer", run_name="first")

    trainer = TrackedLine(config, mlflow=settings)
    trainer.check_dataset(points[:100], test_data=points[100:])
    trainer.check_config()
    before = await trainer.evaluate()
    trainer.mark_validated()
    await trainer.train()
    after = await trainer.evaluate()
    run_id = await trainer.wait_run_id()
    print(f"accuracy {before.accuracy:.1%} before, {after.accuracy:.1%} after training")
    if run_id is None:
        print("the run waits in the journal: orbiter-mlflow status")
        return
    print(f"run {run_id}")
    print(f"its config, loaded back, is equal: {load_config(run_id, LineConfig) == config}")


if __name__ == "__main__":
    asyncio.run(main())
