"""The part of a training's environment that matters to delivery, and whether it has changed.

A token that is refreshed in `os.environ` during training reaches delivery too.
"""

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from orbiter_mlflow.delivery import retry
from orbiter_mlflow.delivery.store_environment import for_stores, present

_RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"

DELIVERY_DEFAULTS = {
    _RETRIES: str(retry.HTTP_RETRIES),
    "MLFLOW_HTTP_REQUEST_TIMEOUT": str(retry.HTTP_TIMEOUT),
}
"""Variables of a command that reads or delivers; those that the user sets win."""

_NOT_FOR_DELIVERY = frozenset(
    {
        "MLFLOW_TRACKING_URI",  # an order names the store, and `active_run` changes this often
        *("MLFLOW_RUN_ID", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONINSPECT"),
    }
)

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


class Environment:
    """The environment that delivery was given, compared with the present one."""

    def __init__(self) -> None:
        self._given = for_stores(present())
        self._next = 0.0
        self._lock = threading.Lock()

    def changed(self) -> bool:
        """Whether a variable for stores has changed since the last call. Looks only every
        `retry.ENVIRONMENT_POLL` seconds."""
        now = time.monotonic()
        if now < self._next:
            return False
        with self._lock:
            self._next = now + retry.ENVIRONMENT_POLL
            before, self._given = self._given, for_stores(present())
            return self._given != before


def for_delivery(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for a process that delivers for one with `environ`."""
    own = {name: text for name, text in environ.items() if name not in _NOT_FOR_DELIVERY}
    # Not even the user's number of retries: while MLflow repeats one request for minutes, the
    # journals for other stores would wait.
    return DELIVERY_DEFAULTS | own | {_RETRIES: str(retry.HTTP_RETRIES)}


@contextlib.contextmanager
def files_from(folder: Path) -> Iterator[None]:
    """Inside the block, find files that variables name relative to a training's folder. A file
    relative to the working folder comes first, as people expect of a command."""
    before = dict(os.environ)
    for name in _FILES:
        path = os.environ.get(name)
        if path and not Path(path).exists() and (folder / path).exists():
            os.environ[name] = str(folder / path)
    try:
        yield
    finally:
        for name in _FILES:
            if name in before:
                os.environ[name] = before[name]
            else:
                os.environ.pop(name, None)
