"""The part of a training's environment that matters to delivery, and whether it has changed.

A token that is refreshed in `os.environ` during training reaches delivery too.
"""

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from orbiter_mlflow.delivery import retry
from orbiter_mlflow.redaction.key_names import names_secret

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


_STORES = (
    *("MLFLOW_", "DATABRICKS_", "AWS_", "AZURE_", "GOOGLE_", "GCP_", "GCLOUD_", "CLOUDSDK_"),
    *("OCI_", "ALIBABA_", "ALICLOUD_", "OSS_", "S3_", "BOTO", "MINIO_", "HADOOP_", "HDFS_"),
    *("KRB5", "PG", "MYSQL_", "NETRC", "REQUESTS_", "CURL_", "SSL_", "OPENSSL_"),
    *("SSH_AUTH_SOCK", "HOME", "ORBITER_MLFLOW_LINGER"),
)
"""Beginnings of the names of variables that say how a store is reached."""
_INSIDE = ("PROXY", "CERT", "CA_BUNDLE", "CREDENTIAL")
_FOR_THE_TRAINER = (
    *("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_", "MLFLOW_RUN_", "MLFLOW_PARENT_RUN_ID"),
    *("MLFLOW_ENABLE_SYSTEM_METRICS", "MLFLOW_SYSTEM_METRICS_"),
)
"""Beginnings of those that only the trainer reads: its journal says what comes of them."""


class Environment:
    """The environment that delivery was given, compared with the present one."""

    def __init__(self) -> None:
        self._given = for_stores(os.environ)
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
            try:
                fresh = for_stores(os.environ)
            except (KeyError, RuntimeError):  # another thread is changing it: next time
                return False
            before, self._given = self._given, fresh
            return fresh != before


def for_stores(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that say how stores are reached, and with which credentials."""
    return {name: text for name, text in environ.items() if _is_for_stores(name)}


@lru_cache(maxsize=4096)
def _is_for_stores(name: str) -> bool:
    upper = name.upper()  # `http_proxy`
    if upper.startswith(_FOR_THE_TRAINER):
        return False
    return upper.startswith(_STORES) or any(word in upper for word in _INSIDE) or names_secret(name)


def for_delivery() -> dict[str, str]:
    """The environment for a process that delivers for this one."""
    own = {name: text for name, text in os.environ.items() if name not in _NOT_FOR_DELIVERY}
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
