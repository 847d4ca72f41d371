"""Kills inside `trainer.active_run()`, and stores that are down meanwhile."""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric

from journals import entries
from orbiter_mlflow.delivery.records import Metrics, Params, Tags
from proxy import Proxy
from scripts import ended, started
from trainers import Tracked, journals, only_journal, tracked
from waiting import eventually


def test_a_kill_inside_the_block_after_training_leaves_the_run_finished(
    sqlite_uri: str, tmp_path: Path
) -> None:
    script = f"""
        import mlflow
        trainer = trained(tracking_uri={sqlite_uri!r})
        with trainer.active_run():
            mlflow.log_metric("late", 1.0)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    process = started(script, tmp_path)
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    client = MlflowClient(sqlite_uri)
    run = eventually(lambda: ended(client))
    eventually(lambda: not journals())
    run = client.get_run(run.info.run_id)
    assert (run.info.status, run.data.metrics["late"]) == ("FINISHED", 1.0)


def test_a_kill_inside_the_block_while_training_leaves_the_run_killed(
    sqlite_uri: str, tmp_path: Path
) -> None:
    script = f"""
        import mlflow
        async def die():
            with trainer.active_run():
                mlflow.log_metric("last", 1.0)
                os.kill(os.getpid(), signal.SIGKILL)
        trainer = validated(tracking_uri={sqlite_uri!r})
        trainer.inside = die
        asyncio.run(trainer.train())
    """
    started(script, tmp_path).communicate(timeout=120)
    client = MlflowClient(sqlite_uri)
    run = eventually(lambda: ended(client))
    assert (run.info.status, run.data.metrics["last"]) == ("KILLED", 1.0)


async def test_a_server_that_hangs_holds_up_neither_the_block_nor_the_loop() -> None:
    with Proxy("http://127.0.0.1:9") as proxy:
        proxy.add("hang")
        trainer = tracked(proxy.uri, delivery="offline")
        trainer.mark_validated()
        with trainer.active_run() as run:
            mlflow.log_metric("mine", 1.0, step=4)
            mlflow.log_params({"a": 1})
            mlflow.set_tag("b", "2")
        assert proxy.requests == []
    records = entries(only_journal())
    assert run.info.run_id == records[0].uid  # type: ignore[union-attr]  # provisional
    assert [one for one in records if isinstance(one, Metrics)][-1].values == {"mine": 1.0}
    assert Params({"a": "1"}) in records
    assert Tags({"b": "2"}) in records


def test_a_run_that_the_server_does_not_know_yet_has_a_provisional_id(server_uri: str) -> None:
    with Proxy(server_uri) as proxy:
        proxy.refuse()
        trainer = tracked(proxy.uri, experiment="provisional", flush_timeout=0.0)
        trainer.mark_validated()
        with trainer.active_run() as run:
            provisional = run.info.run_id
            mlflow.log_metric("mine", 1.0, step=4)
            assert mlflow.get_run(provisional).data.metrics == {"mine": 1.0}
            proxy.open()
            run_id = eventually(trainer_id(trainer))
            mlflow.log_metric("mine", 2.0, step=5)
            assert mlflow.get_run(provisional).info.run_id == run_id
            assert mlflow.get_run(run_id).data.metrics == {"mine": 2.0}
        asyncio.run(trainer.train())
        with trainer.active_run() as again:
            assert again.info.run_id == run_id
        assert provisional != run_id
        client = MlflowClient(server_uri)
        # `get_run` may have answered from the journal, and `train` has waited for nothing.
        points = eventually(lambda: two_or_more(client.get_metric_history(run_id, "mine")))
        assert [(one.step, one.value) for one in points] == [(4, 1.0), (5, 2.0)]


def two_or_more(points: list[Metric]) -> list[Metric] | None:
    return points if len(points) >= 2 else None


def trainer_id(trainer: Tracked) -> Callable[[], str | None]:
    writer = trainer._tracked.writer
    assert writer is not None
    return writer.run_id
