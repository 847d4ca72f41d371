"""The artifacts of a run as MLflow's repositories have them, and uploads of any size.

MLflow's own functions for a run ask for its logged models too, which servers before MLflow 3 do not
have. And they wait 30 seconds for an answer, while a server that passes artifacts on answers once
it has stored the whole file.
"""

import os
import posixpath
from typing import Any

from mlflow import MlflowClient
from mlflow.environment_variables import (
    MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD,
    MLFLOW_HTTP_REQUEST_TIMEOUT,
)
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository
from mlflow.utils.rest_utils import augmented_raise_for_status, http_request
from mlflow.utils.uri import add_databricks_profile_info_to_artifact_uri

_LARGE = 64 << 20
"""Bytes from which the size of a file matters."""
_SPEED = 20e6
"""Bytes that a server stores in a second, at least."""


def repository_of(client: MlflowClient, run_id: str) -> Any:
    """MLflow's repository of the artifacts of a run.

    Not the one in MLflow's cache: where a training delivers in a thread, that may be the one that
    writes to the journal.

    Raises:
        Exception: what MLflow raises.
    """
    uri = add_databricks_profile_info_to_artifact_uri(
        client.get_run(run_id).info.artifact_uri, client.tracking_uri
    )
    return get_artifact_repository(uri, tracking_uri=client.tracking_uri)


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
