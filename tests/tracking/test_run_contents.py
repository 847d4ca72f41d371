"""What a run looks like in MLflow: params, tags, status, where it comes from; and no secrets."""

import gc
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from folders import each_file
from orbiter.train import TrainConfig, TrainerError, TrainMetrics
from orbiter_mlflow import config_from_params, config_to_params, names
from orbiter_mlflow.delivery.records import Params
from trainers import (
    Tracked,
    journals,
    only_journal,
    recorded,
    reporting,
    run_of,
    stored,
    tags_of,
    tracked,
    trained,
)
from waiting import eventually

SECRET = "hunter2-5f1c9e"


@dataclass(slots=True)
class LoraConfig(TrainConfig):
    rank: int = 8
    targets: list[str] = field(default_factory=lambda: ["q", "v"])


def instant(run: Run, state: str) -> datetime:
    return datetime.fromisoformat(tags_of(run)[names.state_at(state)])


def of_time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


@pytest.mark.parametrize("store", ["sqlite", "server"])
async def test_a_whole_run(store: str, request: pytest.FixtureRequest) -> None:
    uri: str = request.getfixturevalue(f"{store}_uri")
    config = LoraConfig(learning_rate=3e-4, extra={"lora": {"r": 4}, "note": "one"})
    body = reporting(({"loss": 2.0}, 1), ({"loss": 1.0}, 2), result=TrainMetrics(0.5, 0.7, 2))
    trainer = tracked(uri, config, body, experiment="whole runs", run_name=f"on {store}")
    trainer.check_agent(object())
    trainer.check_dataset([1, 2, 3], [4])
    trainer.check_reward()
    trainer.check_config()
    await trainer.evaluate()
    await trained(trainer)
    await trainer.evaluate()

    run = stored(uri, trainer)
    client = MlflowClient(uri)
    assert client.get_experiment(run.info.experiment_id).name == "whole runs"
    assert run.info.run_name == f"on {store}"
    assert run.info.status == "FINISHED"
    assert run.data.params == config_to_params(config)
    assert config_from_params(run.data.params, LoraConfig) == config
    losses = client.get_metric_history(run.info.run_id, "train/loss")
    assert sorted((m.step, m.value) for m in losses) == [(1, 2.0), (2, 1.0)]
    assert run.data.metrics == {
        "train/loss": 1.0,
        "train/final/loss": 0.5,
        "train/accuracy": 0.7,
        "train/steps": 2.0,
        "eval/loss": 0.25,
        "eval/accuracy": 0.75,
    }
    assert {
        (entry.dataset.name, entry.tags[0].value, entry.dataset.profile)
        for entry in run.inputs.dataset_inputs
    } == {
        ("train_data", "train", '{"num_rows": 3, "digest": "all"}'),
        ("test_data", "eval", '{"num_rows": 1, "digest": "all"}'),
    }
    tags = tags_of(run)
    assert tags[names.CHECKS] == "check_agent,check_dataset,check_reward,check_config"
    assert tags[names.TRAINER] == "trainers:Tracked"
    assert tags[names.CONFIG_TYPE] == f"{__name__}:LoraConfig"
    assert len(tags[names.CONFIG_DIGEST]) == 64
    assert not any(key.startswith("orbiter.error") for key in tags)


async def test_each_state_that_was_reached_has_its_time(sqlite_uri: str) -> None:
    trainer = tracked(sqlite_uri)
    await trainer.evaluate()
    born = stored(sqlite_uri, trainer)
    assert born.info.status == "RUNNING"
    assert names.STATE not in tags_of(born)
    await trained(trainer)
    run = stored(sqlite_uri, trainer)
    assert tags_of(run)[names.STATE] == "completed"
    times = [instant(run, state) for state in ("validated", "training", "completed")]
    assert all(time.utcoffset() == timedelta(0) for time in times)
    ends = [of_time(run.info.start_time), *times, of_time(run.info.end_time)]
    assert ends == sorted(ends)
    reached = {key for key in tags_of(run) if key.endswith("_at")}
    assert reached == {names.state_at(state) for state in ("validated", "training", "completed")}


async def test_a_failed_training(sqlite_uri: str) -> None:
    async def body(_: object) -> TrainMetrics:
        raise ValueError("no \x00 gradient")

    trainer = tracked(sqlite_uri, body=body)
    trainer.mark_validated()
    with pytest.raises(TrainerError, match="gradient"):
        await trainer.train()
    run = stored(sqlite_uri, trainer)
    assert run.info.status == "FAILED"
    assert tags_of(run)[names.STATE] == "failed"
    assert instant(run, "failed") >= instant(run, "training")
    assert names.state_at("completed") not in tags_of(run)
    assert tags_of(run)[names.ERROR_TYPE] == "ValueError"
    assert tags_of(run)[names.ERROR_MESSAGE] == "no \\x00 gradient"
    assert tags_of(run)[names.ERROR_PHASE] == "train"


