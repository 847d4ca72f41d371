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
    """The parent's run, once it has ended in the store."""
    return eventually(lambda: ended_run(uri, sweep.id))


def ended_run(uri: str, uid: str | None) -> Run | None:
    """The run of a journal, if it has ended in the store."""
    client = MlflowClient(uri)
    places = [one.experiment_id for one in client.search_experiments()]
    found = client.search_runs(places, f"tags.`{names.UID}` = '{uid}'")
    assert len(found) <= 1
    return found[0] if found and found[0].info.end_time else None


def children(uri: str, parent: Run) -> dict[str, Run]:
    """The runs that are nested under a parent, by their learning rates."""
    nested = f"tags.`{names.PARENT_RUN_ID}` = '{parent.info.run_id}'"
    found = MlflowClient(uri).search_runs([parent.info.experiment_id], nested)
    return {run.data.params.get("learning_rate", ""): run for run in found}


def counts(parent: Run) -> dict[str, int]:
    """How many children have which status."""
    found: dict[str, int] = json.loads(parent.data.tags[names.SWEEP_CHILDREN])
    return found


def table(uri: str, parent: Run) -> dict[str, Any]:
    """The table of the children, once it is uploaded."""
    client = MlflowClient(uri)
    path = "sweep/children.json"
    eventually(
        lambda: path in [file.path for file in client.list_artifacts(parent.info.run_id, "sweep")]
    )
    with TemporaryDirectory() as folder:
        content = Path(client.download_artifacts(parent.info.run_id, path, folder)).read_bytes()
    found: dict[str, Any] = json.loads(content)
    return found
