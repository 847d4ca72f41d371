"""Trainers on an `mlflow server` with two workers on PostgreSQL, and on PostgreSQL itself, while
both are killed: `make test-servers`."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from faults import Event, all_removed, arrived, in_trouble, soon
from orbiter.train import Rollout, TrainMetrics
from orbiter_mlflow import names
from orbiter_mlflow.text import artifact_paths
from postgres import PASSWORD, Postgres
from servers import free_port, running_server
from trainers import Backend, Body, Tracked, reporting, tracked

TRAINERS, STEPS, ROLLOUTS = 4, 400, 3
MEETINGS = (100, 200, 300)
"""Steps at which the trainers report rollouts, and wait for what the test does to their server."""


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    with Postgres("max_connections=20") as found:
        # Not the superuser: some connections are kept for that one.
        found.query(f"CREATE ROLE mlflow LOGIN PASSWORD '{PASSWORD}'")
        found.query("CREATE DATABASE mlflow OWNER mlflow")
        yield found


@pytest.fixture
def uri(database: Postgres, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of the database, for an MLflow that has the password from the environment."""
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    return database.uri("mlflow", "mlflow")


def training(number: int, meeting: asyncio.Barrier) -> Body:
    async def body(trainer: Backend) -> TrainMetrics:
        for step in range(STEPS):
            if step in MEETINGS:
                trainer.report_rollouts(rollouts(number, step), step=step)
                await meeting.wait()
            trainer.report({"loss": (step + number) / 7, "pass@1": step / STEPS}, step=step)
        return TrainMetrics(steps=STEPS)

    return body


def rollouts(number: int, step: int) -> list[Rollout]:
    return [
        Rollout(f"{n} + {step}?", f"{n + step} é\u0000", rewards={"right": number / 2}, tokens=n)
        for n in range(ROLLOUTS)
    ]


def started(uri: str, experiment: str) -> tuple[list[Tracked], asyncio.Barrier]:
    meeting = asyncio.Barrier(TRAINERS + 1)
    trainers = [
        tracked(uri, body=training(n, meeting), experiment=experiment, run_name=f"{n}")
        for n in range(TRAINERS)
    ]
    for trainer in trainers:
        trainer.mark_validated()
    return trainers, meeting


async def all_of(trainers: list[Tracked], what: Event) -> None:
    await asyncio.gather(*map(what, trainers))


def assert_whole(uri: str, experiment: str) -> None:
    """Compare every point, table and trace of the trainers' runs with what they reported."""
    client = MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    runs = {run.info.run_name: run for run in client.search_runs([found.experiment_id])}
    assert sorted(runs) == [f"{n}" for n in range(TRAINERS)]
    for number in range(TRAINERS):
        run = runs[f"{number}"]
        assert run.info.status == "FINISHED"
        assert not {names.QUARANTINED, names.LOST, names.ROLLOUTS_MISSING} & run.data.tags.keys()
        expected = {
            "train/loss": [(step, (step + number) / 7) for step in range(STEPS)],
            "train/pass:40:1": [(step, step / STEPS) for step in range(STEPS)],
        }
        for key, values in expected.items():
            points = client.get_metric_history(run.info.run_id, key)
            assert sorted((point.step, point.value) for point in points) == values
        assert_rollouts(client, run, number)


def assert_rollouts(client: MlflowClient, run: Run, number: int) -> None:
    expected = {
        step: sorted(
            (one.prompt, str(one.completion).replace("\0", "\\x00"), number / 2)
            for one in rollouts(number, step)
        )
        for step in MEETINGS
    }
    for step in MEETINGS:
        path = f"rollouts/train/{artifact_paths.step_file(step, 1)}"
        table = json.loads(Path(client.download_artifacts(run.info.run_id, path)).read_bytes())
        rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
        assert (
            sorted((r["prompt"], r["completion"], r["reward/right"]) for r in rows)
            == (expected[step])
        )
    traces = client.search_traces(
        locations=[run.info.experiment_id],
        filter_string=f"metadata.`mlflow.sourceRun` = '{run.info.run_id}'",
        max_results=100,
    )
    steps = sorted(int(trace.info.tags[names.STEP]) for trace in traces)
    assert steps == sorted([*MEETINGS] * ROLLOUTS)


async def test_all_arrives_though_database_and_server_are_killed_and_connections_run_out(
    database: Postgres, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    server = running_server(uri, tmp_path, workers=2)
    with server:
        trainers, meeting = started(server.uri, "killed")
        trainings = [asyncio.create_task(trainer.train()) for trainer in trainers]
        await all_of(trainers, arrived)
        database.kill()
        await meeting.wait()
        await all_of(trainers, in_trouble)
        database.start()
        await all_of(trainers, arrived)

        server.__exit__()
        await meeting.wait()
        await all_of(trainers, in_trouble)
        await asyncio.to_thread(server.__enter__)
        await all_of(trainers, arrived)

        held = hold_connections(database)
        database.query(HANG_UP)
        held += hold_connections(database)
        await meeting.wait()
        await all_of(trainers, in_trouble)
        for connection in held:
            connection.close()
        await asyncio.gather(*trainings)
        await all_of(trainers, arrived)
        assert_whole(server.uri, "killed")
        trainers.clear()
        await soon(all_removed)


HANG_UP = """
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
WHERE usename = 'mlflow' AND application_name <> 'held'
"""


def hold_connections(database: Postgres) -> list[Any]:
    """Open connections until the database refuses more."""
    held: list[Any] = []
    where = f"host=127.0.0.1 port={database.port} user=mlflow dbname=mlflow application_name=held"
    while True:
        try:
            held.append(psycopg.connect(where, password=PASSWORD))
        except psycopg.OperationalError:
            return held


async def test_trainers_on_the_database_itself_lose_nothing(
    database: Postgres, uri: str, tmp_path: Path
) -> None:
    trainers, meeting = started(uri, "direct")
    trainings = [asyncio.create_task(trainer.train()) for trainer in trainers]
    await meeting.wait()
    await all_of(trainers, arrived)
    database.kill()
    await meeting.wait()
    await all_of(trainers, in_trouble)
    database.start()
    await meeting.wait()
    await asyncio.gather(*trainings)
    await all_of(trainers, arrived)
    assert_whole(uri, "direct")
    trainers.clear()
    await soon(all_removed)


async def test_a_database_that_is_down_does_not_hold_up_the_delivery_to_another_store(
    sqlite_uri: str,
) -> None:
    nobody = f"postgresql+psycopg://mlflow@127.0.0.1:{free_port()}/mlflow"
    waiting = tracked(nobody, experiment="down", flush_timeout=1.0)
    waiting.mark_validated()
    await in_trouble(waiting)
    trainer = tracked(sqlite_uri, body=reporting(({"loss": 1.0}, 1)))
    trainer.mark_validated()
    await trainer.train()
    await arrived(trainer)
    assert not waiting.delivered
