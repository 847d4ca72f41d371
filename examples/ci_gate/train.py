"""Train the candidates of a change, one tracked run per seed: `python train.py [ATTEMPT]`."""

import asyncio
import os
import random
import sys
from typing import Any

from orbiter.train import TrainConfig, Trainer, TrainMetrics
from orbiter_mlflow import MLflowSettings, MLflowTrainerMixin

SEEDS = range(3)


class Line(MLflowTrainerMixin, Trainer):
    """Fits a line to points. Replace it by your trainer."""

    slope = offset = 0.0

    def check_agent(self, agent: Any = None) -> None: ...
    def check_reward(self, reward_fn: Any = None) -> None: ...
    def check_config(self, config: Any = None) -> None: ...

    def check_dataset(self, train_data: Any, test_data: Any = None) -> None:
        self.train_data, self.test_data = train_data, test_data

    async def train(self) -> TrainMetrics:
        chance = random.Random(self.config.extra["seed"])
        for step in range(self.config.epochs):
            x, y = chance.choice(self.train_data)
            error = self.slope * x + self.offset - y
            self.slope -= self.config.learning_rate * error * x
            self.offset -= self.config.learning_rate * error
            self.report({"loss": error * error}, step=step)
        return TrainMetrics(steps=self.config.epochs)

    async def evaluate(self, test_data: Any = None) -> TrainMetrics:
        errors = [abs(self.slope * x + self.offset - y) for x, y in self.test_data]
        return TrainMetrics(accuracy=sum(error < 0.2 for error in errors) / len(errors))


def points(seed: int, count: int) -> list[tuple[float, float]]:
    """Points near the line y = 2x + 1."""
    chance = random.Random(seed)
    xs = [chance.uniform(-1, 1) for _ in range(count)]
    return [(x, 2 * x + 1 + chance.gauss(0, 0.1)) for x in xs]


async def main(attempt: str) -> None:
    """Train all seeds concurrently."""
    rate = float(os.environ.get("LEARNING_RATE", "0.5"))

    async def one(seed: int) -> None:
        config = TrainConfig(epochs=300, learning_rate=rate, extra={"seed": seed})
        settings = MLflowSettings(
            experiment="gate", run_name=f"{attempt}-{seed}", tags={"attempt": attempt}
        )
        trainer = Line(config, mlflow=settings)
        trainer.check_dataset(points(0, 100), test_data=points(1, 200))
        trainer.mark_validated()
        await trainer.train()
        score = await trainer.evaluate()
        print(f"{attempt}-{seed}: accuracy {score.accuracy:.1%}")

    await asyncio.gather(*map(one, SEEDS))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "candidate"))
