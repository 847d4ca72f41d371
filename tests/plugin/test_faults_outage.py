"""MLflow's own functions while a server is down: provisional runs, and what becomes of them."""

import threading
import time
from functools import partial
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException

from orbiter_mlflow import names
from orbiter_mlflow.runs.store import RunStore
from proxy import CREATE, Proxy
from servers import free_port, running_server
from waiting import eventually


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody answers: a test need not wait long for that."""
    monkeypatch.setenv("ORBITER_MLFLOW_ANSWER_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")


def asking_threads(earlier: list[threading.Thread]) -> list[threading.Thread]:
    """The threads that still wait for the store's answer to a question of this test."""
    asking = (one for one in threading.enumerate() if one.name == "orbiter-question")
    return [one for one in asking if one not in earlier]


def has_step(client: MlflowClient, run_id: str, step: int) -> bool:
    return any(point.step == step for point in client.get_metric_history(run_id, "x"))


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


@pytest.mark.server
def test_a_run_that_the_store_creates_too_late_is_deleted_again(server_uri: str) -> None:
    plain = MlflowClient(server_uri)
    experiment_id = plain.create_experiment("too late")
    with Proxy(server_uri) as proxy:
        request = proxy.add("hold", path=CREATE, times=1)
        client = MlflowClient(f"journal+{proxy.uri}")
        earlier = threading.enumerate()
        run_id = client.create_run(experiment_id).info.run_id
        (asking,) = asking_threads(earlier)
        client.log_metric(run_id, "x", 1.0)
        client.set_terminated(run_id)
        run = eventually(lambda: next(iter(plain.search_runs([experiment_id])), None))
        eventually(lambda: plain.get_run(run.info.run_id).info.status == "FINISHED")
        request.release()
        eventually(lambda: not asking.is_alive())
        (late,) = plain.search_runs([experiment_id], run_view_type=ViewType.DELETED_ONLY)
        assert late.data.metrics == {}
        assert late.data.tags[names.UID] == run.data.tags[names.UID] == run_id
        (whole,) = plain.search_runs([experiment_id])
        assert (whole.info.run_id, whole.data.metrics) == (run.info.run_id, {"x": 1.0})


@pytest.mark.server
def test_a_run_that_the_store_creates_late_is_kept_if_delivery_writes_to_it(
    server_uri: str,
) -> None:
    plain = MlflowClient(server_uri)
    experiment_id = plain.create_experiment("late")
    with Proxy(server_uri) as proxy:
        silence = proxy.add("hang", path="search")  # delivery opens no store, and creates no run
        request = proxy.add("hold", path=CREATE, times=1)
        client = MlflowClient(f"journal+{proxy.uri}")
        earlier = threading.enumerate()
        run_id = client.create_run(experiment_id).info.run_id
        (asking,) = asking_threads(earlier)
        client.log_metric(run_id, "x", 1.0)
        eventually(lambda: silence.hits)
        request.release()
        eventually(lambda: plain.search_runs([experiment_id]))
        proxy.heal()
        client.set_terminated(run_id)
        eventually(lambda: not asking.is_alive())
        (run,) = plain.search_runs([experiment_id], run_view_type=ViewType.ALL)
        assert run.info.lifecycle_stage == "active"
        eventually(lambda: plain.get_run(run.info.run_id).info.status == "FINISHED")
        assert plain.get_run(run.info.run_id).data.metrics == {"x": 1.0}


def test_many_runs_do_not_wait_for_a_server_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "7")  # MLflow tries for minutes
    client = MlflowClient(f"journal+http://127.0.0.1:{free_port()}")
    before = time.monotonic()
    runs = [client.create_run("0").info.run_id for _ in range(6)]
    assert len(set(runs)) == 6
    assert time.monotonic() - before < 10.0


@pytest.mark.server
def test_a_server_that_is_down_does_not_hold_up_the_delivery_to_another(
    server_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "7")  # minutes, in each request
    MlflowClient(f"journal+http://127.0.0.1:{free_port()}").create_run("0")
    plain = MlflowClient(server_uri)
    experiment_id = plain.create_experiment("the other is down")
    monkeypatch.setenv("ORBITER_MLFLOW_ANSWER_TIMEOUT", "30")  # for a run id of the server's
    client = MlflowClient(f"journal+{server_uri}")
    run_id = client.create_run(experiment_id).info.run_id
    for step in range(3):  # in turn with the journal of the other server
        client.log_metric(run_id, "x", 1.0, step=step)
        eventually(partial(has_step, plain, run_id, step), within=30.0)


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
