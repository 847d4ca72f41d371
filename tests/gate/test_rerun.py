"""A run is trained again from what it logged, and gives the same metrics bit for bit."""

from dataclasses import replace
from typing import Any

from mlflow import MlflowClient

from orbiter.train.policy_gradient.trainer import PolicyGradientConfig, SoftmaxPolicy
from orbiter_mlflow import MLflowSettings, load_config
from orbiter_mlflow.cli.demo_runs import ACTIONS, DemoTrainer, load_digits
from orbiter_mlflow.config.codec.equality import same
from orbiter_mlflow.runs.diff import diff_runs
from orbiter_mlflow.runs.store import RunStore
from trainers import stored


async def demo_run(uri: str, config: PolicyGradientConfig) -> str:
    """Train like the demo, on fewer images; returns the run's id."""
    (features, labels), test_data = load_digits()
    trainer = DemoTrainer(config, mlflow=MLflowSettings(tracking_uri=uri, experiment="rerun"))
    trainer.check_agent(SoftmaxPolicy(features.shape[1], ACTIONS))
    trainer.check_dataset((features[:400], labels[:400]), test_data)
    trainer.check_reward()
    trainer.check_config()
    await trainer.evaluate()
    trainer.mark_validated()
    await trainer.train()
    await trainer.evaluate()
    run_id: str = stored(uri, trainer).info.run_id
    return run_id


def histories(uri: str, run_id: str) -> dict[str, list[Any]]:
    """All points of all metrics of a run, without their times."""
    client = MlflowClient(uri)
    return {
        key: sorted((point.step, point.value) for point in client.get_metric_history(run_id, key))
        for key in client.get_run(run_id).data.metrics
    }


async def test_a_run_can_be_trained_again(sqlite_uri: str) -> None:
    config = PolicyGradientConfig(
        epochs=3, learning_rate=0.1 + 0.2, seed=7, weight_decay=1e-3, extra={"note": "first"}
    )
    first = await demo_run(sqlite_uri, config)
    loaded = load_config(first, PolicyGradientConfig, tracking_uri=sqlite_uri)
    assert same(loaded, config)
    second = await demo_run(sqlite_uri, loaded)
    found = histories(sqlite_uri, first)
    assert {"train/loss", "train/grad_norm", "eval/accuracy"} <= found.keys()
    assert len(found["train/loss"]) > 3
    assert histories(sqlite_uri, second) == found
    other = await demo_run(sqlite_uri, replace(config, seed=8))
    assert histories(sqlite_uri, other) != found

    store = RunStore(sqlite_uri)
    again = diff_runs([store.get(first), store.get(second)])
    assert (again.config, again.metrics, again.datasets, again.status) == ((), (), (), ())
    changed = diff_runs([store.get(first), store.get(other)])
    assert [(row.name, row.values) for row in changed.config] == [("seed", ("7", "8"))]
    assert changed.metrics
