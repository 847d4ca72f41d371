"""Real servers on loopback, and a store that appears on demand."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path


def free_port() -> int:
    """A free port, chosen by the system."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class running_server:  # noqa: N801  a context manager, named as one
    """An `mlflow server` on a port of its own, killed by its pid.

    Args:
        store_uri: of the backend store.
        folder: for its artifacts and its log.
        port: default: one chosen by the system.
        python: the interpreter with the MLflow to run; by default this one.
        workers: processes that answer.
        options: further options of `mlflow server`.
        environment: variables besides those of this process.
    """

    def __init__(
        self,
        store_uri: str,
        folder: Path,
        port: int | None = None,
        *,
        python: Path | str = sys.executable,
        workers: int = 1,
        options: Sequence[str] = (),
        environment: Mapping[str, str] = {},
    ) -> None:
        self.port = port or free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._command = [
            *(str(python), "-m", "mlflow", "server", "--host", "127.0.0.1"),
            *("--port", str(self.port), "--workers", str(workers)),
            *("--backend-store-uri", store_uri, "--artifacts-destination", str(folder / "files")),
            *options,
        ]
        self._environment = {**os.environ, **environment}
        self._log = folder / f"server-{self.port}.log"

    def __enter__(self) -> str:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=5):
                    return self.uri
            except OSError:
                if self._process.poll() is not None:
                    break
                time.sleep(0.1)
        self.__exit__()
        raise RuntimeError(f"mlflow server did not start: {self._log.read_text()}")

    def __exit__(self, *_: object) -> None:
        os.killpg(self._process.pid, 9)
        self._process.wait()


class LateStore:
    """A sqlite store whose folder is missing until `appear`: an outage that ends on demand."""

    def __init__(self, folder: Path, content: Path) -> None:
        self.folder = folder
        self.uri = f"sqlite:///{folder}/store.db"
        self._content = content

    def appear(self) -> None:
        if not self.folder.exists():
            fresh = self.folder.with_suffix(".new")
            fresh.mkdir()
            (fresh / "store.db").write_bytes(self._content.read_bytes())
            fresh.rename(self.folder)
