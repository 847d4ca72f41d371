"""Resume runs by their id, as users do: real trainers, real stores."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from orbiter.train import TrainConfig, TrainerError, TrainMetrics
from orbiter_mlflow import names
from orbiter_mlflow.delivery.ack import read_ack
from orbiter_mlflow.text.packed_tags import unpacked
from scripts import PRELUDE
from trainers import Backend, Body, Tracked, history, journals, reporting, stored, tracked
from trainers import trained as trained_one
from waiting import eventually


@pytest.fixture(params=["sqlite", "server"])
def uri(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(f"{request.param}_uri")
    return found


def steps(count: int, loss: float) -> Body:
    """A `train` that reports `count` steps from 0 on, each with this loss."""
    reports = [({"loss": loss}, step) for step in range(count)]
    return reporting(*reports, result=TrainMetrics(loss=loss, accuracy=0.5, steps=count))


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.WARNING and record.name.startswith("orbiter")
    ]


async def run_with(uri: str, body: Body, evaluates: bool = True, **given: Any) -> Tracked:
    """Evaluate, train and evaluate once."""
    config = TrainConfig(**given.pop("config", {}))
    trainer = tracked(uri, config, body, **given)
    trainer.mark_validated()
    if evaluates:
        await trainer.evaluate()
    await trainer.train()
    if evaluates:
        await trainer.evaluate()
    return trainer


def with_times(run: Run) -> dict[str, str]:
    """The tags with the time of a transition."""
    return {name: text for name, text in unpacked(run.data.tags).items() if name.endswith("_at")}


async def test_a_run_is_resumed_twice(uri: str, caplog: pytest.LogCaptureFixture) -> None:
    first = await run_with(uri, steps(3, 3.0))
    before = stored(uri, first)
    run_id = before.info.run_id
    other = {"learning_rate": 0.5, "batch_size": 99, "extra": {"warmup": 10}}
    second = await run_with(uri, steps(2, 2.0), config=other, run_id=run_id)
    third = await run_with(uri, steps(2, 1.0), run_id=run_id)
    run = stored(uri, third)
    assert {first.run_id, second.run_id, third.run_id} == {run_id}

    assert history(uri, third, "train/loss") == [
        *[(0, 3.0), (1, 3.0), (2, 3.0)],
        *[(4, 2.0), (5, 2.0)],
        *[(7, 1.0), (8, 1.0)],
    ]
    assert history(uri, third, "train/final/loss") == [(3, 3.0), (6, 2.0), (9, 1.0)]
    evaluations = [step for step, _ in history(uri, third, "eval/accuracy")]
    assert evaluations == [0, 3, 3, 6, 6, 9]
    assert run.data.metrics["train/steps"] == 2.0  # as the trainer says

    assert run.info.status == "FINISHED"
    assert run.info.start_time == before.info.start_time
    assert run.info.end_time > before.info.end_time
    tags = unpacked(run.data.tags)
    assert with_times(before).items() <= tags.items()
    for state in ("validated", "training", "completed"):
        times = [tags[names.state_at(state) + life] for life in ("", ".2", ".3")]
        assert times == sorted(times)
        assert len(set(times)) == 3
    assert tags[f"{names.SOURCE_NAME}.3"] == tags[names.SOURCE_NAME]

    assert run.data.params == before.data.params
    assert tags[names.CONFIG_DIGEST] == unpacked(before.data.tags)[names.CONFIG_DIGEST]
    assert tags[f"{names.CONFIG_DIGEST}.2"] != tags[names.CONFIG_DIGEST]
    assert tags[f"{names.CONFIG_DIGEST}.3"] == tags[names.CONFIG_DIGEST]
    changed = json.loads(tags[f"{names.CONFIG_CHANGED}.2"])
    assert changed["learning_rate"] == ["1e-05", "0.5"]
    assert changed["batch_size"] == ["8", "99"]
    assert changed["extra.warmup"] == [None, "10"]
    assert f"{names.CONFIG_CHANGED}.3" not in tags
    assert names.QUARANTINED not in tags
    (warning,) = warnings_in(caplog)
    assert f"run {run_id} keeps batch_size=8 (this trainer has 99)" in warning
    assert "learning_rate=1e-05 (this trainer has 0.5)" in warning
    assert "start a new run" in warning


async def test_a_failed_run_is_resumed_and_ends_well(sqlite_uri: str) -> None:
    async def boom(trainer: Backend) -> TrainMetrics:
        trainer.report({"loss": 3.0}, step=5)
        raise ValueError("no such luck")

    first = tracked(sqlite_uri, body=boom)
    first.mark_validated()
    with pytest.raises(TrainerError):
        await first.train()
    failed = stored(sqlite_uri, first)
    assert failed.info.status == "FAILED"
    second = tracked(sqlite_uri, body=steps(2, 1.0), run_id=failed.info.run_id)
    second.mark_validated()
    running = stored(sqlite_uri, second)
    assert running.info.status == "RUNNING"
    assert not set(names.ERROR) & set(unpacked(running.data.tags))
    await second.train()
    run = stored(sqlite_uri, second)
    assert run.info.status == "FINISHED"
    assert unpacked(run.data.tags)["orbiter.error.message.1"] == "no such luck"
    assert not set(names.ERROR) & set(unpacked(run.data.tags))
    assert "orbiter.state.failed_at" in unpacked(run.data.tags)
    assert history(sqlite_uri, second, "train/loss") == [(5, 3.0), (6, 1.0), (7, 1.0)]


async def test_a_run_that_others_created_is_resumed(sqlite_uri: str) -> None:
    client = MlflowClient(sqlite_uri)
    run_id = client.create_run("0").info.run_id
    client.log_param(run_id, "entry_point", "main")
    client.log_metric(run_id, "tokens", 1.0, step=10**6)
    first = await run_with(sqlite_uri, steps(2, 1.0), evaluates=False, run_id=run_id)
    run = stored(sqlite_uri, first)
    assert history(sqlite_uri, first, "train/loss") == [(0, 1.0), (1, 1.0)]
    assert names.state_at("completed") in unpacked(run.data.tags)
    assert run.data.params["epochs"] == "1"
    second = await run_with(sqlite_uri, steps(1, 1.0), evaluates=False, run_id=run_id)
    assert history(sqlite_uri, second, "train/loss") == [(0, 1.0), (1, 1.0), (3, 1.0)]
    assert "orbiter.state.completed_at.2" in unpacked(stored(sqlite_uri, second).data.tags)


@pytest.mark.parametrize("what", ["missing", "deleted"])
async def test_a_run_that_does_not_exist_is_held(sqlite_uri: str, what: str) -> None:
    run_id = "0" * 32
    if what == "deleted":
        client = MlflowClient(sqlite_uri)
        run_id = client.create_run("0").info.run_id
        client.delete_run(run_id)
    trainer = tracked(sqlite_uri, body=steps(1, 1.0), run_id=run_id, flush_timeout=30)
    await trained_one(trainer)
    ack = read_ack(*journals())
    assert ack.held
    assert ack.run_id is None
    if what == "deleted":
        assert "restore it" in ack.problem
        client.restore_run(run_id)
        await trainer.evaluate()
        assert stored(sqlite_uri, trainer).info.status == "FINISHED"
    else:
        assert run_id in ack.problem
        journals()[0].unlink()


def script(uri: str, run_id: str, line: str) -> "subprocess.Popen[bytes]":
    """A process that runs `line` and then trains 100 steps."""
    code = f"{PRELUDE}\ntrainer = validated()\n{line}\nasyncio.run(trainer.train())"
    environment = os.environ | {"MLFLOW_TRACKING_URI": uri, "MLFLOW_RUN_ID": run_id}
    return subprocess.Popen([sys.executable, "-c", code], env=environment)


def hung_and_killed(uri: str, run_id: str) -> None:
    ready = Path("ready")
    ready.unlink(missing_ok=True)
    process = script(uri, run_id, "trainer.inside = forever")
    try:
        eventually(ready.exists)
    finally:
        process.kill()
        process.wait()


def test_processes_resume_the_run_that_the_environment_names(sqlite_uri: str) -> None:
    client = MlflowClient(sqlite_uri)
    run_id = client.create_run("0").info.run_id
    hung_and_killed(sqlite_uri, run_id)
    hung_and_killed(sqlite_uri, run_id)  # the first one's end may not be in the store yet

    def second_killed() -> Run | None:
        run = client.get_run(run_id)
        return run if "orbiter.state.failed_at.2" in unpacked(run.data.tags) else None

    tags = unpacked(eventually(second_killed).data.tags)
    assert tags[names.STATE] == "failed"
    assert tags[names.ERROR_TYPE] == tags["orbiter.error.type.1"] == "ProcessDied"
    killed = eventually(lambda: _with_status(client, run_id, "KILLED")).info
    assert tags["orbiter.state.failed_at"] < tags["orbiter.state.validated_at.2"]
    assert script(sqlite_uri, run_id, "").wait(60) == 0
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.info.end_time > killed.end_time
    assert unpacked(run.data.tags)[names.STATE] == "completed"
    assert unpacked(run.data.tags)["orbiter.error.type.2"] == "ProcessDied"
    assert names.ERROR_TYPE not in unpacked(run.data.tags)
    points = client.get_metric_history(run_id, "train/loss")
    assert sorted(point.step for point in points) == list(range(300))


def _with_status(client: MlflowClient, run_id: str, status: str) -> Run | None:
    run = client.get_run(run_id)
    return run if run.info.status == status else None
