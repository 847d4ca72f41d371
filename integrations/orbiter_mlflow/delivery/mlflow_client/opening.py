"""Open tracking stores: create a missing sqlite file atomically, and choose its artifact root.

MLflow creates a store in place, table by table, without a lock, so two clients that do so at once
break each other. Here a missing file is made elsewhere and put in place in one step: a user's own
client finds none or all of it. A file that is ready is opened without writing anything.
"""

import contextlib
import logging
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow import MlflowClient
from mlflow.store.db import utils as databases
from mlflow.store.db.db_types import DATABASE_ENGINES
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracking._tracking_service import utils as tracking_service

from orbiter_mlflow.delivery import retry
from orbiter_mlflow.delivery.files import locks
from orbiter_mlflow.delivery.store_uri import sqlite_file

_ROOT_OF_SERVER = "_MLFLOW_SERVER_ARTIFACT_ROOT"
"""Set by `mlflow server` for the jobs that it starts; takes precedence over any default."""


@contextlib.contextmanager
def opening(tracking_uri: str, default_root: str | None = None) -> Iterator[None]:
    """Prepare a database to be opened inside the `with` block; other stores need nothing.

    Args:
        tracking_uri: the store.
        default_root: where the experiment `Default` of a new store keeps its artifacts. Default:
            beside the file.

    Raises:
        FileNotFoundError: the folder of the file does not exist.
        sqlalchemy.exc.SQLAlchemyError: a database that is no sqlite file takes no connection.
    """
    database = sqlite_file(tracking_uri)
    if database is None or _ready(database):
        if database is None and _is_database(tracking_uri):
            _require_connection(tracking_uri)
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
            _create(database, default_root)
        _wait_until_created(database)
        yield  # under the lock: MLflow migrates a store of an older version here


def create_experiment(client: MlflowClient, name: str, folder: str | None) -> str:
    """Create an experiment whose artifacts go to `artifact_root`; return its id.

    Args:
        client: the store's client.
        name: the experiment's name.
        folder: the training's working folder, if it is known.
    """
    root = artifact_root(client.tracking_uri, folder)
    if root is None:
        return str(client.create_experiment(name))
    # The public client cannot name the root: it uses the working folder of the process.
    store = tracking_service._get_store(client.tracking_uri, root)
    return str(store.create_experiment(name))


def artifact_root(tracking_uri: str, folder: str | None) -> str | None:
    """The folder in which a database store keeps artifacts; None if MLflow or the server decides.

    MLflow's default is `./mlruns` of the process that creates the experiment. Here it is a folder
    beside a sqlite file, and for other databases one in the training's folder, wherever delivery
    runs.
    """
    if os.environ.get(_ROOT_OF_SERVER):
        return None
    database = sqlite_file(tracking_uri)
    if database is not None:
        return str(database.parent / "mlruns")
    return str(Path(folder) / "mlruns") if _is_database(tracking_uri) and folder else None


def close(tracking_uri: str) -> None:
    """Close the connections to a database, which MLflow keeps for the life of the process: a file
    that is removed and made anew would be written to where nobody finds it."""
    engine = SqlAlchemyStore._engine_map.get(tracking_uri)
    if engine is not None:
        engine.dispose()


def _is_database(tracking_uri: str) -> bool:
    return tracking_uri.partition(":")[0].partition("+")[0] in DATABASE_ENGINES


def _require_connection(tracking_uri: str) -> None:
    """Connect once: MLflow would try ten times, in 100 seconds, while the journals for all other
    stores wait (mlflow/store/db/utils.py, 3.17)."""
    engine = databases.create_sqlalchemy_engine(tracking_uri)
    try:
        engine.connect().close()
    finally:
        engine.dispose()


def _ready(database: Path) -> bool:
    """Whether MLflow will write nothing when it opens this file."""
    revision, has_default = _state(database)
    return has_default and revision == _latest_revision()


def _state(database: Path) -> tuple[str | None, bool]:
    """The schema's revision, and whether MLflow's last step is done: the experiment `Default`."""
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
    """The schema revision of the installed MLflow."""
    return str(databases._get_latest_schema_revision())


def _create(database: Path, default_root: str | None) -> None:
    """Create a store elsewhere and put it in place whole, unless one has appeared meanwhile."""
    fresh = database.with_name(f".{database.name}.{os.urandom(8).hex()}")
    try:
        # Not in the store's folder: a kill would leave it there, and network disks are slow.
        with TemporaryDirectory() as folder:
            made = Path(folder) / "made.db"
            chosen = default_root or artifact_root(f"sqlite:///{database}", None)
            root = os.environ.get(_ROOT_OF_SERVER) or chosen
            SqlAlchemyStore(f"sqlite:///{made}", root).engine.dispose()
            shutil.copyfile(made, fresh)
        os.link(fresh, database)  # unlike a rename, it never replaces a file
    except OSError:
        pass  # it exists now; or no space, no links on this disk: MLflow creates it in place
    finally:
        fresh.unlink(missing_ok=True)


def _wait_until_created(database: Path) -> None:
    """Wait while another client creates the store, if one does."""
    deadline = time.monotonic() + retry.CREATION_LONGEST
    before, changed = None, time.monotonic()
    while database.exists() and not _state(database)[1] and time.monotonic() < deadline:
        status = database.stat()
        if (status.st_size, status.st_mtime_ns) != before:
            before, changed = (status.st_size, status.st_mtime_ns), time.monotonic()
        elif time.monotonic() > changed + retry.CREATION_STILL:
            return
        time.sleep(retry.CREATION_POLL)


@contextlib.contextmanager
def _quiet(logger_name: str) -> Iterator[None]:
    """Keep some fifty lines that MLflow logs while it creates a store off the user's terminal."""
    logger = logging.getLogger(logger_name)
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
