"""What MLflow calls for a URI `journal+...`: build the stores and artifact repositories behind it.

Every `import mlflow` loads this module, in any program of an environment that has orbiter. So it
imports nothing but the standard library until it is asked for a store.
"""

import inspect
import os
import sys
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.store.artifact.artifact_repo import ArtifactRepository
    from mlflow.store.model_registry.abstract_store import AbstractStore as RegistryStore
    from mlflow.store.tracking.abstract_store import AbstractStore

# The first finalizer of a process registers all of them for its exit. This one comes before MLflow
# registers the end of its active run, so that ours run after that.
weakref.finalize(sys.modules[__name__], int)

_SERVER = "mlflow.server.handlers"
"""The module in which a server has registries of its own, which ask for its backend store."""


def tracking_store(store_uri: str, artifact_uri: str | None = None) -> "AbstractStore":
    """Build the tracking store behind a URI with our prefix, with journals for its writes.

    `ORBITER_MLFLOW_ENABLED=false` gives MLflow's own store.

    Args:
        store_uri: begins with `journal+`.
        artifact_uri: passed on to MLflow's own store.

    Raises:
        MlflowException: a server asks, a setting is wrong, or the store cannot be opened.
    """
    from mlflow.tracking._tracking_service.utils import _tracking_store_registry

    _require_client(store_uri, "--backend-store-uri")
    uri = _behind(store_uri)
    inner = _opened(_tracking_store_registry, uri, artifact_uri=artifact_uri)
    if not _enabled():
        return inner
    from orbiter_mlflow.plugin.store import journaled

    return journaled(inner, uri)


def model_registry_store(store_uri: str, tracking_uri: str | None = None) -> "RegistryStore":
    """Build the model registry behind a URI with our prefix.

    Args:
        store_uri: begins with `journal+`.
        tracking_uri: of the runs that models come from, with our prefix or without.

    Raises:
        MlflowException: a server asks, or the store cannot be opened.
    """
    from mlflow.tracking._model_registry.utils import _get_store_registry

    from orbiter_mlflow.delivery.store_uri import plain

    _require_client(store_uri, "--registry-store-uri")
    runs = None if tracking_uri is None else plain(tracking_uri)
    inner = _opened(_get_store_registry(), _behind(store_uri), tracking_uri=runs)
    if not _enabled():
        return inner
    from orbiter_mlflow.plugin.model_registry import resolving

    return resolving(inner)


def workspace_store(workspace_uri: str) -> Any:
    """Build the store of workspaces behind a URI with our prefix."""
    from mlflow.tracking._workspace.registry import _get_workspace_store_registry

    uri = _behind(workspace_uri)
    return _get_workspace_store_registry().get_store_builder(uri)(workspace_uri=uri)


def scorer_store(tracking_uri: str) -> Any:
    """Build the store of GenAI scorers behind a URI with our prefix."""
    from mlflow.genai.scorers.registry import _scorer_store_registry

    uri = _behind(tracking_uri)
    return _scorer_store_registry.get_store_builder(uri)(tracking_uri=uri)


def artifact_repository(
    artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
) -> "ArtifactRepository":
    """Build MLflow's repository for `mlflow-artifacts:` URIs, for tracking URIs with our prefix
    too: MLflow resolves them against the tracking URI, which must be of http or https."""
    from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository
    from mlflow.tracking import get_tracking_uri

    from orbiter_mlflow.delivery.store_uri import plain

    return MlflowArtifactsRepository(
        artifact_uri,
        tracking_uri=plain(tracking_uri or get_tracking_uri()),
        registry_uri=registry_uri,
    )


def _behind(uri: str) -> str:
    """The URI of the store itself, with an absolute path: MLflow keeps one connection for each
    text, and delivery has a working folder of its own.

    Raises:
        MlflowException: nobody else could connect to it.
    """
    from mlflow.exceptions import MlflowException

    from orbiter_mlflow.delivery.store_uri import absolute, plain

    try:
        return absolute(plain(uri))
    except ValueError as error:
        raise MlflowException.invalid_parameter_value(str(error)) from error


def _opened(registry: Any, uri: str, **optional: str | None) -> Any:
    """Call MLflow's own builder for a plain URI, with those arguments that it takes.

    Not the registry's `get_store`: the registry holds a lock just now, which is not reentrant.
    """
    from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH

    from orbiter_mlflow.delivery.mlflow_client.opening import opening
    from orbiter_mlflow.delivery.store_uri import sqlite_file

    builder = registry.get_store_builder(uri)
    taken = inspect.signature(builder).parameters
    given = {name: value for name, value in optional.items() if name in taken}
    if (file := sqlite_file(uri)) is not None:
        file.parent.mkdir(parents=True, exist_ok=True)  # as MLflow does
    with opening(uri, default_root=DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH):
        return builder(store_uri=uri, **given)


def _enabled() -> bool:
    """Whether the environment leaves tracking on.

    Raises:
        MlflowException: the setting is neither true nor false.
    """
    from mlflow.exceptions import MlflowException
    from pydantic import ValidationError

    from orbiter_mlflow.settings import MLflowSettings, from_environment

    text = from_environment(os.environ).get("enabled", True)
    try:
        return MLflowSettings(enabled=text).enabled
    except ValidationError:
        raise MlflowException.invalid_parameter_value(
            f"ORBITER_MLFLOW_ENABLED={text!r} is neither true nor false"
        ) from None


def _require_client(store_uri: str, option: str) -> None:
    """Refuse to be the store of a server, which would answer before anything is stored.

    Only the caller tells one from a client: no argument and no variable does in every case.

    Raises:
        MlflowException: the caller's caller is a registry of a server.
    """
    registry = sys._getframe(2).f_locals.get("self")
    if type(registry).__module__ != _SERVER:
        return
    from mlflow.exceptions import MlflowException

    from orbiter_mlflow.delivery.store_uri import plain
    from orbiter_mlflow.text.urls import without_userinfo

    raise MlflowException.invalid_parameter_value(
        f"{without_userinfo(store_uri)} is a URI for clients: start the server with "
        f"{option} {without_userinfo(plain(store_uri))}, and put `journal+` in front of the "
        "MLFLOW_TRACKING_URI of the programs that log to it"
    )
