"""MLflow's own functions inside `trainer.active_run()`: they write the trainer's own journal."""

import logging
import os
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from journals import entries
from orbiter.train import TrainConfig
from orbiter_mlflow import names
from orbiter_mlflow.delivery.records import Artifact, Metrics, Status, Update
from orbiter_mlflow.errors import RunNotFoundError
from orbiter_mlflow.plugin.bound_run import is_same_value
from orbiter_mlflow.runs.model import StoredRun
from orbiter_mlflow.runs.store import RunStore
from orbiter_mlflow.settings import MLflowSettings
from trainers import Tracked, journals, only_journal, run_of, stored, tracked, trained
from waiting import eventually

FAST = ("git", "command", "machine", "packages", "seeds")
"""Provenance is not what these tests are about."""


@pytest.fixture(autouse=True)
def unset_mlflow() -> Iterator[None]:
    """No tracking URI, run or experiment of MLflow's is left to the next test."""
    yield
    assert mlflow.active_run() is None
    assert not mlflow.is_tracking_uri_set()


def validated(uri: str, config: TrainConfig | None = None, **settings: Any) -> Tracked:
    trainer = tracked(uri, config, skip_provenance=FAST, **settings)
    trainer.mark_validated()
    return trainer


def logged_steps(journal: Path) -> list[tuple[str, int]]:
    """Key and step of the metrics of a journal, in its order."""
    records = (record for record in entries(journal) if isinstance(record, Metrics))
    return [(key, record.step) for record in records for key in record.values]


# -- one journal -----------------------------------------------------------------------------------


async def test_what_mlflow_logs_is_in_one_order_with_the_trainers_own(sqlite_uri: str) -> None:
    trainer = validated(sqlite_uri)
    with trainer.active_run() as run:
        trainer.report({"loss": 1.0}, step=1)
        mlflow.log_metric("mine", 1.5, step=1)
        trainer.report({"loss": 0.5}, step=2)
        MlflowClient().log_batch(run.info.run_id, [Metric("mine", 2.5, 7, 2)], [], [])
        mlflow.log_metrics({"async": 1.0}, step=3, synchronous=False).wait()
    await trainer.train()
    assert logged_steps(only_journal())[:5] == [
        *[("train/loss", 1), ("mine", 1), ("train/loss", 2), ("mine", 2), ("async", 3)]
    ]
    run = stored(sqlite_uri, trainer)
    assert run.data.metrics["mine"] == 2.5
    assert run.data.metrics["async"] == 1.0
    assert run.info.status == "FINISHED"
    assert len(journals()) == 1


async def test_files_that_mlflow_logs_are_delivered_from_the_trainers_journal(
    sqlite_uri: str,
) -> None:
    trainer = validated(sqlite_uri)
    with trainer.active_run():
        mlflow.log_text("first", "notes/x.txt")
        mlflow.log_dict({"a": 1}, "password=hunter2secret.json")
        active = mlflow.active_run()
        assert active is not None
        mlflow.get_run(active.info.run_id)
        mlflow.log_text("second", "notes/y.txt")
    await trainer.train()
    assert len(journals()) == 1
    recorded = [one.name for one in entries(only_journal()) if isinstance(one, Artifact)]
    assert {"x.txt", "y.txt"} < set(recorded)
    assert not [name for name in recorded if "hunter2" in name]
    client = MlflowClient(sqlite_uri)
    eventually(
        lambda: (
            [one.path for one in client.list_artifacts(trainer.run_id, "notes")]
            == ["notes/x.txt", "notes/y.txt"]
        )
    )


async def test_a_read_inside_sees_what_was_logged_before(sqlite_uri: str) -> None:
    trainer = validated(sqlite_uri)
    with trainer.active_run():
        trainer.report({"loss": 1.0}, step=1)
        mlflow.log_metric("mine", 1.5)
        mlflow.set_tag("kind", "test")
        active = mlflow.active_run()
        assert active is not None
        run = mlflow.get_run(active.info.run_id)
        assert run.data.metrics == {"mine": 1.5, "train/loss": 1.0}
        assert run.data.tags["kind"] == "test"
        assert active.info.experiment_id == "0"
        assert active.info.artifact_uri == run.info.artifact_uri
        assert active.info.run_name == run.info.run_name


