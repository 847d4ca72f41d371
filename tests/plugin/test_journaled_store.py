"""MLflow's own clients on a URI with our prefix: what they write, read, and are refused."""

import os
import threading
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from orbiter_mlflow import names
from waiting import eventually


@pytest.fixture
def uri(sqlite_uri: str) -> str:
    return f"journal+{sqlite_uri}"


@pytest.fixture
def client(uri: str) -> MlflowClient:
    return MlflowClient(uri)


@pytest.fixture
def behind(sqlite_uri: str) -> MlflowClient:
    """A client of the store itself."""
    return MlflowClient(sqlite_uri)


def a_run(client: MlflowClient, **how: Any) -> str:
    return str(client.create_run("0", **how).info.run_id)


def landed(client: MlflowClient, behind: MlflowClient, run_id: str) -> Any:
    """The run as the store has it, after all that was written."""
    client.get_run(run_id)
    return behind.get_run(run_id)


# -- writes ----------------------------------------------------------------------------------------


def test_what_is_logged_lands_as_written(client: MlflowClient, behind: MlflowClient) -> None:
    run_id = a_run(client, tags={"mine": "1"}, run_name="ours", start_time=7)
    client.log_param(run_id, "lr", 0.1)
    client.log_metric(run_id, "loss", 0.5, timestamp=10, step=3)
    client.log_batch(
        run_id,
        [Metric("loss", 0.25, 11, 4), Metric("loss", 0.2, 12, 5), Metric("acc", 1.0, 12, 5)],
        [Param("epochs", "2")],
        [RunTag("kind", "test")],
    )
    client.set_tag(run_id, "late", "yes")
    client.set_terminated(run_id, end_time=99)
    run = landed(client, behind, run_id)
    assert run.data.params == {"lr": "0.1", "epochs": "2"}
    points = [(m.value, m.timestamp, m.step) for m in behind.get_metric_history(run_id, "loss")]
    assert sorted(points) == [(0.2, 12, 5), (0.25, 11, 4), (0.5, 10, 3)]
    assert run.data.metrics == {"loss": 0.2, "acc": 1.0}
    assert (run.info.status, run.info.start_time, run.info.end_time) == ("FINISHED", 7, 99)
    assert run.info.run_name == "ours"
    ours = {name for name in run.data.tags if name.startswith("orbiter.")}
    assert ours == {names.UID, names.DELIVERED}
    assert {"mine": "1", "kind": "test", "late": "yes"}.items() <= run.data.tags.items()


def test_metrics_keep_their_model_and_dataset(client: MlflowClient, behind: MlflowClient) -> None:
    model_id = client.create_logged_model("0").model_id
    run_id = a_run(client)
    of = {"dataset_name": "d", "dataset_digest": "x", "model_id": model_id}
    client.log_metric(run_id, "loss", 0.5, **of)
    (found,) = client.get_logged_model(model_id).metrics
    assert (found.key, found.value, found.run_id) == ("loss", 0.5, run_id)
    assert (found.dataset_name, found.dataset_digest) == ("d", "x")
    assert behind.get_run(run_id).data.metrics == {"loss": 0.5}


def test_dataset_inputs_land_with_their_tags(client: MlflowClient, behind: MlflowClient) -> None:
    run_id = a_run(client)
    tags = [InputTag("mlflow.data.context", "train"), InputTag("split", "a")]
    client.log_inputs(run_id, [DatasetInput(Dataset("d", "x", "local", "{}"), tags)])
    (one,) = landed(client, behind, run_id).inputs.dataset_inputs
    assert (one.dataset.name, one.dataset.digest) == ("d", "x")
    assert {tag.key: tag.value for tag in one.tags} == {
        "mlflow.data.context": "train",
        "split": "a",
    }


def test_asynchronous_logging_means_the_same(client: MlflowClient, behind: MlflowClient) -> None:
    run_id = a_run(client)
    done = client.log_metric(run_id, "loss", 1.0, synchronous=False)
    assert done is not None
    done.wait()
    client.log_param(run_id, "lr", "1", synchronous=False)
    client.set_tag(run_id, "a", "b", synchronous=False)
    client.log_batch(run_id, tags=[RunTag("c", "d")], synchronous=False)
    client._tracking_client.store.flush_async_logging()
    run = behind.get_run(run_id)
    assert (run.data.metrics, run.data.params) == ({"loss": 1.0}, {"lr": "1"})
    assert {"a": "b", "c": "d"}.items() <= run.data.tags.items()


