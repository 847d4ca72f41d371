"""`Sweep.objective` in real Optuna studies."""

import asyncio
from typing import Any

import optuna
import pytest
from mlflow import MlflowClient

from orbiter.train import TrainConfig, TrainerError, TrainMetrics
from orbiter_mlflow import MLflowSettings, Sweep, SweepError, names
from sweeps import children, counts, parent_of
from trainers import Backend, Tracked
from waiting import eventually

optuna.logging.set_verbosity(optuna.logging.WARNING)


class TrialTrainer(Tracked):
    """Its loss is its learning rate, and its accuracy the rest to 1; prunes as its trial says."""

    trial: optuna.Trial

    def report(self, metrics: Any, *, step: int, **where: Any) -> None:
        super().report(metrics, step=step, **where)
        self.trial.report(metrics["loss"], step)
        if self.trial.should_prune():
            raise optuna.TrialPruned


def make(trial: optuna.Trial, settings: MLflowSettings) -> TrialTrainer:
    rate = trial.suggest_float("learning_rate", 0.0, 1.0)

    async def body(trainer: Backend) -> TrainMetrics:
        if rate == 1.0:
            raise RuntimeError("diverged")
        for step in range(3):
            trainer.report({"loss": rate}, step=step)
        return TrainMetrics(loss=rate)

    trainer = TrialTrainer(TrainConfig(learning_rate=rate), body, mlflow=settings)
    trainer.trial = trial
    trainer.scores = TrainMetrics(accuracy=1.0 - rate, extra={"pass": {"top": rate / 2}})
    return trainer


def study_of(*rates: float, direction: Any = "minimize") -> optuna.Study:
    study = optuna.create_study(
        direction=direction, pruner=optuna.pruners.ThresholdPruner(upper=0.9)
    )
    for rate in rates:
        study.enqueue_trial({"learning_rate": rate})
    return study


def scan(uri: str, **settings: Any) -> MLflowSettings:
    return MLflowSettings(tracking_uri=uri, experiment="study", **settings)


def test_each_trial_is_a_child_and_pruned_ones_are_counted(sqlite_uri: str) -> None:
    study = study_of(0.25, 0.95, 0.125, 1.0)
    with Sweep("study", scan(sqlite_uri), metric="train/loss", direction="lower") as sweep:
        study.optimize(sweep.objective(make), n_trials=4, catch=[TrainerError])
    states = [trial.state.name for trial in study.trials]
    assert states == ["COMPLETE", "PRUNED", "COMPLETE", "FAIL"]
    parent = parent_of(sqlite_uri, sweep)
    assert counts(parent) == {"FAILED": 1, "FINISHED": 2, "KILLED": 1}
    nested = eventually(lambda: found if len(found := children(sqlite_uri, parent)) == 4 else None)
    assert {run.info.run_name for run in nested.values()} == {f"trial-{n}" for n in range(4)}
    best = nested["0.125"]
    assert study.best_value == float(parent.data.tags[names.SWEEP_BEST_VALUE]) == 0.125
    assert parent.data.tags[names.SWEEP_BEST] == best.info.run_id
    pruned = MlflowClient(sqlite_uri).get_run(nested["0.95"].info.run_id)
    assert pruned.data.tags[names.ENDED_BY] == "optuna.exceptions.TrialPruned"


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize(
    ("metric", "direction", "value"),
    [
        ("eval/accuracy", "higher", 0.75),
        ("eval/pass/top", "lower", 0.125),
        ("train/final/loss", "lower", 0.25),
    ],
)
def test_the_value_of_a_trial_is_the_metric_of_its_run(
    enabled: bool, metric: str, direction: Any, value: float, sqlite_uri: str
) -> None:
    study = study_of(0.25, direction="maximize" if direction == "higher" else "minimize")
    settings = scan(sqlite_uri, enabled=enabled, flush_timeout=0)
    with Sweep("study", settings, metric=metric, direction=direction) as sweep:
        study.optimize(sweep.objective(make), n_trials=1)
    assert study.best_value == value


def test_trials_in_several_threads_are_told_apart(sqlite_uri: str) -> None:
    study = study_of(0.1, 0.2, 0.3, 0.4)
    with Sweep("study", scan(sqlite_uri), metric="train/loss", direction="lower") as sweep:
        study.optimize(sweep.objective(make), n_trials=4, n_jobs=4)
    assert {trial.params["learning_rate"]: trial.value for trial in study.trials} == {
        rate: rate for rate in (0.1, 0.2, 0.3, 0.4)
    }
    assert counts(parent_of(sqlite_uri, sweep)) == {"FINISHED": 4}


def test_a_study_that_does_not_fit_the_sweep_is_refused(sqlite_uri: str) -> None:
    with Sweep("study", scan(sqlite_uri)) as sweep, pytest.raises(SweepError, match="a direction"):
        sweep.objective(make)
    with Sweep("s", scan(sqlite_uri), metric="train/loss", direction="lower") as sweep:
        study = study_of(0.25, direction="maximize")
        with pytest.raises(SweepError, match="create it with direction='minimize'"):
            study.optimize(sweep.objective(make), n_trials=1)
    with Sweep("s", scan(sqlite_uri), metric="train/los", direction="lower") as sweep:
        with pytest.raises(SweepError, match="trial 0 has no metric 'train/los'"):
            study_of(0.25).optimize(sweep.objective(make), n_trials=1)
        assert sweep.counts() == {"FINISHED": 1}


def test_a_study_in_the_event_loop_is_refused_and_one_beside_it_runs(sqlite_uri: str) -> None:
    async def run() -> float:
        settings = scan(sqlite_uri)
        async with Sweep("s", settings, metric="train/loss", direction="lower") as sweep:
            study = study_of(0.25)
            with pytest.raises(SweepError, match=r"asyncio\.to_thread"):
                study.optimize(sweep.objective(make), n_trials=1)
            study = study_of(0.25)
            await asyncio.to_thread(study.optimize, sweep.objective(make), n_trials=1)
            return study.best_value

    assert asyncio.run(run()) == 0.25
