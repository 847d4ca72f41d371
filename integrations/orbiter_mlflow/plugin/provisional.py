"""Runs and experiments as MLflow would answer, of which the store has told nothing yet."""

import os
from collections.abc import Sequence

from mlflow.entities import Experiment, LifecycleStage, Run, RunData, RunInfo, RunStatus, RunTag
from mlflow.environment_variables import MLFLOW_EXPERIMENT_NAME
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME


def run(
    run_id: str,
    experiment_id: str,
    user_id: str | None,
    start_time: int,
    tags: Sequence[RunTag],
    name: str,
) -> Run:
    """A run that begins."""
    info = RunInfo(
        run_id=run_id,
        experiment_id=str(experiment_id),
        user_id=user_id or "",
        status=RunStatus.to_string(RunStatus.RUNNING),
        start_time=start_time,
        end_time=None,
        lifecycle_stage=LifecycleStage.ACTIVE,
        artifact_uri=f"runs:/{run_id}",
        run_name=name,
    )
    named = [tag for tag in tags if tag.key != MLFLOW_RUN_NAME]
    return Run(info, RunData(tags=[*named, RunTag(MLFLOW_RUN_NAME, name)] if name else named))


def experiment(experiment_id: str) -> Experiment:
    """An experiment that is taken for granted, under the name that the environment gives it."""
    name = os.environ.get(MLFLOW_EXPERIMENT_NAME.name, str(experiment_id))
    return Experiment(str(experiment_id), name, "", LifecycleStage.ACTIVE)
