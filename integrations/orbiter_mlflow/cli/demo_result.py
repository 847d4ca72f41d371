"""One run of `orbiter-mlflow demo`: score before, training, score after, delivery."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from orbiter.train.trainer import TrainMetrics
from orbiter_mlflow import names
from orbiter_mlflow.mixin import MLflowTrainerMixin
from orbiter_mlflow.settings import MLflowSettings

__all__ = ["Result", "settings_of_run", "train_one"]

_POLL_INTERVAL = 0.02
_CODE_TAGS = (names.GIT_COMMIT, names.GIT_BRANCH, names.GIT_REPO_URL)


@dataclass(frozen=True)
class Result:
    """The result of one run; accuracies and loss are those on the test data."""

    run_id: str | None
    learning_rate: float
    seed: int
    before: float
    after: float
    loss: float
    seconds: float
    delivered: bool


def settings_of_run(
    settings: MLflowSettings,
    learning_rate: float,
    seed: int,
    steps: int,
    code_tags: Mapping[str, str],
) -> MLflowSettings:
    """The settings of one run.

    Args:
        settings: those of all runs, without a run id.
        steps: of its training, for the progress bar.
        code_tags: git tags of the demo's own code. The repository of the working folder, which
            provenance would find, is not the demo's.
    """
    code = {tag: code_tags[tag] for tag in _CODE_TAGS if tag in code_tags}
    own = {
        "run_name": f"learning_rate={learning_rate} seed={seed}",
        "progress": steps,
        "tags": {**settings.tags, **code},
        "skip_provenance": (*settings.skip_provenance, "git"),
    }
    return settings.model_copy(update=own)


async def train_one(
    trainer: MLflowTrainerMixin,
    learning_rate: float,
    seed: int,
    check: Callable[[], None],
    accuracy: Callable[[TrainMetrics], float],
    delivery_timeout: float,
) -> Result:
    """Check, evaluate, train, evaluate.

    Args:
        check: calls the trainer's checks.
        accuracy: the accuracy in the metrics of an evaluation.
        delivery_timeout: seconds to wait, after `train` has, for what is delivered last: artifacts
            and rollouts.
    """
    start = time.monotonic()
    check()
    before = await trainer.evaluate()
    trainer.mark_validated()
    await trainer.train()
    after = await trainer.evaluate()
    run_id = await trainer.wait_run_id()
    seconds = time.monotonic() - start
    delivered = run_id is not None and await _wait_delivered(trainer, delivery_timeout)
    return Result(
        run_id,
        learning_rate,
        seed,
        accuracy(before),
        accuracy(after),
        after.loss,
        seconds,
        delivered,
    )


async def _wait_delivered(trainer: MLflowTrainerMixin, at_most: float) -> bool:
    deadline = time.monotonic() + at_most
    while not trainer.delivered:
        if time.monotonic() >= deadline:
            return False
        await asyncio.sleep(_POLL_INTERVAL)
    return True
