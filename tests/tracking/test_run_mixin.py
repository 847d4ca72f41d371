"""The mixin in classes as people write them: bases, `__init__`, copies, ranks, several at once."""

import asyncio
import copy
import gc
import logging
import pickle
import subprocess
import sys
from typing import Any

import pytest
from mlflow import MlflowClient
from pydantic import ValidationError

from orbiter.train import TrainConfig, Trainer, TrainMetrics
from orbiter_mlflow import MLflowSettings, MLflowTrainerMixin, config_to_params, names
from trainers import (
    Backend,
    Tracked,
    history,
    journals,
    reporting,
    stored,
    tags_of,
    tracked,
    trained,
)
from waiting import eventually


class Checks(Trainer):
    """All but `train` and `evaluate`."""

    def check_agent(self, agent: Any) -> None: ...

    def check_dataset(self, train_data: Any, test_data: Any = None) -> None: ...

    def check_reward(self, reward_fn: Any = None) -> None: ...

    def check_config(self, config: Any = None) -> None: ...

    async def evaluate(self, test_data: Any = None) -> TrainMetrics:
        return TrainMetrics()


class MixinLast(Backend, MLflowTrainerMixin):
    """Settings by keyword do not reach the mixin here; all others do."""


class OwnBody(MLflowTrainerMixin, Checks):
    async def train(self) -> TrainMetrics:
        self.report({"loss": 1.0}, step=1)
        return TrainMetrics(steps=2)


class Grandchild(OwnBody):
    async def train(self) -> TrainMetrics:
        self.report({"loss": 2.0}, step=0)
        return await super().train()


class OwnInit(MLflowTrainerMixin, Backend):
    __slots__ = ("rank",)

    def __init__(self, rank: int, *, config: TrainConfig | None = None) -> None:
        super().__init__(config)
        self.rank = rank


class NoSuperInit(MLflowTrainerMixin, Backend):
    def __init__(self, config: TrainConfig) -> None:
        self._config = config
        self.body = None
        self.scores = TrainMetrics()


class Plain(Checks):
    def __init__(self) -> None:
        self.weight = 0.5

    async def train(self) -> TrainMetrics:
        return TrainMetrics(loss=self.weight)


class MixinNeverReached(Plain, MLflowTrainerMixin): ...


class MixinFirst(MLflowTrainerMixin, Plain): ...


