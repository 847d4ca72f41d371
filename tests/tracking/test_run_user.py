"""What a user does with a run besides training: its id, tags, artifacts, MLflow's own functions."""

import asyncio
import gc
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient

from orbiter.train import TrainMetrics
from orbiter_mlflow import TrackingError, names
from orbiter_mlflow.delivery.ack import read_ack
from orbiter_mlflow.delivery.records import Artifact
from servers import LateStore
from trainers import (
    Tracked,
    history,
    journals,
    only_journal,
    recorded,
    reporting,
    run_of,
    stored,
    tracked,
    trained,
)
from waiting import eventually

# -- the run's id --------------------------------------------------------------------------------


def test_outside_an_event_loop_the_run_id_is_waited_for(sqlite_uri: str) -> None:
    trainer = tracked(sqlite_uri)
    assert not trainer.run_id
    trainer.mark_validated()
    run_id = trainer.run_id
    assert run_id is not None
    assert MlflowClient(sqlite_uri).get_run(run_id).info.status == "RUNNING"


async def test_in_an_event_loop_it_never_blocks(late_store: LateStore) -> None:
    trainer = tracked(late_store.uri, flush_timeout=30.0)
    trainer.mark_validated()
    start = time.monotonic()
    assert trainer.run_id is None
    assert time.monotonic() - start < 20
    waiting = asyncio.create_task(trainer.wait_run_id())
    turns = 0
    while turns < 5:  # the loop goes on meanwhile
        await asyncio.sleep(0.01)
        turns += 1
    assert not waiting.done()
    waiting.cancel()


async def test_wait_run_id(sqlite_uri: str) -> None:
    trainer = tracked(sqlite_uri)
    assert await trainer.wait_run_id() is None
    trainer.mark_validated()
    run_id = await trainer.wait_run_id()
    assert run_id is not None
    assert trainer.run_id == run_id
    await trainer.train()
    assert stored(sqlite_uri, trainer).info.run_id == run_id


# -- tags ----------------------------------------------------------------------------------------


def test_tags(sqlite_uri: str, caplog: pytest.LogCaptureFixture) -> None:
    class Rude:
        def __str__(self) -> str:
            raise RuntimeError("no text")

    trainer = tracked(sqlite_uri)
    trainer.set_tag("early", "before the run")
    trainer.mark_validated()
    trainer.set_tag("number", 3)
    trainer.set_tag("number", 4)
    trainer.set_tag("odd@key", "a")
    trainer.set_tag("odd:40:key", "b")
    trainer.set_tag("", "empty")
    trainer.set_tag("long" * 100, "x" * 9000)
    trainer.set_tag("nul\x00", "\x00\ud800")
    assert caplog.records == []
    trainer.set_tag("orbiter.state", "mine")
    assert "orbiter.state" in caplog.records[-1].getMessage()
    trainer.set_tag("rude", Rude())
    assert "set_tag" in caplog.records[-1].getMessage()
    tags = stored(sqlite_uri, trainer).data.tags
    assert tags["early"] == "before the run"
    assert tags["number"] == "4"
    assert sorted(v for key, v in tags.items() if key.startswith("odd")) == ["a", "b"]
    assert tags[":empty:"] == "empty"
    (long,) = [key for key in tags if key.startswith("longlong")]
    assert len(long) <= names.MAX_KEY
    assert "9000 characters" in tags[long]
    assert tags["nul:0:"] == "\\x00\\ud800"
    assert tags[names.STATE] == "validated"
    assert names.QUARANTINED not in tags


# -- artifacts -----------------------------------------------------------------------------------


def artifacts(uri: str, trainer: Tracked, folder: str | None = None) -> dict[str, str]:
    """Path -> content of a run's text files."""
    client, run_id = MlflowClient(uri), stored(uri, trainer).info.run_id
    found: dict[str, str] = {}
    for entry in client.list_artifacts(run_id, folder):
        if entry.is_dir:
            found |= artifacts(uri, trainer, entry.path)
        else:
            found[entry.path] = Path(client.download_artifacts(run_id, entry.path)).read_text()
    return found


