"""Checkpoints while processes are killed: the trainer, and delivery in the middle of an upload.

The server is a real one, and so are the deaths; each test downloads what arrived.
"""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from faults import delivery_processes, soon
from journals import HEAD, done
from orbiter.train import TrainMetrics
from orbiter_mlflow.delivery.hosts import base
from orbiter_mlflow.delivery.mlflow_client import artifacts
from orbiter_mlflow.delivery.mlflow_sink import MLflowSink
from orbiter_mlflow.delivery.records import Artifact
from proxy import Proxy
from scripts import started
from trainers import Backend, Tracked, stored, tracked
from waiting import eventually

pytestmark = pytest.mark.server

FILES = "checkpoints/files"
SIZE = 3_000_000
"""Bytes of a large file."""


def saved(folder: Path, names: list[str]) -> Path:
    folder.mkdir(parents=True)
    for at, name in enumerate(names):
        (folder / name).write_bytes(bytes([at]) * SIZE)
    return folder


def downloaded(uri: str, run_id: str, folder: Path) -> set[bytes]:
    """The files of the last checkpoint, after a download that verifies them."""
    code, output = done("download", run_id, "--tracking-uri", uri, "--to", folder)
    assert code == 0, output
    (found,) = folder.iterdir()
    return {path.read_bytes() for path in found.iterdir()}


def test_a_checkpoint_outlives_the_training_that_is_killed_after_its_rotation(
    server_uri: str, tmp_path: Path
) -> None:
    script = """
        import shutil

        async def inside():
            for step in (1, 2):
                folder = Path(f"checkpoint-{step}")
                folder.mkdir()
                for name in "abc":
                    (folder / name).write_bytes(f"{name}{step}".encode() * 500_000)
                trainer.report_checkpoint(folder, step=step)
                shutil.rmtree(folder)  # as a training does that keeps few of them
            os.kill(os.getpid(), signal.SIGKILL)

        trainer = validated(
            tracking_uri=sys.argv[1], experiment=sys.argv[2], log_checkpoints="all"
        )
        trainer.inside = inside
        asyncio.run(trainer.train())
    """
    process = started(script, tmp_path, [server_uri, tmp_path.name])
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    client = MlflowClient(server_uri)

    def run_id() -> str | None:
        experiment = client.get_experiment_by_name(tmp_path.name)
        if experiment is None:
            return None
        runs = client.search_runs([experiment.experiment_id])
        ended = [run.info.run_id for run in runs if run.info.status == "KILLED"]
        return ended[0] if ended else None

    eventually(lambda: run_id() is not None)
    found = str(run_id())
    eventually(lambda: len(client.list_artifacts(found, "checkpoints")) == 3)  # `files` is one
    expected = {f"{name}2".encode() * 500_000 for name in "abc"}
    assert downloaded(server_uri, found, tmp_path / "back") == expected
    assert len(client.list_artifacts(found, FILES)) == 6


async def test_an_upload_goes_on_where_delivery_was_killed(
    server_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "_hosts", {})  # a delivery process for this test alone
    with Proxy(server_uri) as proxy:

        async def body(trainer: Backend) -> TrainMetrics:
            assert isinstance(trainer, Tracked)
            trainer.report({"loss": 0.5}, step=1, phase="eval")
            first = proxy.add("hold", path=FILES, over=SIZE // 2, times=1)
            trainer.report_checkpoint(saved(tmp_path / "checkpoint-1", ["a", "b", "c"]), step=1)
            await soon(lambda: first.hits == 1)
            held = proxy.add("hang", path=FILES, over=SIZE // 2, times=1)
            first.release()
            await soon(lambda: held.hits == 1)
            (tmp_path / "notes.txt").write_text("not held up")
            trainer.log_artifact(tmp_path / "notes.txt")
            await soon(lambda: any(path.endswith("/notes.txt") for path in proxy.requests))
            killed = max(delivery_processes())
            os.kill(killed, signal.SIGKILL)
            proxy.heal()
            trainer.report({"loss": 0.4}, step=2, phase="eval")
            return TrainMetrics()

        trainer = tracked(proxy.uri, body=body, experiment=tmp_path.name, log_checkpoints="all")
        trainer.mark_validated()
        await trainer.train()
        run_id = stored(proxy.uri, trainer).info.run_id
        back = downloaded(server_uri, run_id, tmp_path / "back")
        assert back == {bytes([at]) * SIZE for at in range(3)}
        assert uploads(proxy) <= 4  # three, and the one that was cut
    client = MlflowClient(server_uri)
    (model,) = client.search_logged_models([client.get_run(run_id).info.experiment_id])
    assert {one.key: one.value for one in model.metrics or ()} == {"eval/loss": 0.5}
    assert [one.model_id for one in client.get_run(run_id).outputs.model_outputs] == [
        model.model_id
    ]


def test_a_server_may_store_a_large_file_slowly(
    server_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "_SPEED", 2e6)  # half a minute for the file
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    file = tmp_path / "model.bin"
    with file.open("wb") as opened:
        opened.truncate(65 << 20)
    with Proxy(server_uri) as proxy:
        sink = MLflowSink(proxy.uri)
        run_id = sink.create_run(replace(HEAD, experiment=tmp_path.name))
        proxy.add("late", path=FILES, delay=2.5, times=1)
        with monkeypatch.context() as patch:
            patch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
            sink.log_artifact(run_id, file, Artifact(file.name, "model.bin", FILES, 65 << 20, ""))
        assert sink.artifact_sizes(run_id, FILES) == {"model.bin": 65 << 20}
        assert sink.artifact_sizes(run_id, "nothing") == {}


def uploads(proxy: Proxy) -> int:
    """Requests that upload a file of a checkpoint, or ask for one."""
    return sum(FILES in path and not path.endswith(FILES) for path in proxy.requests)
