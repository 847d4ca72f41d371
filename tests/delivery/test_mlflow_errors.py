"""Exceptions of MLflow's client are classified, with real answers to real requests.

A small server on loopback gives the answers; MLflow's own client sends the requests.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Param
from mlflow.exceptions import MlflowException

from journals import HEAD
from orbiter_mlflow.delivery.batches import MetricPoint
from orbiter_mlflow.delivery.mlflow_client.errors import classified, classified_artifact
from orbiter_mlflow.delivery.mlflow_sink import MLflowSink
from orbiter_mlflow.delivery.records import Dataset
from orbiter_mlflow.errors import (
    DeliveryError,
    HeldError,
    RejectedError,
    TransientError,
    UnsupportedError,
)
from servers import free_port

LOGIN_PAGE = "<html><head><title>Sign in</title></head><body>" + "x" * 24_000 + "</body></html>"


@contextmanager
def answering(status: int, body: str, headers: dict[str, str] | None = None) -> Iterator[str]:
    """Run a server that gives one answer to everything; yield its address."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body.encode())))
            self.end_headers()
            self.wfile.write(body.encode())

        do_GET = do_POST = do_PUT = _answer  # noqa: N815  as http.server wants

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  as it is named
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(autouse=True)
def one_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")


def refusal_of(uri: str, key: str = "deleted_rows") -> DeliveryError:
    """The error of a `log_batch` with this param."""
    with pytest.raises(MlflowException) as caught:
        MlflowClient(uri).log_batch("0" * 32, params=[Param(key, "1")])
    return classified(caught.value)


def own(code: str) -> str:
    """An answer of MLflow's own, with the user's own words in its message."""
    return json.dumps({"error_code": code, "message": "param deleted_rows must be in the 'active'"})


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "INVALID_PARAMETER_VALUE", RejectedError),
        (400, "RESOURCE_ALREADY_EXISTS", RejectedError),
        (400, "BAD_REQUEST", RejectedError),
        (404, "RESOURCE_DOES_NOT_EXIST", HeldError),
        (404, "ENDPOINT_NOT_FOUND", UnsupportedError),
        (501, "NOT_IMPLEMENTED", UnsupportedError),
        (401, "UNAUTHENTICATED", HeldError),
        (403, "PERMISSION_DENIED", HeldError),
        (409, "RESOURCE_CONFLICT", TransientError),
        (400, "A_CODE_OF_ANOTHER_PRODUCT", TransientError),
    ],
)
def test_mlflows_own_answers_are_classified_by_their_code(
    status: int, code: str, kind: type[DeliveryError]
) -> None:
    with answering(status, own(code)) as uri:
        found = refusal_of(uri)
    assert type(found) is kind
    if isinstance(found, RejectedError):
        assert found.definite is (code != "BAD_REQUEST")


@pytest.mark.parametrize("body", ["the proxy says no", LOGIN_PAGE, '{"message": "Forbidden"}', ""])
@pytest.mark.parametrize("status", [301, 400, 402, 407, 408, 409, 418, 429, 502, 503, 504])
def test_other_answers_are_classified_as_trouble_on_the_way(status: int, body: str) -> None:
    with answering(status, body) as uri:
        found = refusal_of(uri)
    assert isinstance(found, TransientError)
    assert not found.answered
    assert len(str(found)) < 600
    if not body.startswith("{"):
        assert f"HTTP {status}" in str(found)
    if body == LOGIN_PAGE and status in (400, 402, 407, 418):
        assert "(Sign in)" in str(found)


def test_a_login_page_is_classified_as_trouble_on_the_way() -> None:
    with answering(200, LOGIN_PAGE) as uri:
        found = refusal_of(uri)
    assert isinstance(found, TransientError)
    assert str(found) == "HTTP 200, not an answer of MLflow's own (Sign in)"


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_password_is_held_for_a_person_to_fix(status: int) -> None:
    with answering(status, "You are not authenticated.") as uri:
        assert isinstance(refusal_of(uri), HeldError)


@pytest.mark.parametrize("status", [404, 405, 501])
def test_an_unknown_endpoint_is_a_feature_that_the_server_lacks(status: int) -> None:
    with answering(status, "<title>404 Not Found</title>") as uri:
        assert isinstance(refusal_of(uri), UnsupportedError)


def test_a_request_that_is_too_large_for_a_proxy_can_be_split() -> None:
    with answering(413, "<title>413 Request Entity Too Large</title>") as uri:
        found = refusal_of(uri)
    assert isinstance(found, RejectedError)
    assert not found.definite


def test_only_a_500_may_be_blamed_on_the_content() -> None:
    for status, blamed in ((500, True), (502, False), (503, False), (504, False)):
        with answering(status, "") as uri:
            found = refusal_of(uri)
        assert isinstance(found, TransientError)
        assert found.answered is blamed


