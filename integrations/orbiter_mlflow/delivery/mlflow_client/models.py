"""Checkpoints as logged models of MLflow, found again by a tag, so that logging them twice changes
nothing."""

from collections.abc import Iterator
from typing import Any

from mlflow import MlflowClient, entities

from orbiter_mlflow import names
from orbiter_mlflow.delivery.checkpoints.model import CheckpointModel
from orbiter_mlflow.errors import UnsupportedError

_TYPE = "checkpoint"


def log(client: MlflowClient, run_id: str, model: CheckpointModel) -> None:
    """Log a model with its metrics, as an output of its run.

    Raises:
        UnsupportedError: the store has no logged models.
        Exception: what MLflow raises.
    """
    run = client.get_run(run_id)
    experiment_id = run.info.experiment_id
    found = next(_of_checkpoint(client, experiment_id, run_id, model.manifest), None)
    if found is None:
        found = client.create_logged_model(
            experiment_id,
            name=model.name,
            source_run_id=run_id,
            tags={names.CHECKPOINT: model.manifest},
            model_type=_TYPE,
        )
    outputs: Any = run.outputs
    known = () if outputs is None else (one.model_id for one in outputs.model_outputs)
    if found.model_id not in known:
        client.log_outputs(run_id, [entities.LoggedModelOutput(found.model_id, model.step)])
    metrics = [entities.Metric(*point[:4], model_id=found.model_id) for point in model.points]
    for first in range(0, len(metrics), names.MAX_METRICS):
        client.log_batch(run_id, metrics[first : first + names.MAX_METRICS], synchronous=True)
    client.finalize_logged_model(found.model_id, entities.LoggedModelStatus.READY)


def delete(client: MlflowClient, run_id: str, manifest: str) -> None:
    """Delete the models of a checkpoint; a store that has none has nothing to delete.

    Raises:
        Exception: what MLflow raises.
    """
    experiment_id = client.get_run(run_id).info.experiment_id
    try:
        for model in list(_of_checkpoint(client, experiment_id, run_id, manifest)):
            client.delete_logged_model(model.model_id)
    except UnsupportedError:
        return


def _of_checkpoint(
    client: MlflowClient, experiment_id: str, run_id: str, manifest: str
) -> Iterator[entities.LoggedModel]:
    token: str | None = None
    while True:
        try:
            page = client.search_logged_models(
                [experiment_id],
                filter_string=f"source_run_id = '{run_id}'",
                page_token=token,
            )
        except NotImplementedError as error:
            raise UnsupportedError(f"no logged models: {error}") from error
        yield from (one for one in page if one.tags.get(names.CHECKPOINT) == manifest)
        token = page.token
        if not token:
            return
