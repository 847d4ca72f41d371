"""The environment of a training process, as delivery is to have it: a token that is refreshed in
`os.environ` while the training runs reaches delivery too."""

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

DELIVERY_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
"""The environment of a process that does nothing but deliver: one attempt takes seconds, and how
often to try is the drain's business. What the user sets goes before it."""

_NOT_FOR_DELIVERY = frozenset({"MLFLOW_RUN_ID", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONINSPECT"})

_FILES = (
    "MLFLOW_TRACKING_SERVER_CERT_PATH",
    "MLFLOW_TRACKING_CLIENT_CERT_PATH",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "AWS_CA_BUNDLE",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "GOOGLE_APPLICATION_CREDENTIALS",
)

_LOOK = 0.25
"""Seconds between looks; one takes some 50 microseconds."""


class Environment:
    """What delivery was given of this process' environment, and what has changed since."""

    def __init__(self) -> None:
        self._given = for_delivery()
        self._next = 0.0
        self._lock = threading.Lock()

    def changes(self) -> dict[str, str | None]:
        """What is new since the last call, None for what is gone; looks once in a while only."""
        now = time.monotonic()
        if now < self._next:
            return {}
        with self._lock:
            self._next = now + _LOOK
            try:
                fresh = for_delivery()
            except (KeyError, RuntimeError):  # another thread is changing it: next time
                return {}
            if fresh == self._given:
                return {}
            gone = {name: None for name in self._given if name not in fresh}
            new = {name: text for name, text in fresh.items() if self._given.get(name) != text}
            self._given = fresh
            return {**gone, **new}


def for_delivery() -> dict[str, str]:
    """The environment that a process which delivers for this one is to have."""
    own = {name: text for name, text in os.environ.items() if name not in _NOT_FOR_DELIVERY}
    return DELIVERY_DEFAULTS | own


def apply(changes: Mapping[str, str | None]) -> None:
    """Change the environment of this process."""
    for name, text in changes.items():
        if text is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = text


@contextlib.contextmanager
def files_from(folder: Path) -> Iterator[None]:
    """Within the block, files that variables name relative to a training's folder are found from
    here too; one that is here goes first, as everybody expects of a command."""
    before = dict(os.environ)
    for name in _FILES:
        path = os.environ.get(name)
        if path and not Path(path).exists() and (folder / path).exists():
            os.environ[name] = str(folder / path)
    try:
        yield
    finally:
        apply({name: before.get(name) for name in _FILES})