# -- params --------------------------------------------------------------------------------------


async def test_params_are_written_once_as_they_were_validated(sqlite_uri: str) -> None:
    async def body(trainer: Any) -> TrainMetrics:
        trainer.config.learning_rate = 9.0
        return TrainMetrics()

    trainer = tracked(sqlite_uri, TrainConfig(epochs=1), body)
    trainer.check_config(TrainConfig(epochs=7))
    await trainer.evaluate()
    assert stored(sqlite_uri, trainer).data.params == {}
    await trained(trainer)
    await trainer.evaluate()
    run_id = stored(sqlite_uri, trainer).info.run_id
    assert len(recorded(Params)) == 1
    del trainer
    gc.collect()
    eventually(lambda: not journals())
    assert run_of(sqlite_uri, run_id).data.params == config_to_params(TrainConfig(epochs=7))


async def test_params_of_a_trainer_that_only_evaluates_are_written_at_the_end(
    sqlite_uri: str,
) -> None:
    trainer = tracked(sqlite_uri, TrainConfig(epochs=5))
    await trainer.evaluate()
    run_id = stored(sqlite_uri, trainer).info.run_id
    del trainer
    gc.collect()
    eventually(lambda: not journals())
    run = run_of(sqlite_uri, run_id)
    assert run.data.params == config_to_params(TrainConfig(epochs=5))
    assert run.info.status == "FINISHED"


# -- birth ---------------------------------------------------------------------------------------


def test_a_trainer_that_only_fails_its_checks_leaves_nothing(sqlite_uri: str) -> None:
    class Strict(Tracked):
        def check_reward(self, reward_fn: Any = None) -> None:
            raise TrainerError("no reward")

    trainer = tracked(sqlite_uri, kind=Strict)
    trainer.check_agent(object())
    trainer.check_dataset([1])
    with pytest.raises(TrainerError, match="no reward"):
        trainer.check_reward()
    del trainer
    gc.collect()
    assert journals() == []
    assert MlflowClient(sqlite_uri).search_runs(["0"]) == []


def test_a_check_that_failed_is_not_among_those_that_passed(sqlite_uri: str) -> None:
    class Picky(Tracked):
        def check_dataset(self, train_data: Any, test_data: Any = None) -> None:
            if not train_data:
                raise TrainerError("no data")

    trainer = tracked(sqlite_uri, kind=Picky)
    trainer.check_reward()
    with pytest.raises(TrainerError):
        trainer.check_dataset([])
    trainer.mark_validated()
    run = stored(sqlite_uri, trainer)
    assert tags_of(run)[names.CHECKS] == "check_reward"
    assert run.inputs.dataset_inputs == []


# -- where it comes from, and what it is called --------------------------------------------------


def test_the_settings_of_a_run(sqlite_uri: str) -> None:
    client = MlflowClient(sqlite_uri)
    experiment_id = client.create_experiment("by id")
    parent = client.create_run(experiment_id).info.run_id
    trainer = tracked(
        sqlite_uri,
        experiment_id=experiment_id,
        parent_run_id=parent,
        description="# Why\nbecause",
        tags={"team": "rl", "a@b": "odd key"},
    )
    trainer.mark_validated()
    run = stored(sqlite_uri, trainer)
    assert run.info.experiment_id == experiment_id
    assert run.info.run_name
    assert tags_of(run)[names.DESCRIPTION].startswith("# Why\nbecause\n")
    assert (tags_of(run)["team"], tags_of(run)["a:40:b"]) == ("rl", "odd key")
    (child,) = client.search_runs([experiment_id], f"tags.`{names.PARENT_RUN_ID}` = '{parent}'")
    assert child.info.run_id == run.info.run_id