async def test_a_nested_run_is_a_child_with_a_journal_of_its_own(sqlite_uri: str) -> None:
    trainer = validated(sqlite_uri)
    with trainer.active_run(), mlflow.start_run(nested=True) as child:
        mlflow.log_metric("inner", 1.0)
    run = stored(sqlite_uri, trainer)

    def whole() -> StoredRun | None:  # its id is provisional if the parent's was
        try:
            found = RunStore(sqlite_uri).get(child.info.run_id)
        except RunNotFoundError:
            return None
        return found if found.status == "FINISHED" else None

    found = eventually(whole)
    assert found.tags["mlflow.parentRunId"] == run.info.run_id
    assert found.metrics == {"inner": 1.0}
    assert "inner" not in run.data.metrics


async def test_two_trainers_take_turns(sqlite_uri: str) -> None:
    first, second = validated(sqlite_uri), validated(sqlite_uri)
    for turn in range(2):
        with first.active_run():
            mlflow.log_metric("who", 1.0, step=turn)
            with second.active_run():
                mlflow.log_metric("who", 2.0, step=turn)
    assert stored(sqlite_uri, first).data.metrics["who"] == 1.0
    assert stored(sqlite_uri, second).data.metrics["who"] == 2.0
    assert len(journals()) == 2


def log_in_a_fork(run_id: str) -> None:
    client = MlflowClient()
    client.log_metric(run_id, "forked", 3.0)
    client.set_tag(run_id, "by", "a fork")


async def test_a_forked_worker_joins_the_run_with_a_journal_of_its_own(sqlite_uri: str) -> None:
    trainer = validated(sqlite_uri)
    run_id = await trainer.wait_run_id()
    with trainer.active_run():
        worker = get_context("fork").Process(target=log_in_a_fork, args=(run_id,))
        worker.start()
        worker.join(60)
    assert worker.exitcode == 0
    eventually(lambda: run_of(sqlite_uri, run_id).data.tags.get("by") == "a fork")
    run = run_of(sqlite_uri, run_id)
    assert run.data.metrics["forked"] == 3.0
    assert run.info.status == "RUNNING"


async def test_a_client_of_the_block_goes_on_when_the_trainer_is_gone(sqlite_uri: str) -> None:
    trainer = await trained(tracked(sqlite_uri, skip_provenance=FAST))
    with trainer.active_run() as active:
        client = MlflowClient()
        client.log_metric(active.info.run_id, "late", 1.0)
    run_id = stored(sqlite_uri, trainer).info.run_id
    client.log_metric(run_id, "late", 2.0, step=1)
    assert logged_steps(only_journal())[-1] == ("late", 1)
    del trainer
    eventually(lambda: not journals())
    client.log_metric(run_id, "late", 3.0, step=2)
    run = client.get_run(run_id)
    assert run.data.metrics["late"] == 3.0
    assert run.info.status == "FINISHED"


# -- the end of the run is the trainer's -----------------------------------------------------------


async def test_neither_end_run_nor_a_client_ends_the_trainers_run(sqlite_uri: str) -> None:
    trainer = validated(sqlite_uri)
    with trainer.active_run() as run:
        mlflow.end_run("FAILED")
        MlflowClient().set_terminated(run.info.run_id, "KILLED")
        MlflowClient().update_run(run.info.run_id, "FINISHED", name="renamed")
    assert not [one for one in entries(only_journal()) if isinstance(one, Status)]
    updates = [one for one in entries(only_journal()) if isinstance(one, Update)]
    assert updates == [Update(name="renamed")]
    assert stored(sqlite_uri, trainer).info.status == "RUNNING"
    await trainer.train()
    run = stored(sqlite_uri, trainer)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "renamed")


# -- params and secrets ----------------------------------------------------------------------------


