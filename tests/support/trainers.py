"""A small tracked backend, and readers for its run in MLflow and its journal."""

import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run

from journals import entries
from orbiter.train import TrainConfig, Trainer, TrainerState, TrainMetrics
from orbiter_mlflow import MLflowSettings, MLflowTrainerMixin
from orbiter_mlflow.delivery.records import Record
from orbiter_mlflow.delivery.spool_folder import default_spool
from orbiter_mlflow.text.packed_tags import unpacked
from waiting import eventually

Body = Callable[["Backend"], Awaitable[TrainMetrics]]


class Backend(Trainer):
    """Written like the existing backends; trains by running `body`."""

    def __init__(self, config: TrainConfig | None = None, body: Body | None = None) -> None:
        super().__init__(config)
        self.body = body
        self.scores = TrainMetrics(loss=0.25, accuracy=0.75)

    def check_agent(self, agent: Any) -> None: ...

    def check_dataset(self, train_data: Any, test_data: Any = None) -> None: ...

    def check_reward(self, reward_fn: Any = None) -> None: ...

    def check_config(self, config: Any = None) -> None:
        if config is not None:
            self._config = config

    async def train(self) -> TrainMetrics:
        self._require_validated()
        self._state = TrainerState.TRAINING
        metrics = TrainMetrics(0.5, 0.5, 3) if self.body is None else await self.body(self)
        self._state = TrainerState.COMPLETED
        return metrics

    async def evaluate(self, test_data: Any = None) -> TrainMetrics:
        return self.scores


class Tracked(MLflowTrainerMixin, Backend):
    """The backend with tracking."""


def tracked(
    uri: str,
    config: TrainConfig | None = None,
    body: Body | None = None,
    kind: type[Tracked] = Tracked,
    **settings: Any,
) -> Tracked:
    """A tracked trainer, in CREATED."""
    return kind(config, body, mlflow=MLflowSettings(tracking_uri=uri, **settings))


def reporting(*reports: tuple[Any, Any], result: TrainMetrics | None = None) -> Body:
    """A body of `train` that reports these metrics at these steps."""

    async def body(trainer: Backend) -> TrainMetrics:
        for metrics, step in reports:
            trainer.report(metrics, step=step)
        return TrainMetrics() if result is None else result

    return body


async def trained(trainer: Tracked) -> Tracked:
    """Validate and train."""
    trainer.mark_validated()
    await trainer.train()
    return trainer


def stored(uri: str, trainer: MLflowTrainerMixin) -> Run:
    """The run in MLflow, once every record is delivered."""
    eventually(lambda: trainer.delivered)
    return run_of(uri, trainer.run_id)


def wait_for_provenance() -> None:
    """Wait until the provenance threads of this process have ended."""
    name = "orbiter-provenance"
    eventually(lambda: all(thread.name != name for thread in threading.enumerate()))


def run_of(uri: str, run_id: str | None) -> Run:
    assert run_id is not None
    return MlflowClient(uri).get_run(run_id)


def tags_of(run: Run) -> dict[str, str]:
    """The tags of a run, each under its own name."""
    return unpacked(run.data.tags)


def history(uri: str, trainer: MLflowTrainerMixin, key: str) -> list[tuple[int, float]]:
    """Step and value of each point of a metric, by step and time."""
    found = MlflowClient(uri).get_metric_history(stored(uri, trainer).info.run_id, key)
    ordered = sorted(found, key=lambda metric: (metric.step, metric.timestamp))
    return [(metric.step, metric.value) for metric in ordered]


def journals() -> list[Path]:
    """The journals in the spool of the current test."""
    return sorted(default_spool().glob("*.jsonl"))


def only_journal() -> Path:
    (journal,) = journals()
    return journal


def recorded(kind: type[Record]) -> list[Any]:
    """The records of one kind in the only journal of the current test."""
    return [record for record in entries(only_journal()) if isinstance(record, kind)]
