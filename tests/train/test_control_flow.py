"""Exceptions that stop a training on purpose: they pass unchanged, and the run ends KILLED."""

import asyncio
import sys
import types
import unittest
from typing import Any, Literal

import pytest

from lifecycle_recorder import Recorder, raising
from orbiter.train import TrainConfig, TrainerError, TrainerState, TrainMetrics
from orbiter_mlflow import names
from trainers import Backend, Tracked, run_of, stored, tracked
from waiting import eventually

Phase = Literal["train", "evaluate"]


class PreemptedError(Exception):
    """An exception of a cluster's own code."""


class Preemptible(Recorder):
    passes_through = (PreemptedError,)

    async def evaluate(self, test_data: Any = None) -> TrainMetrics:
        raise test_data


def of_framework(module: str, name: str) -> type[Exception]:
    """An exception class with the name it has in the framework."""
    return type(name, (Exception,), {"__module__": module})


@pytest.mark.parametrize("phase", ["train", "evaluate"])
@pytest.mark.parametrize(
    "error",
    [
        PreemptedError("node goes down"),
        type("OfOurOwn", (PreemptedError,), {})(),
        unittest.SkipTest("no GPU"),
        of_framework("optuna.exceptions", "TrialPruned")(),
        of_framework("distributed.exceptions", "Reschedule")(),
        type("Retry", (of_framework("celery.exceptions", "TaskPredicate"),), {})(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_control_flow_exceptions_pass_unchanged(phase: Phase, error: Exception) -> None:
    trainer = Preemptible(raising(error))
    trainer.mark_validated()
    with pytest.raises(type(error)) as caught:
        await (trainer.train() if phase == "train" else trainer.evaluate(error))
    assert caught.value is error
    assert caught.value.__cause__ is None
    assert trainer.state is (TrainerState.FAILED if phase == "train" else TrainerState.VALIDATED)
    assert trainer.events_of("error") == [("error", phase, error)]


async def test_only_a_class_that_declares_an_exception_lets_it_through() -> None:
    class Heir(Preemptible):
        """Inherits the declaration."""

    for kind, expected in ((Recorder, TrainerError), (Heir, PreemptedError)):
        trainer = kind(raising(PreemptedError()))
        trainer.mark_validated()
        with pytest.raises(expected):
            await trainer.train()


@pytest.mark.parametrize("wrong", [PreemptedError, [PreemptedError], ("Preempted",), (int,), None])
def test_passes_through_must_be_a_tuple_of_exceptions(wrong: object) -> None:
    with pytest.raises(TypeError, match=r"Odd\.passes_through must be a tuple of exception"):
        type("Odd", (Recorder,), {"passes_through": wrong, "__module__": __name__})


def test_no_framework_is_imported() -> None:
    assert not {"celery", "distributed"} & set(sys.modules)
    assert isinstance(sys.modules["orbiter.train._control_flow"], types.ModuleType)


# -- the run ---------------------------------------------------------------------------------------


async def test_a_run_stopped_on_purpose_is_killed_and_names_the_exception(sqlite_uri: str) -> None:
    class Stopping(Tracked):
        passes_through = (PreemptedError,)

    async def body(trainer: Backend) -> TrainMetrics:
        trainer.report({"loss": 1.0}, step=1)
        raise PreemptedError("node goes down")

    trainer = tracked(sqlite_uri, body=body, kind=Stopping)
    trainer.mark_validated()
    with pytest.raises(PreemptedError):
        await trainer.train()
    run = stored(sqlite_uri, trainer)
    assert run.info.status == "KILLED"
    assert run.data.metrics == {"train/loss": 1.0}
    tags = run.data.tags
    assert tags[names.STATE] == "failed"
    assert tags[names.ENDED_BY] == f"{__name__}.PreemptedError"
    assert tags[names.ERROR_TYPE] == "PreemptedError"
    assert tags[names.ERROR_PHASE] == "train"
    assert (
        "**Stopped:** train ended with `PreemptedError`: node goes down" in tags[names.DESCRIPTION]
    )


def test_an_evaluate_only_run_stopped_on_purpose_is_killed(sqlite_uri: str) -> None:
    class Stopping(Tracked):
        passes_through = (PreemptedError,)

        async def evaluate(self, test_data: Any = None) -> TrainMetrics:
            raise PreemptedError

    trainer = tracked(sqlite_uri, kind=Stopping)
    with pytest.raises(PreemptedError):
        asyncio.run(trainer.evaluate())
    run_id = trainer.run_id
    del trainer
    eventually(lambda: run_of(sqlite_uri, run_id).info.status == "KILLED")


def test_an_optuna_study_continues_after_pruned_trials(sqlite_uri: str) -> None:
    optuna = pytest.importorskip("optuna", reason="comes with the dev extra")
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def objective(trial: Any) -> float:
        rate = trial.suggest_float("rate", 0.0, 1.0)

        async def body(trainer: Backend) -> TrainMetrics:
            for step in range(3):
                trainer.report({"loss": rate}, step=step)
                trial.report(rate, step)
                if trial.should_prune():
                    raise optuna.TrialPruned
            return TrainMetrics(loss=rate)

        trainer = tracked(sqlite_uri, TrainConfig(learning_rate=rate), body, experiment="study")
        trainer.mark_validated()
        return asyncio.run(trainer.train()).loss

    study = optuna.create_study(pruner=optuna.pruners.ThresholdPruner(upper=0.5))
    for rate in (0.25, 0.75, 0.125):
        study.enqueue_trial({"rate": rate})
    study.optimize(objective, n_trials=3)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "PRUNED", "COMPLETE"]

    from mlflow import MlflowClient

    client = MlflowClient(sqlite_uri)

    def ended() -> dict[str, str]:
        experiment = client.get_experiment_by_name("study")
        runs = client.search_runs([experiment.experiment_id]) if experiment else []
        return {run.data.params["learning_rate"]: run.info.status for run in runs}

    eventually(lambda: ended() == {"0.25": "FINISHED", "0.75": "KILLED", "0.125": "FINISHED"})
    found = client.search_runs(
        [client.get_experiment_by_name("study").experiment_id],
        "tags.`orbiter.ended_by` = 'optuna.exceptions.TrialPruned'",
    )
    assert [run.data.params["learning_rate"] for run in found] == ["0.75"]
