"""MLflow's own functions while a server is down: provisional runs, and what becomes of them."""

import time
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from orbiter_mlflow import names
from orbiter_mlflow.runs.store import RunStore
from servers import free_port, running_server
from waiting import eventually


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody answers: a test need not wait long for that."""
    monkeypatch.setenv("ORBITER_MLFLOW_ANSWER_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")


@pytest.mark.server
def test_a_run_that_begins_without_a_server_is_whole_once_there_is_one(
    empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"journal+{uri}")
    client = MlflowClient()
    with mlflow.start_run(run_name="parent") as parent:
        assert len(parent.info.run_id) == 32
        mlflow.log_params({"lr": 0.1})
        with mlflow.start_run(nested=True) as child:
            mlflow.log_metric("x", 1.0)
        before = time.monotonic()
        for step in range(100):
            mlflow.log_metric("loss", 1.0 / (step + 1), step=step)
        mlflow.log_text("note", "notes/a.txt")
        assert time.monotonic() - before < 5.0
        seen = mlflow.get_run(parent.info.run_id)
        assert (seen.data.params, seen.data.metrics) == ({"lr": "0.1"}, {"loss": 0.01})
        with pytest.raises(MlflowException, match="already logged"):
            mlflow.log_param("lr", 0.2)
        with pytest.raises(MlflowException):
            client.search_runs(["0"])

    folder = tmp_path / "server"
    folder.mkdir()
    (folder / "s.db").write_bytes(empty_store.read_bytes())
    with running_server(f"sqlite:///{folder}/s.db", folder, port):
        plain = MlflowClient(uri)

        def both() -> list[Run] | None:
            client.get_run(parent.info.run_id)  # who waits makes delivery try again soon
            client.get_run(child.info.run_id)
            found = list(plain.search_runs(["0"]))
            return found if len(found) == 2 else None

        runs = eventually(both, within=150.0)
        by_uid = {run.data.tags[names.UID]: run for run in runs}
        run = by_uid[parent.info.run_id]
        assert by_uid[child.info.run_id].data.tags["mlflow.parentRunId"] == run.info.run_id

        def whole() -> Run | None:  # the provisional id stays good here
            seen = client.get_run(parent.info.run_id)
            return seen if seen.info.run_id == run.info.run_id else None

        seen = eventually(whole)
        assert (seen.info.status, seen.info.run_name) == ("FINISHED", "parent")
        assert seen.data.params == {"lr": "0.1"}
        assert len(client.get_metric_history(parent.info.run_id, "loss")) == 100
        (note,) = client.list_artifacts(parent.info.run_id, "notes")
        assert note.path == "notes/a.txt"
        # And elsewhere it is resolved.
        assert RunStore(uri).get(parent.info.run_id).run_id == run.info.run_id
        client.log_metric(parent.info.run_id, "late", 1.0)
        assert plain.get_run(run.info.run_id).data.metrics.keys() >= {"loss"}
        assert client.get_run(run.info.run_id).data.metrics["late"] == 1.0


def test_many_runs_do_not_wait_for_a_server_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "7")  # MLflow tries for minutes
    client = MlflowClient(f"journal+http://127.0.0.1:{free_port()}")
    before = time.monotonic()
    runs = [client.create_run("0").info.run_id for _ in range(6)]
    assert len(set(runs)) == 6
    assert time.monotonic() - before < 10.0


def test_offline_nobody_is_asked(
    sqlite_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORBITER_MLFLOW_DELIVERY", "offline")
    client = MlflowClient(f"journal+{sqlite_uri}")
    run_id = client.create_run("0").info.run_id
    client.log_metric(run_id, "x", 1.0)
    assert client.get_run(run_id).data.metrics == {"x": 1.0}
    assert MlflowClient(sqlite_uri).search_runs(["0"]) == []
    assert list(tmp_path.rglob("*.jsonl"))


def test_without_a_spool_mlflow_writes_as_without_the_prefix(
    sqlite_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ORBITER_MLFLOW_SPOOL_DIR", str(tmp_path / "file"))
    client = MlflowClient(f"journal+{sqlite_uri}")
    run_id = client.create_run("0").info.run_id
    client.log_metric(run_id, "x", 1.0)
    client.log_param(run_id, "lr", "1")
    client.set_terminated(run_id)
    run = MlflowClient(sqlite_uri).get_run(run_id)
    assert (run.data.metrics, run.data.params) == ({"x": 1.0}, {"lr": "1"})
    assert run.info.status == "FINISHED"
