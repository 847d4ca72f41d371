"""A child of a sweep, and readers for the runs of one."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run

from orbiter.train import TrainConfig, TrainMetrics
from orbiter_mlflow import MLflowSettings, Sweep, names
from trainers import Backend, Tracked
from waiting import eventually


def trainer_of(settings: MLflowSettings, rate: float, *, fails: bool = False) -> Tracked:
    """A trainer whose loss is its learning rate."""

    async def body(trainer: Backend) -> TrainMetrics:
        trainer.report({"loss": 2 * rate}, step=0)
        if fails:
            raise RuntimeError("diverged")
        trainer.report({"loss": rate}, step=1)
        return TrainMetrics()

    return Tracked(TrainConfig(learning_rate=rate), body, mlflow=settings)


async def child(sweep: Sweep, rate: float, *, fails: bool = False) -> Tracked:
    """Train one child of a sweep."""
    trainer = trainer_of(sweep.settings(), rate, fails=fails)
    trainer.mark_validated()
    await trainer.train()
    return trainer


def parent_of(uri: str, sweep: Sweep) -> Run:
    """The parent's run, once all of it is delivered."""
    client = MlflowClient(uri)

    def ended() -> Run | None:
        places = [one.experiment_id for one in client.search_experiments()]
        found = client.search_runs(places, f"tags.`{names.UID}` = '{sweep.id}'")
        assert len(found) <= 1
        whole = [run for run in found if run.info.end_time and table_or_none(uri, run)]
        return whole[0] if whole else None

    return eventually(ended)


def children(uri: str, parent: Run) -> list[Run]:
    """The runs that are nested under a parent."""
    nested = f"tags.`{names.PARENT_RUN_ID}` = '{parent.info.run_id}'"
    return [*MlflowClient(uri).search_runs([parent.info.experiment_id], nested)]


def table(uri: str, parent: Run) -> dict[str, Any]:
    """The table of the children."""
    found = table_or_none(uri, parent)
    assert found is not None
    return found


def table_or_none(uri: str, parent: Run) -> dict[str, Any] | None:
    client = MlflowClient(uri)
    path = "sweep/children.json"
    if path not in [file.path for file in client.list_artifacts(parent.info.run_id, "sweep")]:
        return None
    with TemporaryDirectory() as folder:
        content = Path(client.download_artifacts(parent.info.run_id, path, folder)).read_bytes()
    found: dict[str, Any] = json.loads(content)
    return found
