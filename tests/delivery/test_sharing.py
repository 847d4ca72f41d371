"""Which training processes share a delivery process."""

import os
import sys
from pathlib import Path

import pytest

from orbiter_mlflow.delivery.hosts.sharing import pipe_of
from orbiter_mlflow.delivery.store_environment import digest

HERE = {"HOME": "/h", "MLFLOW_TRACKING_TOKEN": "t", "https_proxy": "http://p", "AWS_PROFILE": "a"}


def test_trainings_that_differ_in_what_only_they_read_share_one(tmp_path: Path) -> None:
    first = pipe_of(tmp_path, "/work", HERE)
    for name in ("RANK", "SEED", "CUDA_VISIBLE_DEVICES", "MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI"):
        assert pipe_of(tmp_path, "/work", HERE | {name: "1"}) == first
    assert first.parent == tmp_path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("MLFLOW_TRACKING_TOKEN", "u"),
        ("MLFLOW_TRACKING_PASSWORD", "secret"),
        ("https_proxy", "http://q"),
        ("NO_PROXY", "*"),
        ("AWS_PROFILE", "b"),
        ("AWS_SESSION_TOKEN", "s"),
        ("AZURE_STORAGE_ACCESS_KEY", "k"),
        ("GOOGLE_APPLICATION_CREDENTIALS", "/c.json"),
        ("REQUESTS_CA_BUNDLE", "/ca.pem"),
        ("PGPASSWORD", "p"),
        ("MY_STORE_API_KEY", "k"),
        ("HOME", "/other"),
        ("MLFLOW_HTTP_REQUEST_TIMEOUT", "7"),
    ],
)
def test_what_reaches_a_store_in_another_way_is_not_shared(
    tmp_path: Path, name: str, text: str
) -> None:
    assert pipe_of(tmp_path, "/work", HERE | {name: text}) != pipe_of(tmp_path, "/work", HERE)


def test_another_folder_python_or_import_path_is_not_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = pipe_of(tmp_path, "/work", HERE)
    assert pipe_of(tmp_path, "/elsewhere", HERE) != first
    assert pipe_of(tmp_path / "spool", "/work", HERE) != first
    with monkeypatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path, "/plugins"])
        assert pipe_of(tmp_path, "/work", HERE) != first
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/other/python")
        assert pipe_of(tmp_path, "/work", HERE) != first


def test_the_name_of_the_pipe_tells_nothing_of_the_environment(tmp_path: Path) -> None:
    name = pipe_of(tmp_path, os.sep, HERE | {"MLFLOW_TRACKING_PASSWORD": "short"}).name
    assert len(name) == len(".delivery") + 32
    assert int(name.removesuffix(".delivery"), 16)


def test_settings_of_requests_leave_the_credentials_the_same() -> None:
    for name in ("MLFLOW_HTTP_REQUEST_TIMEOUT", "ORBITER_MLFLOW_LINGER", "MLFLOW_RUN_ID"):
        assert digest(HERE | {name: "7"}) == digest(HERE)
    for name in ("MLFLOW_TRACKING_USERNAME", "AWS_PROFILE", "MLFLOW_GATEWAY_TOKEN"):
        assert digest(HERE | {name: "7"}) != digest(HERE)