@pytest.mark.parametrize("store", ["sqlite", "server"])
def test_files_and_folders(store: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    uri: str = request.getfixturevalue(f"{store}_uri")
    folder = tmp_path / "plots"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    (folder / "deep" / "b.txt").write_text("b")
    (folder / "dangling").symlink_to("nowhere")
    single = tmp_path / "notes.txt"
    single.write_text("first")
    trainer = tracked(uri, experiment="artifacts", skip_provenance=["packages"])
    trainer.mark_validated()
    trainer.log_artifact(single)
    single.write_text("changed since")
    trainer.log_artifact(str(single), "texts")
    single.unlink()
    trainer.log_artifact(folder)
    trainer.log_artifact(folder, "more")
    assert artifacts(uri, trainer) == {
        "notes.txt": "first",
        "texts/notes.txt": "changed since",
        "plots/a.txt": "a",
        "plots/deep/b.txt": "b",
        "more/plots/a.txt": "a",
        "more/plots/deep/b.txt": "b",
    }
    assert list(only_journal().with_suffix(".files").iterdir()) == []


def test_files_that_cannot_be_kept(
    sqlite_uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = tracked(sqlite_uri, experiment="artifacts", skip_provenance=["packages"])
    kept = tmp_path / "kept.txt"
    kept.write_text("kept")
    trainer.log_artifact(kept)
    assert "call mark_validated() first" in caplog.records[-1].getMessage()
    trainer.mark_validated()
    for missing in (tmp_path / "missing.txt", tmp_path / "nul\x00"):
        trainer.log_artifact(missing)
        assert str(missing) in caplog.records[-1].getMessage()
    assert len(caplog.records) == 3
    trainer.log_artifact(kept)
    assert artifacts(sqlite_uri, trainer) == {"kept.txt": "kept"}


def test_names_that_are_no_text(sqlite_uri: str, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    for name in (b"\xfe.txt", b"\xff.txt"):
        Path(str(folder), name.decode("utf-8", "surrogateescape")).write_text(name.hex())
    trainer = tracked(sqlite_uri, experiment="artifacts", skip_provenance=["packages"])
    trainer.mark_validated()
    trainer.log_artifact(folder)
    eventually(lambda: trainer.delivered)
    records: list[Artifact] = recorded(Artifact)
    assert [record.name for record in records] == ["_xdcfe_.txt", "_xdcff_.txt"]
    assert sorted(artifacts(sqlite_uri, trainer).values()) == [
        b"\xfe.txt".hex(),
        b"\xff.txt".hex(),
    ]


# -- MLflow's own functions ----------------------------------------------------------------------


@pytest.fixture
def own_mlflow(empty_store: Path, tmp_path: Path) -> Iterator[str]:
    """Another store, as MLflow's global tracking URI for one test."""
    uri = f"sqlite:///{tmp_path}/other.db"
    (tmp_path / "other.db").write_bytes(empty_store.read_bytes())
    mlflow.set_tracking_uri(uri)
    yield uri
    mlflow.set_tracking_uri(None)
    mlflow.tracking.fluent._active_experiment_id = None  # mlflow has no public way to unset it
    os.environ.pop("MLFLOW_EXPERIMENT_ID", None)


async def test_mlflow_functions_log_into_the_run(sqlite_uri: str, own_mlflow: str) -> None:
    inside: list[Any] = []

    async def body(trainer: Any) -> TrainMetrics:
        await trainer.wait_run_id()
        with trainer.active_run() as run:
            inside.append(run.info.run_id)
            mlflow.log_metric("mine", 1.5, step=3)
            mlflow.log_param("my param", "p")
            mlflow.log_text("hello", "hello.txt")
        assert mlflow.active_run() is None
        trainer.report({"loss": 1.0}, step=1)
        eventually(lambda: trainer.delivered)
        inside.append(run_of(sqlite_uri, trainer.run_id).info.status)
        return TrainMetrics(steps=5)

    trainer = await trained(
        tracked(sqlite_uri, body=body, experiment="fluent", skip_provenance=["packages"])
    )
    end = stored(sqlite_uri, trainer).info.end_time
    with trainer.active_run():
        mlflow.log_metric("later", 2.5)
    run = stored(sqlite_uri, trainer)
    assert inside == [run.info.run_id, "RUNNING"]
    assert (run.info.status, run.info.end_time) == ("FINISHED", end)
    assert run.data.metrics["mine"] == 1.5
    assert run.data.metrics["later"] == 2.5
    assert run.data.params["my param"] == "p"
    assert artifacts(sqlite_uri, trainer) == {"hello.txt": "hello"}
    assert mlflow.get_tracking_uri() == own_mlflow
    assert len(MlflowClient(sqlite_uri).search_runs([run.info.experiment_id])) == 1


async def test_active_run_leaves_a_run_of_the_user_alone(sqlite_uri: str, own_mlflow: str) -> None:
    trainer = await trained(tracked(sqlite_uri))
    with mlflow.start_run() as outer:
        with trainer.active_run():
            mlflow.log_metric("where", 1.0)
        mlflow.log_metric("where", 2.0)
    assert stored(sqlite_uri, trainer).data.metrics["where"] == 1.0
    assert run_of(own_mlflow, outer.info.run_id).data.metrics["where"] == 2.0
    assert run_of(own_mlflow, outer.info.run_id).info.status == "FINISHED"


async def test_active_run_leaves_the_users_experiment_and_environment_as_they_were(
    sqlite_uri: str, own_mlflow: str
) -> None:
    trainer = await trained(tracked(sqlite_uri))
    mine = mlflow.set_experiment("mine")
    with trainer.active_run():
        mlflow.log_metric("there", 1.0)
    with mlflow.start_run() as run:
        assert run.info.experiment_id == mine.experiment_id
    assert stored(sqlite_uri, trainer).data.metrics["there"] == 1.0
    mlflow.set_tracking_uri(None)
    with trainer.active_run():
        mlflow.log_metric("there", 2.0)
    assert "MLFLOW_TRACKING_URI" not in os.environ


async def test_active_run_where_there_is_none(sqlite_uri: str) -> None:
    for trainer in (tracked(sqlite_uri), tracked(sqlite_uri, enabled=False)):
        with pytest.raises(TrackingError, match="no MLflow run"), trainer.active_run():
            pass


async def test_an_error_inside_active_run_is_the_users(sqlite_uri: str, own_mlflow: str) -> None:
    trainer = await trained(tracked(sqlite_uri))
    with pytest.raises(ValueError, match="mine"), trainer.active_run():
        raise ValueError("mine")
    assert stored(sqlite_uri, trainer).info.status == "FINISHED"


# -- the journal's life --------------------------------------------------------------------------


@pytest.mark.parametrize("delivery", ["process", "thread"])
async def test_a_journal_lives_as_long_as_its_trainer(sqlite_uri: str, delivery: str) -> None:
    trainer = await trained(tracked(sqlite_uri, delivery=delivery))
    assert stored(sqlite_uri, trainer).info.status == "FINISHED"
    journal = only_journal()
    del trainer
    gc.collect()
    eventually(lambda: not journals())
    eventually(lambda: not [*journal.parent.glob(f"{journal.stem}*")])


async def test_a_journal_waits_for_its_store(late_store: LateStore) -> None:
    body = reporting(({"loss": 1.0}, 1))
    trainer = await trained(tracked(late_store.uri, body=body, flush_timeout=0.5))
    del trainer
    gc.collect()
    (journal,) = journals()
    problem = eventually(lambda: read_ack(journal).problem)
    assert str(late_store.folder) in problem
    late_store.appear()
    eventually(lambda: not journals())
    (run,) = MlflowClient(late_store.uri).search_runs(["0"])
    assert run.info.status == "FINISHED"


async def test_journals_are_kept_where_asked(sqlite_uri: str) -> None:
    trainer = await trained(tracked(sqlite_uri, keep_journals=True))
    run_id = trainer.run_id
    del trainer
    gc.collect()
    journal = only_journal()
    eventually(lambda: read_ack(journal).closed)
    assert journals() == [journal]
    assert run_of(sqlite_uri, run_id).info.status == "FINISHED"
    assert history(sqlite_uri, await trained(tracked(sqlite_uri)), "train/loss") == [(3, 0.5)]
