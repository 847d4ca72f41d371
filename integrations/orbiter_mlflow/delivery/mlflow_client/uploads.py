"""Upload a file to MLflow's artifact store, and wait for the answer as long as its size may take.

A server that passes artifacts on answers once it has stored the whole file, which for gigabytes
takes longer than MLflow's client waits for any answer.
"""

import os
import posixpath
from typing import Any

from mlflow.environment_variables import (
    MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD,
    MLFLOW_HTTP_REQUEST_TIMEOUT,
)
from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository
from mlflow.utils.rest_utils import augmented_raise_for_status, http_request

_LARGE = 64 << 20
"""Bytes from which the size of a file matters."""
_SPEED = 20e6
"""Bytes that a server stores in a second, at least."""


def upload(repository: Any, path: str, folder: str | None) -> None:
    """Upload a file under its name into a folder of a repository of MLflow's.

    Raises:
        Exception: what MLflow raises.
    """
    size = os.stat(path).st_size  # noqa: PTH116  a text, as MLflow takes it
    in_parts = MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD.get()
    if not isinstance(repository, HttpArtifactRepository) or in_parts or size < _LARGE:
        repository.log_artifact(path, folder)
        return
    with open(path, "rb") as file:  # noqa: PTH123
        answer = http_request(
            repository._host_creds,
            posixpath.join("/", folder or "", os.path.basename(path)),  # noqa: PTH119
            "PUT",
            data=file,
            extra_headers={"Content-Type": "application/octet-stream"},
            timeout=max(MLFLOW_HTTP_REQUEST_TIMEOUT.get(), size / _SPEED),
        )
        augmented_raise_for_status(answer)
