"""A tracking store that does nothing: what is left is the time of MLflow's own Python layers."""

from typing import Any

from mlflow.entities import Experiment, LifecycleStage, Run, RunData, RunInfo, RunTag
from mlflow.store.entities.paged_list import PagedList
from mlflow.store.tracking.abstract_store import AbstractStore
from mlflow.tracking._tracking_service.utils import _tracking_store_registry

NULL_URI = "null://"
_RUN_ID = "0" * 32


def register() -> None:
    """Let MLflow open `NULL_URI`."""
    _tracking_store_registry.register("null", NullStore)


class NullStore(AbstractStore):  # type: ignore[misc]  # MLflow is untyped
    """Has one experiment and one run, and forgets what is logged."""

    def __init__(self, store_uri: str, artifact_uri: str | None = None) -> None:
        super().__init__()

    def get_experiment(self, experiment_id: str) -> Experiment:
        return Experiment(experiment_id, "benchmark", "null://artifacts", LifecycleStage.ACTIVE)

    def get_experiment_by_name(self, experiment_name: str) -> Experiment:
        return self.get_experiment("0")

    def search_experiments(self, *_: Any, **__: Any) -> PagedList[Experiment]:
        return PagedList([self.get_experiment("0")], None)

    def create_run(self, *_: Any, **__: Any) -> Run:
        return self.get_run(_RUN_ID)

    def get_run(self, run_id: str) -> Run:
        info = self.update_run_info(run_id)
        return Run(info, RunData(tags=[RunTag("mlflow.runName", "null")]))

    def update_run_info(self, run_id: str, *_: Any, **__: Any) -> RunInfo:
        return RunInfo(
            run_id=run_id,
            experiment_id="0",
            user_id="",
            status="RUNNING",
            start_time=0,
            end_time=None,
            lifecycle_stage=LifecycleStage.ACTIVE,
            artifact_uri="null://artifacts",
            run_name="null",
        )

    def log_batch(self, *_: Any, **__: Any) -> None:
        pass

    log_metric = log_param = set_tag = log_batch
