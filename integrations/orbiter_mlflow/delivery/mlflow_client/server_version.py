"""Ask a server for the version of its MLflow."""

import re

from mlflow.store.tracking.rest_store import RestStore
from mlflow.utils.rest_utils import http_request

from orbiter_mlflow.errors import TransientError

_VERSION = re.compile(r"\s*(\d{1,4})\.(\d{1,4})\.[\w.+-]{1,40}\s*")
_LATER = frozenset({408, 425, 429})


def server_version(store: RestStore) -> tuple[int, int] | None:
    """Major and minor version of the server behind a store; None from one that tells none.

    Raises:
        TransientError: something on the way answered in its place, or nothing did.
    """
    try:
        answer = http_request(store.get_host_creds(), "/version", "GET", max_retries=0)
    except Exception as error:
        raise TransientError(f"the server does not tell its version: {error}") from error
    if answer.status_code >= 500 or answer.status_code in _LATER:
        raise TransientError(f"the server does not tell its version: HTTP {answer.status_code}")
    found = _VERSION.fullmatch(answer.text) if answer.status_code == 200 else None
    return (int(found[1]), int(found[2])) if found else None