def test_a_run_tells_its_user_and_program(sqlite_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
    monkeypatch.setenv("MLFLOW_RUN_CONTEXT", '{"job@cluster": "7", "\\ud800": "8"}')
    trainer = tracked(sqlite_uri)
    trainer.mark_validated()
    run = stored(sqlite_uri, trainer)
    assert run.info.user_id == tags_of(run)[names.USER] == "ada"
    assert tags_of(run)[names.SOURCE_NAME] == sys.argv[0]
    assert tags_of(run)[names.SOURCE_TYPE] == "LOCAL"
    assert (tags_of(run)["job:40:cluster"], tags_of(run)[":d800:"]) == ("7", "8")
    assert run.info.experiment_id == "0"


def test_a_run_tells_its_commit(
    sqlite_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    script = repository / "script.py"
    script.write_text("")
    author = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    for command in (("init", "-q", "-b", "work"), ("add", "."), (*author, "commit", "-qm", "one")):
        subprocess.run(["git", *command], cwd=repository, check=True)
    monkeypatch.setattr(sys, "argv", [str(script)])
    trainer = tracked(sqlite_uri)
    trainer.mark_validated()
    eventually(lambda: names.GIT_DIRTY in tags_of(stored(sqlite_uri, trainer)))
    tags = tags_of(stored(sqlite_uri, trainer))
    commit = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=repository, text=True)
    assert tags[names.GIT_COMMIT] == commit.strip()
    assert tags[names.GIT_BRANCH] == "work"
    assert tags[names.GIT_DIRTY] == "false"


# -- secrets -------------------------------------------------------------------------------------


def files_with(text: str, folder: Path) -> list[Path]:
    found = each_file(folder, Path.read_bytes)
    return [
        path for path, content in found.items() if text in str(path) or text.encode() in content
    ]


async def test_a_secret_is_nowhere(
    sqlite_uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Data(list[int]):
        name = f"https://ada:{SECRET}@example.org/data"

    async def body(trainer: Any) -> TrainMetrics:
        trainer.report({"api_key": SECRET, "credentials": {"value": SECRET}}, step=1)
        raise ValueError(f"refused: api_key={SECRET}")

    caplog.set_level("DEBUG")
    trainer = tracked(
        sqlite_uri,
        TrainConfig(extra={"api_key": SECRET, "nested": [{"hf_token": SECRET}]}),
        body,
        tags={"password": SECRET},
        description=f"see https://ada:{SECRET}@example.org",
        run_name=f"token={SECRET}",
        redact=("internal_*",),
    )
    trainer.check_dataset(Data([1]))
    trainer.set_tag("internal_id", SECRET)
    trainer.set_tag("where", f"https://ada:{SECRET}@example.org")
    await trainer.evaluate(Data([2]))
    trainer.mark_validated()
    with pytest.raises(TrainerError):
        await trainer.train()
    run = stored(sqlite_uri, trainer)
    assert "redacted" in run.data.params["extra.api_key"]
    assert "extra.api_key" in tags_of(run)[names.CONFIG_REDACTED]
    assert tags_of(run)["where"] == "https://[redacted]@example.org"
    assert SECRET.encode() not in only_journal().read_bytes()
    assert SECRET not in caplog.text
    assert files_with(SECRET, tmp_path) == []
    assert files_with("run_name", tmp_path) != []  # the store and the journal were searched


async def test_a_name_is_redacted_as_any_text_is(
    sqlite_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = f"hf_{'AbCd0123' * 3}"
    monkeypatch.setenv("MLFLOW_RUN_CONTEXT", f'{{"job {token}": "x", "job.api_key": "{SECRET}"}}')
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    (outside / token).mkdir(parents=True)
    (outside / f"{token}.txt").write_text("a")
    (outside / token / "b.txt").write_text("b")

    async def body(trainer: Any) -> TrainMetrics:
        for step in (1, 2):
            trainer.report({f"score {token}": 0.5, f"note {token}": "x", "loss": 1.0}, step=step)
        return TrainMetrics(extra={f"late {token}": 1})

    trainer = tracked(
        sqlite_uri,
        TrainConfig(extra={"auth": ("secret", SECRET), "run": ["curl", "-u", f"me:{SECRET}"]}),
        body,
        experiment=f"with {token}",
        run_name=f"run {token}",
        tags={f"team {token}": "x"},
    )
    trainer.mark_validated()
    trainer.set_tag(f"tag {token}", "x")
    trainer.log_artifact(outside / f"{token}.txt", folder=f"to {token}")
    trainer.log_artifact(outside / token)
    await trainer.train()
    run = stored(sqlite_uri, trainer)
    assert run.info.run_name == "run [redacted]"
    assert {f"train/{key} :5b:redacted:5d:" for key in ("score", "late")} <= run.data.metrics.keys()
    assert "team :5b:redacted:5d:" in tags_of(run)
    assert tags_of(run)["job.api_key"] == "[redacted]"
    client = MlflowClient(sqlite_uri)
    assert client.get_experiment(run.info.experiment_id).name == "with [redacted]"
    for secret in (token, SECRET):
        assert files_with(secret, tmp_path) == []


def test_the_special_tokens_of_agents_are_no_secrets() -> None:
    tokens = {"action_token": "<|action|>", "my_agent_token": "<|agent|>", "tool_token": "tool"}
    config = TrainConfig(extra=tokens)
    params = config_to_params(config)
    assert params["extra.my_agent_token"] == "<|agent|>"
    assert config_from_params(params, TrainConfig) == config
