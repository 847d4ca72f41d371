"""Stores that are down, disks that take nothing: training goes on, and nothing is lost."""

import asyncio
import gc
import logging
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from folders import each_file
from orbiter.train import TrainConfig, TrainerError, TrainerState, TrainMetrics
from orbiter_mlflow import TrackingError
from orbiter_mlflow.delivery import spool
from orbiter_mlflow.delivery.ack import read_ack
from servers import LateStore, free_port, running_server
from trainers import (
    Backend,
    history,
    journals,
    only_journal,
    reporting,
    stored,
    tracked,
    trained,
)
from waiting import eventually

SECRET = "hunter2-5f1c9e"


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


async def seconds(awaitable: Any) -> float:
    start = time.monotonic()
    await awaitable
    return time.monotonic() - start


# -- a store that is down ------------------------------------------------------------------------


async def test_an_outage_costs_one_wait_and_one_warning_a_run(
    late_store: LateStore, caplog: pytest.LogCaptureFixture
) -> None:
    body = reporting(*[({"x": float(step)}, step) for step in range(20)])
    first, second = [tracked(late_store.uri, body=body, flush_timeout=8.0) for _ in range(2)]
    first.mark_validated()
    assert 8.0 <= await seconds(first.train()) < 40.0
    (warning,) = warnings(caplog)
    assert str(only_journal()) in warning
    assert f"orbiter-mlflow sync {only_journal()}" in warning
    assert first.state is TrainerState.COMPLETED
    assert await seconds(first.evaluate()) < 6.0
    assert len(warnings(caplog)) == 1

    second.mark_validated()
    assert await seconds(second.train()) < 6.0
    assert second.state is TrainerState.COMPLETED
    assert await seconds(asyncio.to_thread(lambda: second.run_id)) < 6.0
    assert len(warnings(caplog)) == 2

    late_store.appear()
    for trainer in (first, second):
        points = history(late_store.uri, trainer, "train/x")
        assert points == [(step, float(step)) for step in range(20)]
        assert stored(late_store.uri, trainer).info.status == "FINISHED"
    assert len(MlflowClient(late_store.uri).search_runs(["0"])) == 2
    third = tracked(late_store.uri)
    await trained(third)
    eventually(lambda: third.delivered)
    assert len(warnings(caplog)) == 2


