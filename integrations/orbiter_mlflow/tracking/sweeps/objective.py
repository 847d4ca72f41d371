"""An Optuna objective whose trials are the children of a sweep."""

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from orbiter.train import Trainer, TrainerState, TrainMetrics
from orbiter_mlflow import names
from orbiter_mlflow.errors import SweepError
from orbiter_mlflow.settings import MLflowSettings
from orbiter_mlflow.tracking.sweeps.summary import Ranking

if TYPE_CHECKING:
    from optuna import Trial

__all__ = ["MakeTrainer", "objective"]

MakeTrainer = Callable[["Trial", MLflowSettings], Trainer]
"""Makes the trainer of a trial, with the settings that its run is to have."""


def objective(
    make: MakeTrainer,
    ranking: Ranking,
    settings: Callable[[str], MLflowSettings],
    noted: Callable[[MLflowSettings], float | None],
) -> Callable[["Trial"], float]:
    """The objective; see `Sweep.objective`.

    Args:
        make: makes the trainer of a trial.
        ranking: the metric, and which values are better.
        settings: gives a child its settings, by the name of its run.
        noted: the metric that the child with these settings has noted; None without one.
    """

    def run(trial: "Trial") -> float:
        _require_direction(trial, ranking)
        given = settings(f"trial-{trial.number}")
        value = asyncio.run(_trained(make(trial, given), ranking.metric, lambda: noted(given)))
        if value is None:
            raise SweepError(
                f"trial {trial.number} has no metric {ranking.metric!r}: name one that its trainer "
                "reports or returns, by its key in MLflow"
            )
        return value

    return run


async def _trained(
    trainer: Trainer, metric: str, noted: Callable[[], float | None]
) -> float | None:
    """Train, evaluate if the metric needs it, and return the metric."""
    if trainer.state is TrainerState.CREATED:
        trainer.mark_validated()
    result = await trainer.train()
    value = noted()
    if value is None and names.is_eval_key(metric):
        result = await trainer.evaluate()
        value = noted()
    return _returned(result, metric) if value is None else value


def _returned(result: object, metric: str) -> float | None:
    """The metric by the result alone, for a trainer that is not tracked."""
    for prefix in (f"{names.EVAL}/", f"{names.TRAIN}/{names.FINAL}/", f"{names.TRAIN}/"):
        if metric.startswith(prefix):
            path = metric.removeprefix(prefix).split("/")
            break
    else:
        return None
    found: Any = result
    if isinstance(result, TrainMetrics):
        found = result.extra | {"loss": result.loss, "accuracy": result.accuracy}
    for part in path:
        found = found.get(part) if isinstance(found, Mapping) else None
    return None if found is None else float(found)


def _require_direction(trial: "Trial", ranking: Ranking) -> None:
    """Require that the study looks for the values that the sweep calls better.

    Raises:
        SweepError: it does not, or there is an event loop that a trial would block.
    """
    from optuna.study import StudyDirection

    expected = StudyDirection.MAXIMIZE if ranking.direction == "higher" else StudyDirection.MINIMIZE
    directions = trial.study.directions
    if directions != [expected]:
        raise SweepError(
            f"the sweep ranks by {ranking.metric!r}, {ranking.direction} is better, but the study "
            f"has {', '.join(one.name for one in directions)}: create it with "
            f"direction={expected.name.lower()!r}"
        )
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise SweepError(
        "the study would block the event loop: write `with` instead of `async with`, outside the "
        "loop, or await asyncio.to_thread(study.optimize, ...)"
    )
