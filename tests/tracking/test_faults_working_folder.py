"""What MLflow takes from the working folder means the training's, wherever delivery runs."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from orbiter_mlflow import MLflowSettings
from orbiter_mlflow.delivery.mlflow_client.opening import artifact_root
from scripts import output, started
from waiting import eventually

KEEPS = """
    Path("notes.txt").write_text("kept")
    trainer = Tracked(mlflow=MLflowSettings(**SETTINGS))
    trainer.mark_validated()
    trainer.log_artifact("notes.txt")
    asyncio.run(trainer.train())
"""


def keeps(**settings: str) -> str:
    return f"    SETTINGS = {settings!r}" + KEEPS


def location(uri: str, experiment: str) -> str:
    found = MlflowClient(uri).get_experiment_by_name(experiment)
    assert found is not None
    return str(found.artifact_location)


def kept(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("notes.txt") if "artifacts" in path.parts)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    folder = tmp_path / "project" / "training"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("user", [False, True], ids=["as we are", "not root"])
@pytest.mark.parametrize("delivery", ["process", "thread"])
def test_artifacts_of_a_fresh_default_store_lie_beside_it(
    elsewhere: Path, delivery: str, user: bool
) -> None:
    for experiment in ("Default", "named"):
        script = keeps(delivery=delivery, experiment=experiment)
        output(started(script, elsewhere, user=user))
    uri = f"sqlite:///{elsewhere}/mlflow.db"
    assert location(uri, "Default") == f"{elsewhere}/mlruns/0"
    assert location(uri, "named") == f"{elsewhere}/mlruns/1"
    eventually(lambda: len(kept(elsewhere / "mlruns")) == 2)


def test_artifacts_lie_beside_the_database_wherever_the_training_runs(
    elsewhere: Path, tmp_path: Path
) -> None:
    (tmp_path / "stores").mkdir()
    uri = f"sqlite:///{tmp_path}/stores/all.db"
    output(started(keeps(tracking_uri=uri, experiment="named"), elsewhere))
    eventually(lambda: len(kept(tmp_path / "stores" / "mlruns" / "1")) == 1)


def test_sync_from_anywhere_puts_them_beside_the_database(elsewhere: Path, tmp_path: Path) -> None:
    settings = {"delivery": "offline", "spool_dir": "spool", "experiment": "named"}
    output(started(keeps(**settings), elsewhere))
    command = [sys.executable, "-m", "orbiter_mlflow", "sync", str(elsewhere / "spool")]
    ended = subprocess.run(command, cwd=os.sep, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert len(kept(elsewhere / "mlruns" / "1")) == 1


def test_a_database_server_keeps_them_in_the_trainings_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert artifact_root("postgresql+psycopg2://u@h/db", "/home/mine") == "/home/mine/mlruns"
    assert artifact_root("postgresql://u@h/db", None) is None
    assert artifact_root("sqlite:////data/x.db", "/home/mine") == "/data/mlruns"
    assert artifact_root("sqlite:///file:/data/x.db?mode=rw&uri=true", None) == "/data/mlruns"
    assert artifact_root("https://h", "/home/mine") is None
    monkeypatch.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", "s3://theirs")
    assert artifact_root("sqlite:////data/x.db", "/home/mine") is None


def test_a_store_gets_the_mode_that_the_training_gives_to_files(elsewhere: Path) -> None:
    script = "    os.umask(0o027)\n" + keeps()
    output(started(script, elsewhere))
    (file,) = eventually(lambda: kept(elsewhere / "mlruns"))
    assert stat.S_IMODE((elsewhere / "mlflow.db").stat().st_mode) == 0o640
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o750


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("file:runs", "file://{here}/runs"),
        ("file:./runs", "file://{here}/runs"),
        ("file:a%20b", "file://{here}/a%20b"),
        ("file:///abs/runs", "file:///abs/runs"),
        ("runs", "file://{here}/runs"),
        ("sqlite+pysqlite:///a.db", "sqlite+pysqlite:///{here}/a.db"),
        ("sqlite:///file:a.db?mode=ro&uri=true", "sqlite:///file:{here}/a.db?mode=ro&uri=true"),
        ("databricks", "databricks"),
        ("databricks://profile", "databricks://profile"),
    ],
)
def test_a_relative_uri_is_taken_from_the_present_folder_at_once(
    given: str, wanted: str, tmp_path: Path
) -> None:
    assert MLflowSettings(tracking_uri=given).tracking_uri == wanted.format(here=tmp_path)