async def test_of_a_journal_that_was_removed_nobody_says_that_nothing_is_lost(
    late_store: LateStore, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = tracked(late_store.uri, flush_timeout=0.5)
    trainer.mark_validated()
    only_journal().unlink()
    await trainer.train()
    assert any("was removed before it was delivered" in text for text in warnings(caplog))
    assert not any("nothing is lost" in text for text in warnings(caplog))


async def test_a_server_that_starts_late_gets_everything_once(
    late_store: LateStore,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    body = reporting(
        *[({"x": 1.0}, step) for step in range(500)], result=TrainMetrics(0.0, steps=500)
    )
    trainer = tracked(uri, TrainConfig(epochs=9), body, flush_timeout=0.5)
    trainer.set_tag("kept", "yes")
    await trained(trainer)
    assert len(warnings(caplog)) == 1
    problem = eventually(lambda: read_ack(only_journal()).problem)
    assert str(port) in problem
    late_store.appear()
    with running_server(late_store.uri, tmp_path, port):
        run = stored(uri, trainer)
        assert len(history(uri, trainer, "train/x")) == 500
        assert history(uri, trainer, "train/loss") == [(500, 0.0)]
        assert run.data.params["epochs"] == "9"
        assert run.data.tags["kept"] == "yes"
        assert run.info.status == "FINISHED"
        assert len(MlflowClient(uri).search_runs(["0"])) == 1
        del trainer
        gc.collect()
        eventually(lambda: not journals())


async def test_an_outage_during_training_does_not_hold_it_up(late_store: LateStore) -> None:
    async def body(trainer: Backend) -> TrainMetrics:
        for step in range(3):
            trainer.report({"x": 1.0}, step=step)
            assert await seconds(trainer.evaluate()) < 6.0
        return TrainMetrics()

    trainer = tracked(late_store.uri, body=body, flush_timeout=8.0)
    trainer.mark_validated()
    assert await seconds(trainer.train()) < 40.0
    assert trainer.state is TrainerState.COMPLETED


async def test_cancelling_does_not_wait(late_store: LateStore) -> None:
    async def body(_: Backend) -> TrainMetrics:
        await asyncio.Event().wait()
        return TrainMetrics()

    trainer = tracked(late_store.uri, body=body, flush_timeout=30.0)
    trainer.mark_validated()
    task = asyncio.create_task(trainer.train())
    await asyncio.sleep(0)
    task.cancel()

    async def ended() -> None:
        with pytest.raises(asyncio.CancelledError):
            await task

    assert await seconds(ended()) < 20
    late_store.appear()
    assert stored(late_store.uri, trainer).info.status == "KILLED"


# -- on_failure="raise" --------------------------------------------------------------------------


async def test_results_that_do_not_arrive_are_an_error_where_asked(late_store: LateStore) -> None:
    body = reporting(result=TrainMetrics(loss=0.125))
    trainer = tracked(late_store.uri, body=body, flush_timeout=0.3, on_failure="raise")
    with pytest.raises(TrackingError, match="evaluate succeeded") as caught:
        await trainer.evaluate()
    assert caught.value.metrics == TrainMetrics(0.25, 0.75)
    assert eventually(lambda: read_ack(only_journal()).problem)
    trainer.mark_validated()  # the state is as it was
    with pytest.raises(TrackingError, match="late") as caught:
        await trainer.train()
    assert caught.value.metrics == TrainMetrics(loss=0.125)
    assert trainer.state is TrainerState.COMPLETED
    late_store.appear()
    run = stored(late_store.uri, trainer)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["train/loss"] == 0.125


async def test_an_error_of_the_training_goes_before_one_of_the_tracking(
    late_store: LateStore,
) -> None:
    async def body(_: Backend) -> TrainMetrics:
        raise ValueError("no gradient")

    trainer = tracked(late_store.uri, body=body, flush_timeout=0.2, on_failure="raise")
    trainer.mark_validated()
    with pytest.raises(TrainerError, match="no gradient") as caught:
        await trainer.train()
    assert not isinstance(caught.value, TrackingError)
    assert trainer.state is TrainerState.FAILED


# -- what only a person can mend -----------------------------------------------------------------


async def test_a_run_that_is_refused_does_not_stand_in_the_way_of_others(
    sqlite_uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = tracked(sqlite_uri, experiment_id="12345", flush_timeout=60.0)
    trainer.mark_validated()
    assert await seconds(trainer.train()) < 30.0
    (warning,) = warnings(caplog)
    assert "12345" in warning
    assert str(only_journal()) in warning
    other = await trained(tracked(sqlite_uri))
    eventually(lambda: other.delivered)  # its artifacts come after the flush
    assert len(warnings(caplog)) == 1


# -- a disk that takes nothing -------------------------------------------------------------------


async def test_a_spool_that_cannot_be_written(
    sqlite_uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    body = reporting(({"loss": 1.0}, 1))
    trainer = tracked(sqlite_uri, body=body, spool_dir=blocked / "spool")
    trainer.check_dataset([1])
    await trainer.evaluate()
    assert (await trained(trainer)).state is TrainerState.COMPLETED
    trainer.set_tag("a", "b")
    trainer.log_artifact(blocked)
    (warning,) = warnings(caplog)
    assert str(blocked / "spool") in warning
    assert "spool_dir" in warning
    assert trainer.run_id is None
    assert not trainer.delivered
    strict = tracked(sqlite_uri, spool_dir=blocked / "spool", on_failure="raise")
    strict.mark_validated()
    with pytest.raises(TrackingError, match="no journal"):
        await strict.train()
    assert strict.state is TrainerState.COMPLETED


# -- secrets -------------------------------------------------------------------------------------


async def test_credentials_of_the_uri_are_nowhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    caplog.set_level("DEBUG")
    uri = f"http://ada:{SECRET}@127.0.0.1:{free_port()}"
    trainer = await trained(tracked(uri, flush_timeout=1.0))
    journal = only_journal()
    assert eventually(lambda: read_ack(journal).problem)
    written = each_file(journal.parent, Path.read_bytes).values()
    assert [text for text in written if SECRET.encode() in text] == []
    assert warnings(caplog) != []
    assert SECRET not in caplog.text
    assert SECRET not in repr(trainer._tracked.settings)
    spool.remove(journal)  # nobody will ever answer


# -- hooks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "broken",
    ["check_passed", "moved", "reported", "evaluation_started", "evaluated", "trained", "flush"],
)
async def test_a_fault_of_ours_never_becomes_the_trainings(
    broken: str,
    sqlite_uri: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainer = tracked(sqlite_uri, body=reporting(({"loss": 1.0}, 1)))
    monkeypatch.setattr(trainer._tracked, broken, _explode)
    trainer.check_dataset([1])
    await trainer.evaluate()
    assert (await trained(trainer)).state is TrainerState.COMPLETED
    assert "a fault of ours" in caplog.text


def _explode(*_: object) -> None:
    raise RuntimeError("a fault of ours")
