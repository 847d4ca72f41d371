"""Runs with a logged config: in a store, or as `RunStore` would read them."""

from collections.abc import Mapping
from itertools import islice
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Param

from orbiter_mlflow import names
from orbiter_mlflow.delivery.records import Params, Tags
from orbiter_mlflow.redaction.redactor import Redactor
from orbiter_mlflow.runs.model import StoredRun
from orbiter_mlflow.text.packed_tags import unpacked
from orbiter_mlflow.tracking.config_records import log_config


def params_and_tags(
    config: Any, redact: tuple[str, ...] = ()
) -> tuple[dict[str, str], dict[str, str]]:
    """The params and tags that a trainer logs for its config."""
    params: dict[str, str] = {}
    tags: dict[str, str] = {}
    for record in log_config(config, Redactor(redact)).records:
        if isinstance(record, Params):
            params |= record.values
        elif isinstance(record, Tags):
            tags |= record.values
    return params, tags


def as_stored(params: Mapping[str, str], tags: Mapping[str, str] | None = None) -> StoredRun:
    """A run with these params and tags, as read from a store."""
    return StoredRun("f" * 32, "name", "0", "FINISHED", 1, 2, params, unpacked(tags or {}), {}, ())


def run_with(config: Any, redact: tuple[str, ...] = ()) -> StoredRun:
    """A run with this config, as read from a store."""
    return as_stored(*params_and_tags(config, redact))


def log_to(uri: str, params: Mapping[str, str], tags: Mapping[str, str]) -> str:
    """Create a run with these params and tags, in as few requests as MLflow allows."""
    client = MlflowClient(uri)
    run_id: str = client.create_run("0", tags=dict(tags)).info.run_id
    left = iter([Param(key, text) for key, text in params.items()])
    while batch := list(islice(left, names.MAX_PARAMS_OR_TAGS)):
        client.log_batch(run_id, params=batch)
    return run_id
