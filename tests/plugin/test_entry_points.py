"""MLflow finds the plugin by the scheme of a URI, and gets its own stores behind the prefix."""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as RegistrySqlAlchemyStore
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracking._model_registry.utils import _get_store_registry
from mlflow.tracking._tracking_service.utils import _get_store, _tracking_store_registry
from mlflow.tracking._workspace.registry import _get_workspace_store_registry

from orbiter_mlflow.plugin import entry_points

URIS = [
    "http://127.0.0.1:5000",
    "https://mlflow.example.com/team",
    "sqlite:///mlflow.db",
    "sqlite+pysqlite:///mlflow.db",
    "postgresql://me@db/mlflow",
    "postgresql+psycopg2://me@db/mlflow",
    "postgresql+psycopg://me@db/mlflow",
    "postgresql+pg8000://me@db/mlflow",
    "mysql://me@db/mlflow",
    "mysql+pymysql://me@db/mlflow",
    "mysql+mysqldb://me@db/mlflow",
    "mysql+mysqlconnector://me@db/mlflow",
    "mssql://me@db/mlflow",
    "mssql+pyodbc://me@db/mlflow",
    "mssql+pymssql://me@db/mlflow",
]
GROUPS = {
    "mlflow.tracking_store": entry_points.tracking_store,
    "mlflow.model_registry_store": entry_points.model_registry_store,
    "mlflow.workspace_provider": entry_points.workspace_store,
    "mlflow.scorer_store": entry_points.scorer_store,
}


# -- how MLflow finds it ---------------------------------------------------------------------------


@pytest.mark.parametrize("uri", URIS)
def test_each_registry_of_mlflow_knows_the_prefix(uri: str) -> None:
    from mlflow.genai.scorers.registry import _scorer_store_registry

    for registry, builder in (
        (_tracking_store_registry, entry_points.tracking_store),
        (_get_store_registry(), entry_points.model_registry_store),
        (_get_workspace_store_registry(), entry_points.workspace_store),
        (_scorer_store_registry, entry_points.scorer_store),
    ):
        assert registry.get_store_builder(f"journal+{uri}") is builder
        assert registry.get_store_builder(uri).__module__.split(".")[0] == "mlflow"


@pytest.mark.parametrize("group", GROUPS)
def test_the_schemes_are_the_same_for_each_kind_of_store(group: str) -> None:
    ours = {
        entry_point.name
        for entry_point in importlib.metadata.entry_points(group=group)
        if entry_point.module == entry_points.__name__
    }
    assert ours == {f"journal+{uri.partition(':')[0]}" for uri in URIS}


def test_the_case_of_the_prefix_does_not_matter(tmp_path: Path) -> None:
    store = _get_store(f"Journal+sqlite:///{tmp_path}/case.db")
    assert isinstance(store, SqlAlchemyStore)


def test_other_schemes_are_mlflows_own_error() -> None:
    with pytest.raises(MlflowException, match=r"unsupported URI 'journal\+ftp://host'"):
        MlflowClient("journal+ftp://host").search_experiments()


# -- the tracking store ----------------------------------------------------------------------------


def test_a_new_store_is_the_one_that_mlflow_would_make(tmp_path: Path) -> None:
    made = []
    for prefix in ("", "journal+"):
        folder = tmp_path / (prefix or "plain")
        folder.mkdir()
        os.chdir(folder)
        client = MlflowClient(f"{prefix}sqlite:///new/sub/mlflow.db")
        experiments = ["0", client.create_experiment("e")]
        roots = [client.get_experiment(one).artifact_location for one in experiments]
        assert roots == [str(folder / "mlruns" / one) for one in experiments]
        made.append(sorted(str(path.relative_to(folder)) for path in folder.rglob("*")))
    assert made[0] == made[1]


def test_the_setting_enabled_gives_mlflows_own_store(
    sqlite_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORBITER_MLFLOW_ENABLED", "false")
    assert type(entry_points.tracking_store(f"journal+{sqlite_uri}")) is SqlAlchemyStore
    monkeypatch.setenv("ORBITER_MLFLOW_ENABLED", "perhaps")
    with pytest.raises(MlflowException, match="ORBITER_MLFLOW_ENABLED='perhaps' is neither"):
        entry_points.tracking_store(f"journal+{sqlite_uri}")


@pytest.mark.parametrize("uri", ["sqlite://", "sqlite:///:memory:"])
def test_a_store_in_memory_is_refused(uri: str) -> None:
    with pytest.raises(MlflowException, match="a store in memory that nobody else could read"):
        MlflowClient(f"journal+{uri}").search_experiments()


# -- servers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--backend-store-uri", "--registry-store-uri"])
def test_a_server_refuses_the_prefix_and_says_what_to_write(option: str, sqlite_uri: str) -> None:
    stores = {"--backend-store-uri": sqlite_uri, option: f"journal+{sqlite_uri}"}
    command = [sys.executable, "-m", "mlflow", "server", "--port", "1"]
    for name, uri in stores.items():
        command += [name, uri]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode != 0
    assert f"journal+{sqlite_uri} is a URI for clients" in ended.stderr
    assert f"start the server with {option} {sqlite_uri}, and" in ended.stderr


def test_a_refusal_shows_no_password() -> None:
    from mlflow.server.handlers import TrackingStoreRegistryWrapper

    with pytest.raises(MlflowException, match="is a URI for clients") as refused:
        TrackingStoreRegistryWrapper().get_store("journal+postgresql://me:secret@db/mlflow", "a")
    assert "secret" not in str(refused.value)
    assert refused.value.error_code == "INVALID_PARAMETER_VALUE"


# -- the model registry, and other stores ----------------------------------------------------------


def test_the_model_registry_is_mlflows_own_on_the_same_store(sqlite_uri: str) -> None:
    client = MlflowClient(f"journal+{sqlite_uri}")
    client.create_registered_model("m", {"a": "b"}, "words")
    assert isinstance(client._get_registry_client().store, RegistrySqlAlchemyStore)
    found = MlflowClient(sqlite_uri).get_registered_model("m")
    assert (found.tags, found.description) == ({"a": "b"}, "words")


def test_workspaces_are_found_behind_the_prefix(sqlite_uri: str) -> None:
    registry = _get_workspace_store_registry()
    ours = registry.get_store(f"journal+{sqlite_uri}")
    assert type(ours) is type(registry.get_store(sqlite_uri))


def test_scorers_are_found_behind_the_prefix(sqlite_uri: str) -> None:
    from mlflow.genai.scorers import list_scorers

    mlflow.set_tracking_uri(f"journal+{sqlite_uri}")
    try:
        assert list_scorers(experiment_id="0") == []
    finally:
        mlflow.set_tracking_uri(None)


# -- artifacts that a server keeps -----------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "journal+"])
@pytest.mark.parametrize("given", [True, False])
def test_artifacts_of_a_server_are_found_behind_the_prefix(
    prefix: str, given: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"{prefix}https://mlflow.example.com/team"
    if not given:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    found = get_artifact_repository("mlflow-artifacts:/0/run/artifacts", uri if given else None)
    assert found.artifact_uri == (
        "https://mlflow.example.com/team/api/2.0/mlflow-artifacts/artifacts/0/run/artifacts"
    )
    assert found.tracking_uri == "https://mlflow.example.com/team"


def test_artifacts_of_a_server_are_mlflows_own_error_on_a_database() -> None:
    with pytest.raises(MlflowException, match=r"must be a valid http or https URI.*sqlite:/x.db"):
        get_artifact_repository("mlflow-artifacts:/0/run/artifacts", "journal+sqlite:///x.db")
