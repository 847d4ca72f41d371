"""Checkpoints of a tracked training: artifacts of the run, uploaded once, verified when they come
back."""

import hashlib
import json
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from journals import done
from orbiter.train import TrainMetrics
from trainers import Backend, Tracked, stored, tracked, trained

Contents = dict[str, bytes]


def saved(folder: Path, files: Contents) -> Path:
    """Write a checkpoint."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def manifests(uri: str, run_id: str, folder: Path) -> dict[str, Any]:
    """The manifests of a run by their names."""
    client = MlflowClient(uri)
    found = [one.path for one in client.list_artifacts(run_id, "checkpoints") if not one.is_dir]
    return {
        path.rpartition("/")[2]: json.loads(
            Path(client.download_artifacts(run_id, path, str(folder))).read_bytes()
        )
        for path in found
    }


def contents(folder: Path) -> Contents:
    """All files in a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def blob(store: Path, content: bytes) -> Path:
    """The file of a content in the artifact store."""
    (found,) = store.rglob(hashlib.sha256(content).hexdigest())
    return found


async def test_all_checkpoints_become_artifacts_and_equal_content_is_there_once(
    sqlite_uri: str, tmp_path: Path
) -> None:
    async def body(trainer: Backend) -> TrainMetrics:
        for step in (10, 20):
            files = {"config.json": b"{}", "shards/model.bin": b"weights %d" % step, "empty": b""}
            trainer.report({"loss": 1 / step}, step=step, phase="eval")
            trainer.report_checkpoint(saved(tmp_path / f"checkpoint-{step}", files), step=step)
        return TrainMetrics()

    trainer = await trained(tracked(sqlite_uri, body=body, kind=Tracked, log_checkpoints="all"))
    run_id = stored(sqlite_uri, trainer).info.run_id
    found = manifests(sqlite_uri, run_id, tmp_path)
    assert set(found) == {"step-10.json", "step-20.json"}
    files = found["step-20.json"]["files"]
    assert files["shards/model.bin"] == {
        "size": 10,
        "sha256": hashlib.sha256(b"weights 20").hexdigest(),
    }
    client = MlflowClient(sqlite_uri)
    kept = {one.path for one in client.list_artifacts(run_id, "checkpoints/files")}
    contents = (b"{}", b"weights 10", b"weights 20", b"")
    assert kept == {f"checkpoints/files/{hashlib.sha256(one).hexdigest()}" for one in contents}
    models = client.search_logged_models([client.get_run(run_id).info.experiment_id])
    assert {(one.name, str(one.status)) for one in models} == {
        ("step-10", "READY"),
        ("step-20", "READY"),
    }
    values = {one.name: {m.key: m.value for m in one.metrics or ()} for one in models}
    assert values == {"step-10": {"eval/loss": 0.1}, "step-20": {"eval/loss": 0.05}}


async def test_a_download_brings_the_files_back_whole_or_names_the_wrong_one(
    sqlite_uri: str, tmp_path: Path
) -> None:
    files = {"config.json": b"{}", "shards/model.bin": b"weights" * 1000, "again.bin": b"{}"}

    async def body(trainer: Backend) -> TrainMetrics:
        trainer.report_checkpoint(saved(tmp_path / "checkpoint-5", files), step=5)
        return TrainMetrics()

    trainer = await trained(
        tracked(sqlite_uri, body=body, log_checkpoints="all", experiment="saved")
    )
    run_id = stored(sqlite_uri, trainer).info.run_id
    command = ("download", run_id, "--tracking-uri", sqlite_uri, "--to", tmp_path / "back")
    code, output = done(*command)
    assert code == 0, output
    assert str(tmp_path / "back" / "checkpoint-5") in output.splitlines()
    assert contents(tmp_path / "back" / "checkpoint-5") == files
    blob(tmp_path, files["shards/model.bin"]).write_bytes(b"Weights" * 1000)
    assert done(*command)[0] == 0  # it is there already, and is not fetched again
    code, output = done(*command[:-1], tmp_path / "other")
    assert code == 1
    assert "'shards/model.bin'" in output
    assert not (tmp_path / "other" / "checkpoint-5").exists()
    (tmp_path / "back" / "checkpoint-5" / "config.json").write_bytes(b"[]")
    code, output = done(*command)
    assert code == 1
    assert "'config.json' has the SHA-256" in output