def test_a_run_is_renamed_ended_and_started_again(
    client: MlflowClient, behind: MlflowClient
) -> None:
    run_id = a_run(client)
    client.update_run(run_id, name="second")
    client.set_terminated(run_id, "FAILED", end_time=5)
    run = landed(client, behind, run_id)
    assert (run.info.run_name, run.info.status, run.info.end_time) == ("second", "FAILED", 5)
    client.update_run(run_id, "RUNNING")
    client.log_metric(run_id, "again", 1.0)
    assert landed(client, behind, run_id).info.status == "RUNNING"
    client.set_terminated(run_id)
    run = landed(client, behind, run_id)
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"again": 1.0})


def test_a_run_that_is_not_ours_is_joined(client: MlflowClient, behind: MlflowClient) -> None:
    run_id = a_run(behind)
    behind.log_metric(run_id, "x", 1.0, step=5)
    client.log_metric(run_id, "x", 2.0, step=1)
    client.log_metric(run_id, "y", 2.0)
    run = landed(client, behind, run_id)
    assert run.data.metrics == {"x": 1.0, "y": 2.0}
    assert run.info.status == "RUNNING"
    assert {name for name in run.data.tags if name.startswith("orbiter.")} == {names.DELIVERED}


# -- refusals --------------------------------------------------------------------------------------

