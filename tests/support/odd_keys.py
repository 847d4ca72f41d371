"""A training whose keys need colons in MLflow, and what its run must hold on any server."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from mlflow import MlflowClient

from orbiter.train import TrainConfig, TrainMetrics
from orbiter_mlflow import load_config, names
from orbiter_mlflow.cli.main import commands
from orbiter_mlflow.config.codec.equality import same
from orbiter_mlflow.runs.model import StoredRun
from orbiter_mlflow.runs.store import RunStore
from trainers import Backend, Tracked, stored, tracked, trained

POLICY = """
[gate]
schema = 1
candidate_runs = 1
[baseline]
run = "{baseline}"
[metrics."train/pass:40:1"]
direction = "higher"
max_drop = 0.01
"""


@dataclass
class OddConfig(TrainConfig):
    """Its params need `:` for the config's own state and for the pieces of a long value."""

    prompt: str = "Answer in one word. " * 1000


def odd_config(learning_rate: float = 3e-4) -> OddConfig:
    config = OddConfig(learning_rate=learning_rate)
    config.note = "beside the fields"  # type: ignore[attr-defined]
    # So many that the checksums of the params fill several tags.
    config.extra = {f"layer-{number}": number / 7 for number in range(900)}
    config.extra["odd.key/"] = [None]
    return config


async def train(uri: str, config: TrainConfig, accuracy: float = 0.5, **settings: Any) -> Tracked:
    """A tracked training of three steps, all of it in the store."""

    async def body(trainer: Backend) -> TrainMetrics:
        for step in range(3):
            trainer.report({"loss": 1.0, "pass@1": accuracy, "a:b": 2.0, "a\u02d0": 3.0}, step=step)
        return TrainMetrics(steps=3)

    tags = {"team:a": "x", "long": "y" * 7000}
    trainer = await trained(tracked(uri, config, body, tags=tags, **settings))
    stored(uri, trainer)
    return trainer


def assert_whole(uri: str, run_id: str, config: TrainConfig, steps: list[int]) -> StoredRun:
    """Check that config and metrics come back under their own keys, and that nothing is missing."""
    assert same(load_config(run_id, type(config), tracking_uri=uri), config)
    store = RunStore(uri)
    run = store.get(run_id)
    assert names.QUARANTINED not in run.tags
    assert run.tags["team:a"] == "x"
    assert {"train/loss", "train/pass:40:1", "train/a:b", "train/a\u02d0"} <= run.metrics.keys()
    for key in ("train/pass:40:1", "train/a:b", "train/a\u02d0", "train/loss"):
        assert [point.step for point in store.history(run_id, key)] == steps
    return run


def stored_keys(uri: str, run_id: str) -> set[str]:
    """The keys of a run as the store has them."""
    data = MlflowClient(uri).get_run(run_id).data
    return {*data.params, *data.metrics, *data.tags}


def call(uri: str, *arguments: str) -> tuple[int, str]:
    """Exit code and output of a command of `orbiter-mlflow`."""
    environment = {"MLFLOW_TRACKING_URI": uri, "COLUMNS": "400"}
    result = CliRunner(env=environment).invoke(commands, arguments)
    assert isinstance(result.exception, SystemExit | None), result.exc_info
    return result.exit_code, result.output


def check_by_gate(uri: str, candidate: str, baseline: str, folder: Path) -> tuple[int, str]:
    """Exit code and report of a gate on a metric whose key needs colons."""
    policy = folder / "gate.toml"
    policy.write_text(POLICY.format(baseline=baseline))
    return call(uri, "check", str(policy), candidate)
