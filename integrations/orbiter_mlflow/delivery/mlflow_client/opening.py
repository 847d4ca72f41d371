"""Open tracking stores: create a sqlite file whole, and say where its artifacts go.

MLflow creates a store in place, table by table, and takes no lock: two clients that meet there
break each other. Here a file that is missing is made elsewhere and put in place in one step, so a
user's own client finds none or all of it. A file that is ready is opened without writing anything.
"""

import contextlib
import logging
import os
import shutil
import sqlite3
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from orbiter_mlflow.delivery.mlflow_client import importable  # noqa: F401

# isort: split
from mlflow import MlflowClient
from mlflow.store.db import utils as databases
from mlflow.store.db.db_types import DATABASE_ENGINES
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracking._tracking_service import utils as tracking_service

from orbiter_mlflow.delivery.files import locks
from orbiter_mlflow.delivery.store_uri import sqlite_file

_STILL = 5.0
"""Seconds without a change after which nobody is taken to be creating a store; the longest of
MLflow's migrations takes a fraction of one."""
_LONGEST = 120.0
"""Seconds that a store in creation is waited for, at most."""
_LOOK = 0.05

_ROOT_OF_SERVER = "_MLFLOW_SERVER_ARTIFACT_ROOT"
"""Set by `mlflow server` for the jobs that it starts; goes before any default."""


@contextlib.contextmanager
def opening(tracking_uri: str) -> Iterator[None]:
    """Make a sqlite store fit to be opened inside the `with` block; nothing for other stores.

    Raises:
        FileNotFoundError: the folder of the file does not exist.
    """
    database = sqlite_file(tracking_uri)
    if database is None or _ready(database):
        yield
        return
    if not database.parent.exists():
        raise FileNotFoundError(f"there is no folder {database.parent} for the store {database}")
    with (
        _quiet("alembic"),
        _quiet("mlflow.store.db.utils"),
        locks.exclusive(database.with_name(f".{database.name}.opening")),
    ):
        if not os.path.lexists(database):
            _create(database)
        _wait_until_created(database)
        yield  # under the lock: MLflow migrates a store of an older version here


def create_experiment(client: MlflowClient, name: str, folder: str | None) -> str:
    """Create an experiment whose artifacts go where `artifact_root` says.

    Args:
        client: of the store.
        name: of the experiment.
        folder: the training's working folder, where it is known.
    """
    root = artifact_root(client.tracking_uri, folder)
    if root is None:
        return str(client.create_experiment(name))
    # The public client has no way to name the root: it is the working folder of the process.
    store = tracking_service._get_store(client.tracking_uri, root)
    return str(store.create_experiment(name))


def artifact_root(tracking_uri: str, folder: str | None) -> str | None:
    """Where a database store keeps artifacts; None where MLflow or the server decide.

    MLflow's default is `./mlruns` of whoever creates the experiment. Here it is beside a sqlite
    file, for other databases in the training's folder, whoever delivers from wherever.
    """
    if os.environ.get(_ROOT_OF_SERVER):
        return None
    database = sqlite_file(tracking_uri)
    if database is not None:
        return str(database.parent / "mlruns")
    is_database = tracking_uri.partition(":")[0].partition("+")[0] in DATABASE_ENGINES
    return str(Path(folder) / "mlruns") if is_database and folder else None


def forget_clients() -> None:
    """Let the clients of artifact stores be made anew, as each keeps the credentials that it found
    in the environment. For a process that does nothing but deliver."""
    tracking_service._artifact_repos_cache.clear()
    if (boto3 := sys.modules.get("boto3")) is not None:
        boto3.DEFAULT_SESSION = None  # type: ignore[attr-defined]
        from mlflow.store.artifact import s3_artifact_repo

        s3_artifact_repo._cached_get_s3_client.cache_clear()


def _ready(database: Path) -> bool:
    """Whether MLflow has nothing to write when it opens this file."""
    revision, has_default = _state(database)
    return has_default and revision == _latest_revision()


def _state(database: Path) -> tuple[str | None, bool]:
    """The schema's revision, and whether the experiment `Default` is there, MLflow's last step."""
    if not database.exists():
        return None, False
    try:
        with contextlib.closing(
            sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)
        ) as connection:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            default = connection.execute("SELECT 1 FROM experiments WHERE experiment_id = 0")
            return row and str(row[0]), default.fetchone() is not None
    except sqlite3.Error:
        return None, False


@cache
def _latest_revision() -> str:
    """The revision of the schema that the installed MLflow wants."""
    return str(databases._get_latest_schema_revision())


def _create(database: Path) -> None:
    """Create a store elsewhere and put it in place whole; one that came meanwhile stays."""
    fresh = database.with_name(f".{database.name}.{os.urandom(8).hex()}")
    try:
        # Not in the store's folder: a kill would leave it there, and network disks are slow at it.
        with TemporaryDirectory() as folder:
            made = Path(folder) / "made.db"
            root = artifact_root(f"sqlite:///{database}", None) or os.environ[_ROOT_OF_SERVER]
            SqlAlchemyStore(f"sqlite:///{made}", root).engine.dispose()
            shutil.copyfile(made, fresh)
        os.link(fresh, database)  # unlike a rename, it never replaces what is there
    except OSError:
        pass  # it is there now; or no space, no links on this disk: MLflow creates it in place
    finally:
        fresh.unlink(missing_ok=True)


def _wait_until_created(database: Path) -> None:
    """Wait while a client of the user's creates the store, if it does."""
    deadline = time.monotonic() + _LONGEST
    before, changed = None, time.monotonic()
    while database.exists() and not _state(database)[1] and time.monotonic() < deadline:
        status = database.stat()
        if (status.st_size, status.st_mtime_ns) != before:
            before, changed = (status.st_size, status.st_mtime_ns), time.monotonic()
        elif time.monotonic() > changed + _STILL:
            return
        time.sleep(_LOOK)


@contextlib.contextmanager
def _quiet(logger_name: str) -> Iterator[None]:
    """Keep MLflow's some fifty lines on the making of a store off the user's terminal."""
    logger = logging.getLogger(logger_name)
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
