"""A tracking URI with the prefix `journal+` names, for all of our own, the store behind it."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from mlflow import MlflowClient

from gate_runs import BLESSED, Shelf
from orbiter.train import TrainConfig
from orbiter_mlflow import load_config
from orbiter_mlflow.cli.main import commands
from orbiter_mlflow.delivery.store_uri import PREFIX
from scripts import output, started
from trainers import Tracked, journals, only_journal, reporting, stored, tracked, trained
from waiting import eventually

POLICY = """
[gate]
schema = 1
candidate_runs = 1
[baseline]
filter = "tags.baseline = 'main'"
[metrics."eval/accuracy"]
direction = "higher"
max_drop = 0.01
"""


@pytest.fixture(scope="module")
def shelf(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    made = Shelf.fresh(empty_store, tmp_path_factory.mktemp("shelf"))
    for seed, value in enumerate((0.90, 0.91, 0.92, 0.89, 0.93)):
        made.add(f"old {seed}", {"eval/accuracy": value}, tags=BLESSED)
    made.add("good", {"eval/accuracy": 0.91})
    made.add("bad", {"eval/accuracy": 0.5}, params={"learning_rate": "0.1"})
    return made


@pytest.mark.parametrize("by_option", [True, False], ids=["option", "environment"])
@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("check gate.toml --candidate good", 0),
        ("check gate.toml --candidate bad", 1),
        ("diff good bad --experiment Default", 0),
        ("history eval/accuracy", 0),
        ("reproduce bad --experiment Default", 1),
        ("reproduce nobody --experiment Default", 2),
        ("ui", 0),
        ("ui --experiment none", 1),
        ("bless good --reason r --file new.json", 0),
        ("sync", 0),
    ],
)
def test_commands_answer_as_with_the_plain_uri(
    shelf: Shelf, command: str, code: int, by_option: bool
) -> None:
    Path("gate.toml").write_text(POLICY)

    def answer(uri: str) -> tuple[int, str]:
        Path("new.json").unlink(missing_ok=True)
        options, environment = ["--tracking-uri", uri], {}
        if not by_option:
            options, environment = [], {"MLFLOW_TRACKING_URI": uri}
        runner = CliRunner(env={"COLUMNS": "1000", **environment})
        result = runner.invoke(commands, [*command.split(), *options])
        return result.exit_code, result.output

    plain, prefixed = answer(shelf.uri), answer(PREFIX + shelf.uri)
    assert plain[0] == code, plain[1]
    assert prefixed == plain


def test_a_relative_store_is_found_from_the_working_folder(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(shelf.uri.removeprefix("sqlite:///")).parent)
    options = ["--tracking-uri", "journal+sqlite:///store.db"]
    result = CliRunner().invoke(commands, ["ui", *options])
    assert result.exit_code == 0, result.output


def test_a_store_that_does_not_exist_is_named_without_the_prefix() -> None:
    options = ["--tracking-uri", "journal+sqlite:///none.db"]
    result = CliRunner().invoke(commands, ["ui", *options])
    assert result.exit_code == 1
    assert "none.db" in result.output
    assert PREFIX not in result.output


@pytest.mark.parametrize("by_option", [True, False], ids=["option", "environment"])
def test_the_gate_in_pytest_reads_the_store_behind_it(
    shelf: Shelf, tmp_path: Path, by_option: bool
) -> None:
    (tmp_path / "gate.toml").write_text(POLICY)
    (tmp_path / "test_it.py").write_text(
        "def test_it(metric_gate):\n    metric_gate.check('good', policy='gate.toml')\n"
    )
    uri = PREFIX + shelf.uri
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "--rootdir", "."]
    ended = subprocess.run(
        [*command, "--orbiter-tracking-uri", uri] if by_option else command,
        cwd=tmp_path,
        env={**os.environ, "PYTEST_ADDOPTS": ""}
        | ({} if by_option else {"MLFLOW_TRACKING_URI": uri}),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "PASS" in ended.stdout


# -- trainers --------------------------------------------------------------------------------------


async def test_a_trainer_is_tracked_in_the_store_behind_it(sqlite_uri: str) -> None:
    config = TrainConfig(epochs=3, extra={"seed": 5})
    trainer = await trained(tracked(PREFIX + sqlite_uri, config))
    run = stored(sqlite_uri, trainer)
    assert run.info.status == "FINISHED"
    assert load_config(run.info.run_id, tracking_uri=PREFIX + sqlite_uri) == config
    assert trainer.run_url is not None
    assert PREFIX not in trainer.run_url + repr(trainer)
    assert PREFIX not in only_journal().read_text()


def test_load_config_takes_it_from_the_environment(
    sqlite_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = asyncio.run(trained(tracked(sqlite_uri, TrainConfig(epochs=3))))
    run_id = stored(sqlite_uri, trainer).info.run_id
    monkeypatch.setenv("MLFLOW_TRACKING_URI", PREFIX + sqlite_uri)
    assert load_config(run_id, TrainConfig).epochs == 3


@pytest.mark.parametrize("delivery", ["process", "thread"])
def test_a_process_with_it_in_the_environment_delivers_all_of_a_run(
    server_uri: str, tmp_path: Path, delivery: str
) -> None:
    script = f"""
        trainer = validated(experiment="prefix {delivery}", delivery={delivery!r})
        Path("notes.txt").write_text("hello")
        trainer.log_artifact("notes.txt")
        asyncio.run(trainer.train())
        print(trainer.run_id, trainer.run_url)
    """
    environ = {"MLFLOW_TRACKING_URI": PREFIX + server_uri}
    run_id, url = output(started(script, tmp_path, environ=environ)).split()
    client = MlflowClient(server_uri)
    assert url.startswith(server_uri)
    assert client.get_run(run_id).info.status == "FINISHED"
    eventually(lambda: "notes.txt" in [one.path for one in client.list_artifacts(run_id)])
    eventually(lambda: not journals())


async def test_sync_delivers_there_without_a_question(
    server_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = reporting(({"loss": 1.0}, 1))
    trainer = tracked(server_uri, body=body, experiment="prefix sync", delivery="offline")
    await trained(trainer)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", PREFIX + server_uri)
    (journal,) = journals()
    result = CliRunner().invoke(commands, ["sync", str(journal), "--ended", "--wait", "60"])
    assert "refused" not in result.output
    client = MlflowClient(server_uri)
    experiment = client.get_experiment_by_name("prefix sync")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.metrics["train/loss"] == 1.0


def test_a_trainer_and_a_resumed_one_share_the_run(sqlite_uri: str) -> None:
    first = asyncio.run(trained(tracked(sqlite_uri)))
    run_id = stored(sqlite_uri, first).info.run_id
    again: Tracked = tracked(PREFIX + sqlite_uri, run_id=run_id)
    asyncio.run(trained(again))
    assert stored(sqlite_uri, again).info.run_id == run_id
