"""Real stores for all tests: a sqlite file, an `mlflow server` on loopback."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from orbiter.train._log_throttle import OncePerMinute
from servers import LateStore, running_server

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
# The trainers of the tests come from no repository: its state is no matter of theirs.
os.environ["GIT_CEILING_DIRECTORIES"] = str(Path(__file__).parents[1])
for _name in [name for name in os.environ if name.startswith("ORBITER_MLFLOW_")]:
    del os.environ[_name]
for _name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME"):
    os.environ.pop(_name, None)
for _name in [name for name in os.environ if name.endswith(("RANK", "PROCID"))]:
    del os.environ[_name]  # the tests may be run by a launcher


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test in a folder and with a spool of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def repeats_forgotten() -> None:
    """What one test was told does not count as told to the next."""
    for logger in list(logging.Logger.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger):
            for one in logger.filters:
                if isinstance(one, OncePerMinute):
                    one._seen.clear()


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sqlite store with MLflow's tables and nothing in it; making one takes seconds."""
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
    """A store that is not there yet; it is in the end, so that delivery does not try for ever."""
    store = LateStore(tmp_path / "late", empty_store)
    yield store
    store.appear()


@pytest.fixture(scope="session")
def server_uri(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real `mlflow server` on loopback, one for each worker of the test run."""
    folder = tmp_path_factory.mktemp("server")
    store = folder / "server.db"
    store.write_bytes(empty_store.read_bytes())
    with running_server(f"sqlite:///{store}", folder) as uri:
        yield uri
