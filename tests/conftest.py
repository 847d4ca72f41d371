"""Fixtures for all tests: a folder and a spool of their own, real stores, a clean environment."""

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orbiter.train._log_throttle import OncePerMinute
from servers import LateStore, running_server

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
# The provenance of a test's run must not depend on the state of this repository.
os.environ["GIT_CEILING_DIRECTORIES"] = str(Path(__file__).parents[1])
for _name in [name for name in os.environ if name.startswith("ORBITER_MLFLOW_")]:
    del os.environ[_name]
for _name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME"):
    os.environ.pop(_name, None)
for _name in [name for name in os.environ if name.endswith(("RANK", "PROCID"))]:
    del os.environ[_name]  # a launcher may run the tests
# A question to a server that is down outlives its test, by minutes; its warnings are not another's.
logging.getLogger("urllib3.connectionpool").addFilter(
    lambda record: record.threadName != "orbiter-question"
)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a working folder and a spool of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def no_active_run() -> Iterator[None]:
    """Let no test leave a run, an experiment or a tracking URI of MLflow's active; it keeps them in
    the environment, too."""
    yield
    fluent = sys.modules.get("mlflow.tracking.fluent")
    if fluent is None:
        return
    import mlflow

    while mlflow.active_run() is not None:
        mlflow.end_run()
    fluent._active_experiment_id = None  # type: ignore[attr-defined]  # MLflow has no other way
    for name in ("MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        os.environ.pop(name, None)
    mlflow.set_tracking_uri(None)


@pytest.fixture(autouse=True)
def unthrottled_logs() -> None:
    """Let each test see every message, even one that an earlier test has logged."""
    for logger in list(logging.Logger.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger):
            for one in logger.filters:
                if isinstance(one, OncePerMinute):
                    one.reset()


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty sqlite store with MLflow's tables, shared because making one takes seconds."""
    from orbiter_mlflow.delivery.mlflow_sink import MLflowSink

    path = tmp_path_factory.mktemp("store") / "empty.db"
    MLflowSink(f"sqlite:///{path}")
    return path


@pytest.fixture
def sqlite_uri(empty_store: Path, tmp_path: Path) -> str:
    """The tracking URI of a fresh sqlite store."""
    path = tmp_path / "store.db"
    path.write_bytes(empty_store.read_bytes())
    return f"sqlite:///{path}"


@pytest.fixture
def late_store(empty_store: Path, tmp_path: Path) -> Iterator[LateStore]:
    """A store that does not exist yet; it appears at the end, so that delivery can finish."""
    store = LateStore(tmp_path / "late", empty_store)
    yield store
    store.appear()


@pytest.fixture(scope="session")
def server_uri(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real `mlflow server` on loopback, one per pytest worker."""
    folder = tmp_path_factory.mktemp("server")
    store = folder / "server.db"
    store.write_bytes(empty_store.read_bytes())
    with running_server(f"sqlite:///{store}", folder) as uri:
        yield uri
