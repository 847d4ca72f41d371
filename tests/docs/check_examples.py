"""The examples: each runs as a user runs it, and leaves in the store what it says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pages import ROOT, Block, Session, opened

EXAMPLES = ROOT / "examples"


@pytest.fixture
def session(own_folder: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    return opened(own_folder, empty_store, monkeypatch)


def done(script: str, empty_store: Path) -> str:
    """What a script prints, run in the present folder."""
    Path("mlflow.db").write_bytes(empty_store.read_bytes())
    environment = os.environ | {"ORBITER_MLFLOW_SKIP_PROVENANCE": "git,packages"}
    ended = subprocess.run(
        [sys.executable, str(EXAMPLES / script)],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stderr == ""
    return ended.stdout


def statuses(experiment: str) -> dict[str, str]:
    """Name -> status of the runs of an experiment."""
    client = MlflowClient(f"sqlite:///{Path.cwd()}/mlflow.db")
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    runs = client.search_runs([found.experiment_id])
    return {run.info.run_name: run.info.status for run in runs}


def test_a_trainer_of_ones_own(empty_store: Path) -> None:
    out = done("own_trainer.py", empty_store)
    assert "its config, loaded back, is equal: True" in out
    assert statuses("own-trainer") == {"first": "FINISHED"}


def test_offline_then_sync(empty_store: Path) -> None:
    out = done("offline_then_sync.py", empty_store)
    assert out.count("waiting") == 2
    assert out.count(": delivered, run ") == 2
    assert statuses("offline") == {"walk-0": "FINISHED", "walk-1": "FINISHED"}


def test_the_baseline_that_is_committed_judges(session: Session, own_folder: Path) -> None:
    for name in ("train.py", "gate.toml", "baseline.json"):
        (own_folder / name).write_bytes((EXAMPLES / "ci_gate" / name).read_bytes())
    script = """
        python train.py change
        orbiter-mlflow check gate.toml --candidate "tags.attempt = 'change'" --experiment gate
        """
    session.run(Block("sh", "", script, 0))
    assert "PASS" in session.output


@pytest.mark.parametrize("script", sorted(path.name for path in EXAMPLES.rglob("*.py")))
def test_an_example_is_short(script: str) -> None:
    (path,) = EXAMPLES.rglob(script)
    assert path.read_text(encoding="utf-8").count("\n") < 110
