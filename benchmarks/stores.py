"""Stores to log to (sqlite, PostgreSQL, an `mlflow server`, a hanging one), and points in them."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from benchmarks.processes import environment, fresh

_START = 120.0
"""Seconds allowed for the start of the server."""


@dataclass(frozen=True)
class Running:
    """A store that runs.

    Attributes:
        uri: the tracking URI.
        database: the URI of the database behind it.
        server: the process id of the `mlflow server`; None where there is none.
        postgres: the process id of PostgreSQL; None where there is none.
    """

    uri: str
    database: str
    server: int | None = None
    postgres: int | None = None


SQLITE, SERVER, POSTGRES = "sqlite", "server on sqlite", "server on PostgreSQL"
DIRECT = "PostgreSQL"


class Stores:
    """Makes fresh sqlite stores, copied from an empty one, PostgreSQL, and servers on them.

    Args:
        folder: for their files; the caller removes it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._count = 0
        self._empty = folder / "empty.db"
        fresh(_make_tables, folder, f"sqlite:///{self._empty}")

    def sqlite(self) -> str:
        """The tracking URI of a fresh store."""
        self._count += 1
        path = self.folder / f"store-{self._count}.db"
        shutil.copyfile(self._empty, path)
        return f"sqlite:///{path}"

    @contextlib.contextmanager
    def server(self, port: int | None = None) -> Iterator[str]:
        """The tracking URI of a running `mlflow server` over a fresh sqlite store."""
        with self._server(self.sqlite(), port=port) as running:
            yield running.uri

    @contextlib.contextmanager
    def running(self, kind: str) -> Iterator[Running]:
        """A fresh store of a kind; PostgreSQL syncs each commit to the disk, as people run it.

        Raises:
            RuntimeError: `missing` says why there can be none.
        """
        if kind == SQLITE:
            uri = self.sqlite()
            yield Running(uri, uri)
        elif kind == SERVER:
            with self._server(self.sqlite()) as running:
                yield running
        else:
            if reason := missing(kind):
                raise RuntimeError(reason)
            with self._postgres() as direct:
                if kind == DIRECT:
                    yield direct
                else:
                    with self._server(direct.database, workers=2) as running:
                        yield replace(running, postgres=direct.postgres)

    @contextlib.contextmanager
    def _postgres(self) -> Iterator[Running]:
        _let_import_of_tests()
        from postgres import PASSWORD, Postgres

        with Postgres("fsync=on", "max_connections=200") as server:
            password = {"PGPASSWORD": PASSWORD}
            uri = server.uri().replace("postgres@", f"postgres:{PASSWORD}@")
            fresh(_make_tables, self.folder, uri, variables=password)
            yield Running(uri, uri, postgres=server.pid)

    @contextlib.contextmanager
    def _server(
        self, store: str, *, port: int | None = None, workers: int = 1
    ) -> Iterator[Running]:
        port = port or free_port()
        uri = f"http://127.0.0.1:{port}"
        log = self.folder / f"server-{port}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"),
                    *("--port", str(port), "--workers", str(workers)),
                    *("--backend-store-uri", store),
                    *("--artifacts-destination", str(self.folder / "artifacts")),
                ],
                cwd=self.folder,
                env=environment(self.folder),
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            _await_health(uri, process, log)
            yield Running(uri, store, process.pid)
        finally:
            _end(process)


def missing(kind: str) -> str | None:
    """Why there can be no store of a kind on this machine; None if there can."""
    if kind in (SQLITE, SERVER):
        return None
    if find_spec("psycopg") is None:
        return "psycopg is not installed: .venv/bin/pip install -e '.[servers]'"
    _let_import_of_tests()
    from postgres import BINARIES

    return None if BINARIES else "PostgreSQL is not installed: apt-get install postgresql"


def _let_import_of_tests() -> None:
    """The tests' PostgreSQL is used here too."""
    support = str(Path(__file__).parent.parent / "tests" / "support")
    if support not in sys.path:
        sys.path.append(support)


def _make_tables(uri: str) -> None:
    from mlflow import MlflowClient

    MlflowClient(uri).search_experiments()


def _await_health(uri: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + _START
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{uri}/health", timeout=5):  # noqa: S310  our own
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"mlflow server did not start:\n{log.read_text()[-4000:]}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the server and its workers, which form a process group."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)


def free_port() -> int:
    """A free port, chosen by the system."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def hanging_server() -> Iterator[str]:
    """The URI of a server that accepts connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(128)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def value_of(step: int, metric: int) -> float:
    """The value that every contender logs for a metric at a step."""
    return (step * 31 + metric * 17) % 1009 / 1009


def metrics_of(step: int, count: int) -> dict[str, float]:
    """The metrics of one step."""
    return {f"m{metric}": value_of(step, metric) for metric in range(count)}


def found_points(uri: str, run_id: str, prefix: str, steps: range, count: int) -> int:
    """Points of a run that are in the store once, with the value that was logged.

    Reads the whole history of each metric; a duplicated point does not count.
    """
    from mlflow import MlflowClient

    client, found = MlflowClient(uri), 0
    for metric in range(count):
        at: dict[int, list[float]] = {}
        for point in client.get_metric_history(run_id, f"{prefix}m{metric}"):
            at.setdefault(point.step, []).append(point.value)
        found += sum(at.get(step) == [value_of(step, metric)] for step in steps)
    return found
