"""Checkpoints of a tracked training: artifacts of the run, uploaded once, verified when they come
back."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from pydantic import ValidationError

from folders import each_file
from journals import done
from orbiter.train import TrainMetrics
from orbiter_mlflow import MLflowSettings, StoreError, names, newest_checkpoint
from orbiter_mlflow.delivery.checkpoints.manifest import decoded
from orbiter_mlflow.delivery.records import Checkpoint, Tags
from orbiter_mlflow.runs.checkpoints import checkpoints_of, download
from orbiter_mlflow.runs.store import RunStore
from trainers import Backend, Body, only_journal, recorded, stored, tracked, trained
from waiting import eventually

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
    folder.mkdir(exist_ok=True)
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

    trainer = await trained(tracked(sqlite_uri, body=body, log_checkpoints="all"))
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
    ranked = client.search_logged_models(
        [client.get_run(run_id).info.experiment_id],
        order_by=[{"field_name": "metrics.eval/loss", "ascending": True}],
    )
    assert [one.name for one in ranked] == ["step-20", "step-10"]
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


# -- what is kept ----------------------------------------------------------------------------------


def saving(
    folder: Path, steps: Sequence[int], after: Callable[[int], None] = lambda step: None
) -> Body:
    """A training that saves and reports a checkpoint at each of these steps."""

    async def body(trainer: Backend) -> TrainMetrics:
        for step in steps:
            trainer.report({"loss": 1 / step}, step=step, phase="eval")
            path = saved(folder / f"checkpoint-{step}", {"model.bin": b"weights %d" % step})
            trainer.report_checkpoint(path, step=step)
            after(step)
        return TrainMetrics()

    return body


def links() -> list[Path]:
    """The links that keep files of checkpoints, in the spool of the current test."""
    folder = only_journal().with_suffix(".files")
    found = each_file(folder, Path.read_bytes)
    return [path for path, content in found.items() if content.startswith(b"weights")]


async def test_without_the_setting_a_checkpoint_is_nothing_to_the_run(
    sqlite_uri: str, tmp_path: Path
) -> None:
    body = saving(tmp_path, [1])
    await trained(tracked(sqlite_uri, body=body, delivery="offline"))
    assert recorded(Checkpoint) == []


async def test_what_a_training_removes_at_once_is_in_the_store_all_the_same(
    sqlite_uri: str, tmp_path: Path
) -> None:
    def remove(step: int) -> None:
        shutil.rmtree(tmp_path / f"checkpoint-{step}")

    settings: dict[str, Any] = {"log_checkpoints": "all", "experiment": "saved"}
    trainer = await trained(tracked(sqlite_uri, body=saving(tmp_path, [1, 2], remove), **settings))
    run_id = stored(sqlite_uri, trainer).info.run_id
    assert set(manifests(sqlite_uri, run_id, tmp_path)) == {"step-1.json", "step-2.json"}


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"log_checkpoints": "all"}, 5),
        ({"log_checkpoints": "last"}, 1),
        (
            {
                "log_checkpoints": "best",
                "checkpoint_metric": "eval/loss",
                "checkpoint_direction": "higher",
            },
            1,
        ),
    ],
)
async def test_links_hold_no_more_on_the_disk_than_may_be_kept(
    sqlite_uri: str, tmp_path: Path, settings: dict[str, Any], kept: int
) -> None:
    body = saving(tmp_path, range(1, 6))
    trainer = await trained(tracked(sqlite_uri, body=body, delivery="offline", **settings))
    assert len(recorded(Checkpoint)) == 5
    eventually(lambda: len(links()) == kept)
    del trainer


async def test_a_disk_without_room_lets_removed_files_go(
    sqlite_uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(trainer: Backend) -> TrainMetrics:
        for step in (1, 2):
            path = tmp_path / f"checkpoint-{step}"
            path.mkdir()
            with (path / "model.bin").open("wb") as file:
                file.truncate(shutil.disk_usage(tmp_path).total)  # takes no room
            trainer.report_checkpoint(path, step=step)
        return TrainMetrics()

    trainer = await trained(
        tracked(sqlite_uri, body=body, delivery="offline", log_checkpoints="all")
    )
    eventually(lambda: "has room for less than 2 more checkpoints" in caplog.text)
    folder = only_journal().with_suffix(".files")
    size: Callable[[Path], int] = lambda path: path.stat().st_size  # noqa: E731
    eventually(lambda: sum(one > 10**6 for one in each_file(folder, size).values()) == 1)
    del trainer


def hostile(folder: Path, kind: str) -> Path:
    """A checkpoint that cannot be kept whole."""
    path = saved(folder / "checkpoint-1", {"model.bin": b"weights"})
    match kind:
        case "a link that leads out":
            (path / "key").symlink_to(folder / "secret")
        case "a FIFO":
            os.mkfifo(path / "pipe")
        case "a secret in a name":
            (path / "hf_abcdefghijklmnopqrstuvwxyzABCDEFGH").write_bytes(b"")
        case "a name that is no text":
            Path(os.fsdecode(os.fsencode(path) + b"/\xff")).write_bytes(b"")
        case "no file":
            (path / "model.bin").unlink()
        case "no folder":
            shutil.rmtree(path)
    return path


@pytest.mark.parametrize(
    "kind",
    [
        "a link that leads out",
        "a FIFO",
        "a secret in a name",
        "a name that is no text",
        "no file",
        "no folder",
    ],
)
async def test_a_checkpoint_that_cannot_be_kept_whole_is_not_kept_and_told(
    sqlite_uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    (tmp_path / "secret").write_text("secret")

    async def body(trainer: Backend) -> TrainMetrics:
        trainer.report_checkpoint(hostile(tmp_path, kind), step=1)
        return TrainMetrics()

    trainer = await trained(
        tracked(sqlite_uri, body=body, delivery="offline", log_checkpoints="all")
    )
    assert recorded(Checkpoint) == []
    (said,) = [text for one in caplog.records if "checkpoint" in (text := one.getMessage())]
    assert said.startswith("checkpoint checkpoint-1 of step 1 is not logged: ")
    assert "hf_abc" not in said
    (tag,) = [
        record.values[names.ARTIFACT_PROBLEMS]
        for record in recorded(Tags)
        if names.ARTIFACT_PROBLEMS in record.values
    ]
    assert "checkpoint checkpoint-1 of step 1" in tag
    folder = only_journal().with_suffix(".files")
    assert not folder.exists() or links() == []
    del trainer


async def test_a_single_file_is_a_checkpoint_too(sqlite_uri: str, tmp_path: Path) -> None:
    async def body(trainer: Backend) -> TrainMetrics:
        (tmp_path / "model.pt").write_bytes(b"weights")
        trainer.report_checkpoint(tmp_path / "model.pt", step=3)
        return TrainMetrics()

    settings: dict[str, Any] = {"log_checkpoints": "last", "experiment": "saved"}
    trainer = await trained(tracked(sqlite_uri, body=body, **settings))
    run_id = stored(sqlite_uri, trainer).info.run_id
    back = newest_checkpoint(run_id, tmp_path / "back", tracking_uri=sqlite_uri)
    assert back == tmp_path / "back" / "step-3"
    assert contents(tmp_path / "back" / "step-3") == {"model.pt": b"weights"}


async def test_a_report_reads_and_copies_no_file(sqlite_uri: str, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint-1"
    size = shutil.disk_usage(tmp_path).total  # takes no room, but to read it would take minutes

    async def body(trainer: Backend) -> TrainMetrics:
        path.mkdir()
        with (path / "model.bin").open("wb") as file:
            file.truncate(size)
        trainer.report_checkpoint(path, step=1)
        kept = each_file(only_journal().with_suffix(".files"), Path.stat).values()
        assert (path / "model.bin").stat().st_ino in [status.st_ino for status in kept]
        return TrainMetrics()

    await trained(tracked(sqlite_uri, body=body, delivery="offline", log_checkpoints="all"))


# -- coming back -----------------------------------------------------------------------------------


async def test_the_newest_one_of_all_lives_continues_a_run(sqlite_uri: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "experiment": "saved",
        "log_checkpoints": "all",
        "checkpoint_metric": "eval/loss",
        "checkpoint_direction": "higher",
    }
    first = await trained(tracked(sqlite_uri, body=saving(tmp_path / "a", [1, 2]), **settings))
    run_id = stored(sqlite_uri, first).info.run_id
    back = newest_checkpoint(run_id, tmp_path / "back", tracking_uri=sqlite_uri)
    assert back == tmp_path / "back" / "checkpoint-2"
    second = await trained(
        tracked(sqlite_uri, body=saving(tmp_path / "b", [2, 3]), run_id=run_id, **settings)
    )
    stored(sqlite_uri, second)
    found = manifests(sqlite_uri, run_id, tmp_path / "manifests")
    assert {name: one["step"] for name, one in found.items()} == {
        "step-1.json": 1,
        "step-2.json": 2,
        "step-2.life-2.json": 2,
        "step-3.life-2.json": 3,
    }
    back = newest_checkpoint(run_id, tmp_path / "back", tracking_uri=sqlite_uri)
    assert back == tmp_path / "back" / "checkpoint-3"
    command = ("download", run_id, "--tracking-uri", sqlite_uri, "--to", tmp_path / "best")
    code, output = done(*command, "--checkpoint", "best")
    assert code == 0, output
    assert "step 1, eval/loss 1: 1 file, 9 bytes, verified" in output
    code, output = done(*command, "--checkpoint", "7")
    assert code == 2
    assert "no checkpoint of step 7; there are those of 1, 2, 3" in output


async def test_a_run_without_checkpoints_has_no_newest_one(sqlite_uri: str, tmp_path: Path) -> None:
    trainer = await trained(tracked(sqlite_uri))
    run_id = stored(sqlite_uri, trainer).info.run_id
    assert newest_checkpoint(run_id, tmp_path, tracking_uri=sqlite_uri) is None
    code, output = done("download", run_id, "--tracking-uri", sqlite_uri, "--checkpoint", "best")
    assert code == 2
    assert "no checkpoint in the store: set log_checkpoints" in output


async def test_an_interrupted_download_goes_on_and_looks_like_none_till_then(
    sqlite_uri: str, tmp_path: Path
) -> None:
    body = saving(tmp_path, [1])
    trainer = await trained(tracked(sqlite_uri, body=body, log_checkpoints="all", experiment="x"))
    run_id = stored(sqlite_uri, trainer).info.run_id
    store = RunStore(sqlite_uri)
    (found,) = checkpoints_of(store, run_id)
    content = b"weights 1"
    there = blob(tmp_path, content)
    there.unlink()
    back = tmp_path / "back"
    with pytest.raises(StoreError):
        download(store, found, back)
    assert [path.name for path in listed(back)] == [".checkpoint-1.download"]
    there.write_bytes(content)
    assert download(store, found, back) == back / "checkpoint-1"
    assert [path.name for path in listed(back)] == ["checkpoint-1"]


@pytest.mark.parametrize(
    "name", ["../../outside", "/outside", "a/../../outside", "", "a//b", "C:/outside", "..\\x"]
)
def test_a_manifest_that_leads_out_of_the_folder_is_refused(name: str) -> None:
    file = {"size": 1, "sha256": "0" * 64}
    manifest = {
        "of": "",
        "title": "checkpoint-1",
        "step": 1,
        "time": 1,
        "keep": "all",
        "metric": None,
        "higher": False,
        "value": None,
        "files": {name: file},
    }
    with pytest.raises(ValueError, match="leads out"):
        decoded(json.dumps(manifest).encode())
    with pytest.raises(ValueError, match="no name of a folder"):
        decoded(json.dumps(manifest | {"files": {"a": file}, "title": name or ".."}).encode())


def listed(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


# -- settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"log_checkpoints": "best"}, "needs checkpoint_metric and checkpoint_direction"),
        (
            {"log_checkpoints": "best", "checkpoint_metric": "eval/loss"},
            "set both",
        ),
        ({"log_checkpoints": "last", "checkpoint_direction": "lower"}, "set both"),
        ({"log_checkpoints": "some"}, "log_checkpoints"),
    ],
)
def test_the_best_one_needs_a_metric_and_a_direction(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        MLflowSettings(**given)
