"""The MLflow side of delivery, against a real sqlite store and a real server."""

import uuid
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from journals import HEAD, journal_of, run_lane
from orbiter_mlflow import names
from orbiter_mlflow.delivery import kept_files
from orbiter_mlflow.delivery.batches import MetricPoint
from orbiter_mlflow.delivery.drain import Drain
from orbiter_mlflow.delivery.mlflow_sink import MLflowSink
from orbiter_mlflow.delivery.records import (
    Artifact,
    Close,
    Dataset,
    Head,
    Metrics,
    Params,
    Record,
    Status,
    Tags,
)
from orbiter_mlflow.delivery.side_lane import side_lanes
from orbiter_mlflow.errors import HeldError, RejectedError, TransientError
from proxy import Proxy
from servers import free_port

DATA = Dataset("digits", "abc123", "local", "{}", "", '{"num_rows":3}', "train")


@pytest.fixture(params=["sqlite", "server"])
def uri(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(f"{request.param}_uri")
    return found


def head_for(name: str) -> Head:
    return replace(HEAD, uid=uuid.uuid4().hex, experiment=name)


def test_a_whole_journal_lands_in_a_real_store(uri: str, tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("kept")
    head = head_for("whole journal")
    journal = journal_of(tmp_path / "run.jsonl", [], head)
    artifact = kept_files.keep_content(journal, b"kept", "notes.txt", "texts")
    records: list[Record] = [
        Tags({"orbiter.state": "training", "ünï/code": "é🚀"}),
        Params({"learning_rate": "0.1", "prompt": "x" * 6000}),
        DATA,
        artifact,
        *[Metrics(i, 1000 + i, {"train/loss": i / 7, "train/n": float(-i)}) for i in range(1200)],
        Status("FINISHED", 1_700_000_005_000),
        Close(),
    ]
    journal.unlink()
    journal_of(journal, records, head)
    sink = MLflowSink(uri)
    drain = Drain(journal, lambda _: sink)
    assert drain.run(), drain.ack.problem
    for lane in side_lanes(journal, lambda _: sink):
        assert run_lane(lane), lane.ack.problem

    client = MlflowClient(uri)
    assert drain.ack.run_id is not None
    run = client.get_run(drain.ack.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.start_time == head.start_time
    assert run.info.end_time == 1_700_000_005_000
    assert run.data.params == {"learning_rate": "0.1", "prompt": "x" * 6000}
    assert run.data.tags["ünï/code"] == "é🚀"
    assert run.data.tags[names.UID] == head.uid
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(m.step, m.timestamp, m.value) for m in history] == [
        (i, 1000 + i, i / 7) for i in range(1200)
    ]
    (entry,) = run.inputs.dataset_inputs
    assert (entry.dataset.name, entry.dataset.digest) == ("digits", "abc123")
    assert {tag.key: tag.value for tag in entry.tags} == {names.DATASET_CONTEXT: "train"}
    (listed,) = client.list_artifacts(run.info.run_id, "texts")
    assert listed.path == "texts/notes.txt"
    assert sink.find_runs(head) == [run.info.run_id]
    uid, offset = sink.read_run(run.info.run_id).tags[names.DELIVERED].split(":")
    assert uid == head.uid
    assert 0 < int(offset) < journal.stat().st_size  # status and close stand behind it


def test_a_batch_of_the_largest_size_is_accepted(uri: str) -> None:
    sink = MLflowSink(uri)
    run_id = sink.create_run(head_for("largest batch"))
    wide = "é" * 6000
    points = [MetricPoint(f"m{i}", 1.0, i, i) for i in range(899)]
    sink.log_batch(run_id, points, {f"p{i}": wide for i in range(12)}, {names.DELIVERED: "x:1"})
    assert len(MlflowClient(uri).get_run(run_id).data.params) == 12


def test_a_refusal_is_distinguished_from_an_outage(uri: str) -> None:
    sink = MLflowSink(uri)
    run_id = sink.create_run(head_for("refusals"))
    sink.log_batch(run_id, [], {"a": "1"}, {})
    with pytest.raises(RejectedError, match="Changing param values"):
        sink.log_batch(run_id, [], {"a": "2"}, {})
    with pytest.raises(RejectedError):
        sink.log_batch(run_id, [], {"bad\nkey": "2"}, {})
    with pytest.raises(HeldError):
        sink.log_batch("0" * 32, [], {}, {"a": "1"})
    MlflowClient(uri).delete_run(run_id)
    with pytest.raises(HeldError, match="restore it"):
        sink.log_batch(run_id, [], {}, {"a": "1"})


def test_a_deleted_experiment_is_held(uri: str) -> None:
    sink, client = MLflowSink(uri), MlflowClient(uri)
    head = head_for("to be deleted")
    sink.create_run(head)
    found = client.get_experiment_by_name("to be deleted")
    assert found is not None
    client.delete_experiment(found.experiment_id)
    with pytest.raises(HeldError, match="is deleted on the server"):
        sink.create_run(head)


def test_a_server_that_is_not_there_is_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TransientError) as caught:
        MLflowSink(f"http://127.0.0.1:{free_port()}")
    assert not caught.value.answered


def test_a_sqlite_store_in_a_folder_that_is_not_there_is_an_outage(tmp_path: Path) -> None:
    with pytest.raises(TransientError):
        MLflowSink(f"sqlite:///{tmp_path}/nowhere/store.db")


def test_a_login_page_does_not_pass_for_a_successful_upload(
    server_uri: str, tmp_path: Path
) -> None:
    file = tmp_path / "kept"
    file.write_bytes(b"weights")
    with Proxy(server_uri) as proxy:
        sink = MLflowSink(proxy.uri)
        run_id = sink.create_run(head_for("login page"))

        def upload(name: str) -> None:
            sink.log_artifact(run_id, file, Artifact("kept", name, None, 7, "0" * 64))

        upload("before")
        proxy.add("answer", status=200, body=b"<html><title>Sign in</title></html>")
        with pytest.raises(TransientError, match="Sign in"):
            upload("during")
        proxy.heal()
        upload("during")
    found = {file.path for file in MlflowClient(server_uri).list_artifacts(run_id)}
    assert found == {"before", "during"}


def test_an_artifact_is_uploaded_if_no_links_can_be_created(
    sqlite_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path, target: Path) -> None:
        raise OSError("a required privilege is not held by the client")

    file = tmp_path / "kept"
    file.write_text("kept")
    sink = MLflowSink(sqlite_uri)
    run_id = sink.create_run(head_for("no links"))
    monkeypatch.setattr(Path, "symlink_to", refused)
    sink.log_artifact(run_id, file, Artifact("kept", "notes.txt", None, 4, ""))
    (entry,) = MlflowClient(sqlite_uri).list_artifacts(run_id)
    assert (entry.path, entry.file_size) == ("notes.txt", 4)