@pytest.mark.parametrize(
    ("kind", "arguments", "points"),
    [
        (Tracked, (TrainConfig(epochs=4),), 1),
        (MixinLast, (TrainConfig(epochs=4),), 1),
        (OwnBody, (TrainConfig(epochs=4),), 1),
        (Grandchild, (TrainConfig(epochs=4),), 2),
        (OwnInit, (16,), 1),
        (NoSuperInit, (TrainConfig(epochs=4),), 1),
        (MixinNeverReached, (), 1),
        (MixinFirst, (), 1),
    ],
)
async def test_a_class_with_the_mixin_is_tracked(
    kind: Any,
    arguments: tuple[Any, ...],
    points: int,
    sqlite_uri: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", sqlite_uri)
    trainer = kind(*arguments)
    await trainer.evaluate()
    trainer.mark_validated()
    await trainer.train()
    run = stored(sqlite_uri, trainer)
    assert run.info.status == "FINISHED"
    assert run.data.params == config_to_params(trainer.config)
    assert tags_of(run)[names.TRAINER] == f"{kind.__module__}:{kind.__qualname__}"
    assert len(history(sqlite_uri, trainer, "train/loss")) == points


async def test_settings_come_from_keyword_class_and_environment(
    sqlite_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Set(Tracked):
        mlflow_settings = MLflowSettings(tracking_uri=sqlite_uri, run_name="of the class")

    monkeypatch.setenv("ORBITER_MLFLOW_DESCRIPTION", "of the environment")
    trainer = Set(mlflow=MLflowSettings(tags={"of": "the keyword"}))
    trainer.mark_validated()
    run = stored(sqlite_uri, trainer)
    assert run.info.run_name == "of the class"
    assert tags_of(run)["of"] == "the keyword"
    assert tags_of(run)[names.DESCRIPTION].startswith("of the environment\n")


# -- wrong settings ------------------------------------------------------------------------------


def test_a_wrong_environment_is_told_when_the_trainer_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ORBITER_MLFLOW_FLUSH_TIMEOUT", "soon")
    with pytest.raises(ValidationError, match="flush_timeout"):
        Tracked()


async def test_where_it_is_too_late_for_that_training_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ORBITER_MLFLOW_FLUSH_TIMEOUT", "soon")
    trainer = MixinNeverReached()
    await trainer.evaluate()
    trainer.mark_validated()
    assert (await trainer.train()).loss == 0.5
    (record,) = caplog.records
    assert "flush_timeout" in record.getMessage()
    assert trainer.run_id is None
    assert journals() == []


# -- not tracked ---------------------------------------------------------------------------------


async def test_switched_off(sqlite_uri: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    trainer = tracked(sqlite_uri, body=reporting(({"loss": 1.0}, 1)), enabled=False)
    trainer.check_dataset([1])
    trainer.set_tag("a", "b")
    trainer.log_artifact("nowhere")
    await trainer.evaluate()
    await trained(trainer)
    assert trainer.run_id is None
    assert await trainer.wait_run_id() is None
    assert not trainer.delivered
    assert journals() == []
    assert caplog.records == []


def test_switched_off_starts_nothing_and_imports_no_mlflow() -> None:
    script = """
import asyncio, sys, threading
from orbiter.train import *
from orbiter_mlflow import *

class Tracked(MLflowTrainerMixin, Trainer):
    def check_agent(self, agent): pass
    def check_dataset(self, train_data, test_data=None): pass
    def check_reward(self, reward_fn=None): pass
    def check_config(self, config=None): pass
    async def train(self): return TrainMetrics()
    async def evaluate(self, test_data=None): return TrainMetrics()

trainer = Tracked()
trainer.mark_validated()
asyncio.run(trainer.train())
assert threading.enumerate() == [threading.main_thread()], threading.enumerate()
assert "mlflow" not in sys.modules
"""
    environment = {"ORBITER_MLFLOW_ENABLED": "false", "HOME": "."}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=60)


@pytest.mark.parametrize("variables", [("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")])
async def test_only_rank_zero_writes(
    variables: tuple[str, str],
    sqlite_uri: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="orbiter_mlflow")
    for variable, text in zip(variables, ("1", "2"), strict=True):
        monkeypatch.setenv(variable, text)
    trainer = tracked(sqlite_uri)
    await trainer.evaluate()
    await trained(trainer)
    assert trainer.run_id is None
    assert journals() == []
    assert [record.getMessage() for record in caplog.records] == [
        "this process is not rank 0: trainers:Tracked is not tracked here"
    ]
    everywhere = await trained(tracked(sqlite_uri, ranks="all"))
    assert stored(sqlite_uri, everywhere).info.status == "FINISHED"


# -- runs that exist -----------------------------------------------------------------------------


async def test_a_run_id_from_the_environment_serves_the_first_trainer_only(
    sqlite_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = MlflowClient(sqlite_uri).create_run("0").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    first, second = tracked(sqlite_uri), tracked(sqlite_uri)
    await trained(first)
    await trained(second)
    assert stored(sqlite_uri, first).info.run_id == run_id
    assert stored(sqlite_uri, second).info.run_id != run_id


async def test_a_run_is_continued_by_its_id(sqlite_uri: str) -> None:
    body = reporting(({"loss": 2.0}, 1), result=TrainMetrics(steps=2))
    first = await trained(tracked(sqlite_uri, body=body))
    ended = stored(sqlite_uri, first).info
    body = reporting(({"loss": 1.0}, 3), result=TrainMetrics(steps=4))
    second = tracked(sqlite_uri, body=body, run_id=ended.run_id)
    second.mark_validated()
    assert stored(sqlite_uri, second).info.status == "RUNNING"
    await second.train()
    info = stored(sqlite_uri, second).info
    assert (info.run_id, info.status) == (ended.run_id, "FINISHED")
    assert info.start_time == ended.start_time
    assert info.end_time > ended.end_time
    points = history(sqlite_uri, second, "train/loss")
    assert points == [(1, 2.0), (3, 1.0)]
    assert len(MlflowClient(sqlite_uri).search_runs(["0"])) == 1


# -- several -------------------------------------------------------------------------------------


async def test_trainers_at_once_never_mix(sqlite_uri: str) -> None:
    def body(number: int) -> Any:
        async def train(trainer: Backend) -> TrainMetrics:
            for step in range(50):
                trainer.report({"loss": number}, step=step)
                trainer.report({f"only {number}": 1.0}, step=step)
                await asyncio.sleep(0)
            await trainer.evaluate()
            return TrainMetrics(loss=number, steps=50)

        return train

    trainers = [tracked(sqlite_uri, TrainConfig(epochs=n), body(n)) for n in range(4)]
    await asyncio.gather(*map(trained, trainers))
    assert len({trainer.run_id for trainer in trainers}) == 4
    for number, trainer in enumerate(trainers):
        run = stored(sqlite_uri, trainer)
        assert run.data.params["epochs"] == str(number)
        assert {value for _, value in history(sqlite_uri, trainer, "train/loss")} == {number}
        assert len(history(sqlite_uri, trainer, "train/loss")) == 50
        assert [key for key in run.data.metrics if "only" in key] == [f"train/only {number}"]


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda trainer: pickle.loads(pickle.dumps(trainer))]
)
async def test_a_copy_gets_a_run_of_its_own(sqlite_uri: str, duplicate: Any) -> None:
    trainer = tracked(sqlite_uri, TrainConfig(epochs=2))
    await trainer.evaluate()
    trainer.mark_validated()
    original = stored(sqlite_uri, trainer)
    twin = duplicate(trainer)
    assert twin.run_id is None
    assert len(journals()) == 1
    await twin.train()
    copied = stored(sqlite_uri, twin)
    assert copied.info.run_id != original.info.run_id
    assert copied.info.status == "FINISHED"
    assert copied.data.params == original.data.params
    del twin
    gc.collect()
    eventually(lambda: len(journals()) == 1)
    assert stored(sqlite_uri, trainer).info.status == "RUNNING"
    assert "train/loss" not in stored(sqlite_uri, trainer).data.metrics
    await trainer.train()
    assert stored(sqlite_uri, trainer).info.status == "FINISHED"