BAD: dict[str, Callable[[MlflowClient, str], object]] = {
    "a bad metric key": lambda client, run_id: client.log_metric(run_id, "a=b", 1.0),
    "a metric key that is no path": lambda client, run_id: client.log_metric(run_id, "../a", 1.0),
    "no number": lambda client, run_id: client.log_metric(run_id, "a", "many", timestamp=5),
    "a key of 251 characters": lambda client, run_id: client.log_metric(run_id, "k" * 251, 1.0),
    "a negative time": lambda client, run_id: client.log_metric(run_id, "a", 1.0, timestamp=-1),
    "a bad key in a batch": lambda client, run_id: client.log_batch(
        run_id, [Metric("a", 1.0, 1, 1), Metric("b=", 1.0, 1, 1)]
    ),
    "a param twice": lambda client, run_id: client.log_batch(
        run_id, params=[Param("a", "1"), Param("a", "2")]
    ),
    "a changed param": lambda client, run_id: client.log_param(run_id, "known", "2"),
    "a changed param in a batch": lambda client, run_id: client.log_batch(
        run_id, params=[Param("known", "2")]
    ),
    "a bad param key": lambda client, run_id: client.log_param(run_id, "a=b", 1),
    "a bad tag key": lambda client, run_id: client.set_tag(run_id, "a=b", 1),
    "no run": lambda client, run_id: client.log_metric("0" * 32, "a", 1.0),
    "no run id": lambda client, run_id: client.log_metric("a b", "a", 1.0),
    "no experiment": lambda client, run_id: client.create_run("12345"),
    "no dataset list": lambda client, run_id: client.log_inputs(run_id, (1,)),
    "no such run to read": lambda client, run_id: client.get_run("0" * 32),
    "a run that is deleted": lambda client, run_id: (
        client.delete_run(run_id),
        client.log_metric(run_id, "a", 1.0),
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_what_mlflow_refuses_is_refused_in_the_call(
    what: str, client: MlflowClient, behind: MlflowClient
) -> None:
    errors = []
    for one in (client, behind):
        run_id = a_run(one)
        one.log_param(run_id, "known", "1")
        with pytest.raises((MlflowException, TypeError)) as caught:
            BAD[what](one, run_id)
        code = getattr(caught.value, "error_code", None)
        text = str(caught.value).replace(run_id, "RUN")
        errors.append((type(caught.value), code, text))
    ours, theirs = errors
    assert ours[:2] == theirs[:2]
    assert ours[2] == theirs[2]


def test_a_refused_batch_leaves_nothing(client: MlflowClient, behind: MlflowClient) -> None:
    run_id = a_run(client)
    with pytest.raises(MlflowException):
        client.log_batch(run_id, [Metric("a", 1.0, 1, 1)], [Param("b=", "1")], [RunTag("c", "1")])
    run = landed(client, behind, run_id)
    assert (run.data.metrics, run.data.params) == ({}, {})
    assert "c" not in run.data.tags


# -- reads -----------------------------------------------------------------------------------------


def test_reads_see_what_was_written_before(client: MlflowClient) -> None:
    run_id = a_run(client)
    for step in range(50):
        client.log_metric(run_id, "loss", 1.0 / (step + 1), step=step)
    assert len(client.get_metric_history(run_id, "loss")) == 50
    client.log_param(run_id, "lr", "1")
    (found,) = client.search_runs(["0"], "params.lr = '1'")
    assert found.info.run_id == run_id
    client.log_metric(run_id, "late", 2.0)
    assert client.get_run(run_id).data.metrics["late"] == 2.0


def test_a_deleted_run_takes_nothing_until_it_is_restored(
    client: MlflowClient, behind: MlflowClient
) -> None:
    run_id = a_run(client)
    client.log_metric(run_id, "a", 1.0)
    client.delete_run(run_id)
    assert behind.get_run(run_id).info.lifecycle_stage == "deleted"
    client.restore_run(run_id)
    client.log_metric(run_id, "b", 1.0)
    assert landed(client, behind, run_id).data.metrics == {"a": 1.0, "b": 1.0}


def test_tags_are_deleted_after_they_were_written(client: MlflowClient) -> None:
    run_id = a_run(client)
    client.set_tag(run_id, "a", "1")
    client.delete_tag(run_id, "a")
    assert "a" not in client.get_run(run_id).data.tags


# -- threads, forks, several stores ----------------------------------------------------------------


def test_threads_write_one_run(client: MlflowClient, behind: MlflowClient) -> None:
    run_id = a_run(client)

    def write(number: int) -> None:
        for step in range(200):
            client.log_metric(run_id, f"m{number}", float(step), step=step)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    client.get_run(run_id)
    for number in range(4):
        assert len(behind.get_metric_history(run_id, f"m{number}")) == 200


def test_a_forked_worker_may_log(client: MlflowClient, behind: MlflowClient) -> None:
    run_id = a_run(client)
    client.log_metric(run_id, "parent", 1.0)
    context: Any = get_context("fork")

    def work() -> None:
        client.log_metric(run_id, "child", 2.0)
        os._exit(0)

    worker = context.Process(target=work)
    worker.start()
    worker.join()
    client.log_metric(run_id, "parent", 3.0, step=1)

    def both() -> bool:
        run = behind.get_run(run_id)
        assert run.info.status == "RUNNING"
        metrics: dict[str, float] = run.data.metrics
        return metrics == {"parent": 3.0, "child": 2.0}

    eventually(both)


def test_one_process_writes_to_several_stores(
    client: MlflowClient, behind: MlflowClient, empty_store: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.db"
    other.write_bytes(empty_store.read_bytes())
    second = MlflowClient(f"journal+sqlite:///{other}")
    one, two = a_run(client), a_run(second)
    client.log_metric(one, "a", 1.0)
    second.log_metric(two, "b", 2.0)
    assert landed(client, behind, one).data.metrics == {"a": 1.0}
    assert second.get_run(two).data.metrics == {"b": 2.0}
    assert len(behind.search_runs(["0"])) == 1


def test_the_fluent_functions_nest_and_resume(
    uri: str, behind: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with mlflow.start_run(run_name="parent") as parent:
        mlflow.log_params({"lr": 0.1})
        with mlflow.start_run(nested=True) as child:
            mlflow.log_metric("x", 1.0)
    with mlflow.start_run(run_id=parent.info.run_id):
        mlflow.log_metric("y", 2.0)
    resumed = mlflow.get_run(parent.info.run_id)
    assert (resumed.data.metrics, resumed.info.status) == ({"y": 2.0}, "FINISHED")
    nested = mlflow.get_run(child.info.run_id)
    assert nested.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert nested.info.status == "FINISHED"
    assert len(behind.search_runs(["0"])) == 2