async def test_only_params_that_really_differ_are_left_out_and_told_once(
    sqlite_uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = TrainConfig(learning_rate=5e-5, output_dir="mine", extra={"fp16": True, "seed": None})
    trainer = validated(sqlite_uri, config)
    theirs = {
        **{f"option_{number}": str(number) for number in range(94)},
        "learning_rate": "5.0e-05",
        "epochs": "1.0",
        "extra.fp16": "True",
        "extra.seed": "None",
        "batch_size": "16",
        "output_dir": "/tmp/out",
    }
    assert len(theirs) == 100
    with trainer.active_run() as run:
        for _ in range(2):  # as the callback does at the start of each of two trainings
            MlflowClient().log_batch(
                run.info.run_id, params=[Param(*one) for one in theirs.items()]
            )
        mlflow.log_param("batch_size", 16)
    (told,) = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    assert "batch_size is 8, not 16" in told
    assert "output_dir is mine, not /tmp/out" in told
    assert "learning_rate" not in told
    params = stored(sqlite_uri, trainer).data.params
    assert params["option_93"] == "93"
    assert (params["learning_rate"], params["batch_size"]) == ("5e-05", "8")
    assert params["output_dir"] == "mine"
    assert names.QUARANTINED not in stored(sqlite_uri, trainer).data.tags


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("1e-05", "0.00001", True),
        ("8", "8.0", True),
        ("true", "True", True),
        ("null", "None", True),
        ('["q","v"]', "['q', 'v']", True),
        ("NaN", "NaN", True),
        ("text", "text", True),
        ("1", "true", False),
        ("8", "16", False),
        ("a", "b", False),
        ("", "None", False),
        ("((", "[[", False),
    ],
)
def test_what_params_are_the_same(one: str, other: str, same: bool) -> None:
    assert is_same_value(one, other) is same
    assert is_same_value(other, one) is same


async def test_a_changed_param_of_the_users_own_is_refused_as_mlflow_does(sqlite_uri: str) -> None:
    trainer = validated(sqlite_uri)
    with trainer.active_run():
        mlflow.log_param("mine", 1)
        mlflow.log_param("mine", 1)
        with pytest.raises(MlflowException, match="Changing param values") as caught:
            mlflow.log_param("mine", 2)
        assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
        with pytest.raises(MlflowException, match="Invalid"):
            mlflow.log_metric("no@key", 1.0)
    assert stored(sqlite_uri, trainer).data.params["mine"] == "1"


async def test_secrets_in_params_and_tags_stay_out_of_the_journal(sqlite_uri: str) -> None:
    trainer = validated(sqlite_uri, redact=("internal_*",))
    with trainer.active_run() as run:
        mlflow.log_params(
            {"hf_token": "hunter2", "internal_id": "hunter2", "url": "http://a:hunter2@h"}
        )
        MlflowClient().log_batch(run.info.run_id, tags=[RunTag("api_key", "hunter2")])
        mlflow.set_tag("password", "hunter2")
        mlflow.log_param("hf_token", "hunter2")
    assert "hunter2" not in only_journal().read_text()
    run = stored(sqlite_uri, trainer)
    assert set(run.data.params) >= {"hf_token", "internal_id", "url"}
    assert set(run.data.tags) >= {"api_key", "password"}


async def test_tags_of_ours_and_the_description_are_kept_from_harm(
    sqlite_uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = validated(sqlite_uri)
    with trainer.active_run():
        mlflow.set_tags({"orbiter.state": "mine", "mlflow.note.content": "my words"})
    assert "orbiter.state" in caplog.text
    await trainer.train()
    tags = stored(sqlite_uri, trainer).data.tags
    assert tags["orbiter.state"] == "completed"
    assert tags["mlflow.note.content"] == "my words"


async def test_the_environment_may_switch_journals_of_mlflow_off(
    sqlite_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"{sqlite_uri}?timeout=7"  # MLflow keeps the stores of URIs
    trainer = tracked(uri, enabled=True)
    trainer.mark_validated()
    monkeypatch.setenv("ORBITER_MLFLOW_ENABLED", "false")
    with pytest.raises(Exception, match="ORBITER_MLFLOW_ENABLED"), trainer.active_run():
        pass
    assert MLflowSettings(tracking_uri=uri).enabled
    assert "MLFLOW_TRACKING_URI" not in os.environ
