"""The variables that say how stores are reached and as whom; whether environments agree in them.

What one environment may write, another may not: its credentials may be somebody else's.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from functools import lru_cache

from orbiter_mlflow.redaction.key_names import names_secret

_ROUNDS = 20_000
"""Of PBKDF2, some 10 ms: a short password must not be guessed from a digest."""

_STORES = (
    *("MLFLOW_", "DATABRICKS_", "AWS_", "AZURE_", "GOOGLE_", "GCP_", "GCLOUD_", "CLOUDSDK_"),
    *("OCI_", "ALIBABA_", "ALICLOUD_", "OSS_", "S3_", "BOTO", "MINIO_", "HADOOP_", "HDFS_"),
    *(
        "KRB5",
        "PGHOST",
        "PGPORT",
        "PGUSER",
        "PGPASS",
        "PGSSL",
        "PGSERVICE",
        "MYSQL_",
        "NETRC",
        "REQUESTS_",
        "CURL_",
        "SSL_",
        "OPENSSL_",
    ),
    *("HOME", "ORBITER_MLFLOW_LINGER"),
)
"""Beginnings of the names of variables that say how a store is reached."""
_INSIDE = ("PROXY", "CERT", "CA_BUNDLE", "CREDENTIAL")
_FOR_OTHERS = ("JUPYTER", "CI_", "ACTIONS_", "SSH_", "HOMEBREW_", "WANDB_", "COMET_", "NEPTUNE_")
"""Beginnings of those that look like a store's, and differ in each session or job."""
_FOR_THE_TRAINER = (
    *("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_", "MLFLOW_RUN_", "MLFLOW_PARENT_RUN_ID"),
    *("MLFLOW_ENABLE_SYSTEM_METRICS", "MLFLOW_SYSTEM_METRICS_"),
)
"""Beginnings of those that only the trainer reads: its journal says what comes of them."""


def present() -> dict[str, str]:
    """The environment of this process now, which another thread may be changing."""
    while True:
        with contextlib.suppress(KeyError, RuntimeError):
            return dict(os.environ)


def digest(environ: Mapping[str, str]) -> str:
    """The same for environments with the same credentials and proxies; it tells nothing else."""
    known = {name: text for name, text in for_stores(environ).items() if not is_mere_setting(name)}
    return _digest(json.dumps(sorted(known.items())))


def is_mere_setting(name: str) -> bool:
    """Whether a variable for stores says how requests are made, and not as whom."""
    is_ours = name.startswith(("MLFLOW_", "ORBITER_MLFLOW_"))
    return is_ours and not name.startswith("MLFLOW_TRACKING_") and not names_secret(name)


@lru_cache(maxsize=4)
def _digest(text: str) -> str:
    salt = b"orbiter-mlflow"
    return hashlib.pbkdf2_hmac("sha256", text.encode(), salt, _ROUNDS, dklen=16).hex()


def for_stores(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that say how stores are reached, and with which credentials."""
    return {name: text for name, text in environ.items() if _is_for_stores(name)}


@lru_cache(maxsize=4096)
def _is_for_stores(name: str) -> bool:
    upper = name.upper()  # `http_proxy`
    if upper.startswith((*_FOR_THE_TRAINER, *_FOR_OTHERS)):
        return False
    return upper.startswith(_STORES) or any(word in upper for word in _INSIDE) or names_secret(name)