def test_a_missing_answer_is_reported_with_its_cause_and_without_the_password() -> None:
    found = refusal_of(f"http://me:s3cretpw@127.0.0.1:{free_port()}")
    assert isinstance(found, TransientError)
    assert not found.answered
    assert "Connection refused" in str(found)
    assert "s3cretpw" not in str(found)


def test_a_redirect_that_loses_the_request_is_reported() -> None:
    with answering(400, own("INVALID_PARAMETER_VALUE")) as target:
        where = {"Location": f"{target}/api/2.0/mlflow/experiments/search"}
        with answering(301, "", where) as uri, pytest.raises(TransientError) as caught:
            MLflowSink(uri)
    assert f"the server redirects to {target}: set the tracking URI to that" in str(caught.value)


# -- stores without a server, and what the user's own words may not decide -------------------------


@pytest.mark.parametrize("key", ["deleted_rows", "must be in the active state", "rows"])
def test_words_in_a_refused_param_do_not_affect_its_classification(
    sqlite_uri: str, server_uri: str, key: str
) -> None:
    for uri in (sqlite_uri, server_uri):
        sink = MLflowSink(uri)
        run_id = sink.create_run(HEAD)
        sink.log_batch(run_id, [], {key: "1"}, {})
        with pytest.raises(RejectedError) as caught:
            sink.log_batch(run_id, [], {key: "failed with error code 503 != 200, deleted"}, {})
        assert caught.value.definite


@pytest.mark.parametrize("what", ["run", "experiment"])
def test_a_deleted_run_or_experiment_is_held_by_its_stage(sqlite_uri: str, what: str) -> None:
    sink, client = MLflowSink(sqlite_uri), MlflowClient(sqlite_uri)
    run_id = sink.create_run(HEAD)
    if what == "run":
        client.delete_run(run_id)
    else:
        client.delete_experiment(client.get_run(run_id).info.experiment_id)
    data = Dataset("digits", "abc", "local", "{}", "", "", "train")
    with pytest.raises(HeldError, match="is deleted on the server"):
        sink.log_batch(run_id, [MetricPoint("a", 1.0, 1, 1)], {}, {})
    with pytest.raises(HeldError, match="is deleted on the server"):
        sink.log_dataset(run_id, data)


def test_a_race_in_the_database_is_no_definite_refusal(sqlite_uri: str) -> None:
    """Two runs log the same new dataset at once: one gets a 400 from a UNIQUE constraint."""
    from mlflow.protos.databricks_pb2 import BAD_REQUEST
    from sqlalchemy.exc import IntegrityError

    try:
        raise IntegrityError("INSERT", {}, Exception("UNIQUE constraint failed"))
    except IntegrityError as cause:
        error = MlflowException(str(cause), error_code=BAD_REQUEST)
        error.__cause__ = cause
    found = classified(error)
    assert isinstance(found, RejectedError)
    assert not found.definite


# -- artifacts -------------------------------------------------------------------------------------


def upload_of(uri: str, tmp_path: Path) -> DeliveryError:
    """The error of an upload to an artifact store that gives this answer."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    file = tmp_path / "a.txt"
    file.write_text("content")
    repository = get_artifact_repository(f"{uri}/api/2.0/mlflow-artifacts/artifacts/0/run")
    try:
        repository.log_artifact(str(file))
    except Exception as error:
        return classified_artifact(error)
    raise AssertionError("it was taken")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, RejectedError),
        (404, RejectedError),
        (413, RejectedError),
        (401, HeldError),
        (403, HeldError),
        (407, TransientError),
        (408, TransientError),
        (429, TransientError),
        (500, TransientError),
        (503, TransientError),
    ],
)
def test_upload_errors_are_classified_by_status(
    tmp_path: Path, status: int, kind: type[DeliveryError]
) -> None:
    with answering(status, "<html>no</html>") as uri:
        assert type(upload_of(uri, tmp_path)) is kind


def test_an_unwritable_artifact_folder_is_held_for_a_person_to_fix() -> None:
    assert isinstance(classified_artifact(PermissionError(13, "Permission denied")), HeldError)
    assert isinstance(classified_artifact(OSError(30, "Read-only file system")), HeldError)
    assert isinstance(classified_artifact(OSError(28, "No space left")), TransientError)
    assert isinstance(classified_artifact(ImportError("boto3")), HeldError)


def test_errors_of_cloud_libraries_are_classified_by_their_status() -> None:
    class ClientError(Exception):
        """An error like botocore's."""

        response = {"ResponseMetadata": {"HTTPStatusCode": 403}}  # noqa: RUF012  as botocore

    try:
        try:
            raise ClientError("AccessDenied")
        except ClientError as cause:
            raise RuntimeError("Failed to upload") from cause
    except RuntimeError as error:
        found = classified_artifact(error)
    assert isinstance(found, HeldError)
    assert isinstance(classified_artifact(RuntimeError("unheard of")), TransientError)


def test_a_store_that_mlflow_does_not_have_is_named() -> None:
    with pytest.raises(RejectedError, match="no store for the tracking URI 'nonsense://x'"):
        MLflowSink("nonsense://x")
