"""Train without a server and deliver later: `python offline_then_sync.py`.

On a cluster the first half is the job; the second runs on a machine that can reach the server.
"""

import asyncio
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

from orbiter.train import TrainConfig, Trainer, TrainMetrics
from orbiter_mlflow import MLflowSettings, MLflowTrainerMixin

SPOOL = Path("spool")
STORE = "sqlite:///mlflow.db"


class Walk(MLflowTrainerMixin, Trainer):
    """Reports a random walk in place of a training."""

    def check_agent(self, agent: Any = None) -> None: ...
    def check_dataset(self, train_data: Any, test_data: Any = None) -> None: ...
    def check_reward(self, reward_fn: Any = None) -> None: ...
    def check_config(self, config: Any = None) -> None: ...

    async def train(self) -> TrainMetrics:
        chance, loss = random.Random(self.config.extra["seed"]), 1.0
        for step in range(1000):
            loss = abs(loss + chance.gauss(-0.001, 0.01))
            self.report({"loss": loss}, step=step)
        return TrainMetrics(loss=loss, steps=1000)

    async def evaluate(self, test_data: Any = None) -> TrainMetrics:
        return TrainMetrics()


def orbiter_mlflow(*arguments: str) -> None:
    """Run the command as typed in a shell."""
    print("$ orbiter-mlflow", *arguments, flush=True)
    subprocess.run([sys.executable, "-m", "orbiter_mlflow", *arguments], check=True)


def main() -> None:
    """Train twice offline, then deliver."""
    for seed in range(2):
        settings = MLflowSettings(
            experiment="offline",
            run_name=f"walk-{seed}",
            delivery="offline",
            spool_dir=SPOOL,
            tracking_uri="http://mlflow.example.org",  # not contacted
        )
        trainer = Walk(TrainConfig(extra={"seed": seed}), mlflow=settings)
        trainer.mark_validated()
        result = asyncio.run(trainer.train())
        print(f"walk-{seed}: loss {result.loss:.3f}, written to {SPOOL}/", flush=True)
        del trainer  # ends its run, as the end of the process would

    orbiter_mlflow("status", str(SPOOL))
    orbiter_mlflow("sync", str(SPOOL), "--tracking-uri", STORE)


if __name__ == "__main__":
    main()
