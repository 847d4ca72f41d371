"""A whole process with one tiny `train` and one `evaluate`, from its start to its exit."""

import statistics
from collections.abc import Callable
from typing import Any

from benchmarks.processes import fresh
from benchmarks.results import Check, Column, Result
from benchmarks.sizes import Sizes
from benchmarks.stores import Stores

NAME = "process"
STEPS = 10
COLUMNS = (
    Column("store", "store"),
    Column("by", "by"),
    Column("seconds", "seconds", ".2f"),
    Column("least", "least", ".2f"),
    Column("most", "most", ".2f"),
    Column("ratio", "ratio", ".2f"),
)
NOTE = (
    "From the start of the process to its exit, imports included: params, {steps} reports, the "
    "metrics of train and evaluate, tags and status. 'mlflow' does the same with MlflowClient. "
    "Medians of {pairs} interleaved pairs; the ratio is the median of the pairs' ratios. "
    "Both end when everything is in the store."
)


def ours(uri: str) -> None:
    """Use a tracked trainer."""
    import asyncio

    from benchmarks.stores import metrics_of
    from benchmarks.trainer import Benchmarked, benchmarked, delivered, train
    from orbiter.train import TrainConfig

    async def body(trainer: Benchmarked) -> None:
        for step in range(STEPS):
            trainer.report(metrics_of(step, 10), step=step)

    trainer = benchmarked(uri, TrainConfig())
    train(trainer, body)
    asyncio.run(trainer.evaluate())
    asyncio.run(delivered(trainer))


def theirs(uri: str) -> None:
    """Log the same points, params, tags and status with MLflow's client."""
    import dataclasses
    import time

    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag

    from benchmarks.stores import metrics_of
    from orbiter.train import TrainConfig, TrainMetrics

    def entities(prefix: str, values: dict[str, float], step: int) -> list[Metric]:
        now = int(time.time() * 1000)
        return [Metric(f"{prefix}/{name}", value, now, step) for name, value in values.items()]

    def result(metrics: TrainMetrics) -> dict[str, float]:
        return {"loss": metrics.loss, "accuracy": metrics.accuracy, "steps": metrics.steps}

    client = MlflowClient(uri)
    found = client.get_experiment_by_name("benchmark")
    experiment = found.experiment_id if found else client.create_experiment("benchmark")
    run_id = client.create_run(experiment).info.run_id
    params = [Param(key, str(value)) for key, value in dataclasses.asdict(TrainConfig()).items()]
    client.log_batch(run_id, params=params, tags=[RunTag("state", "training")])
    for step in range(STEPS):
        client.log_batch(run_id, metrics=entities("train", metrics_of(step, 10), step))
    final = entities("train", result(TrainMetrics(0.5, 0.5, 1)), STEPS)
    client.log_batch(run_id, metrics=final, tags=[RunTag("state", "completed")])
    client.set_terminated(run_id)
    client.log_batch(run_id, metrics=entities("eval", result(TrainMetrics(0.5, 0.5)), STEPS))


def run(stores: Stores, sizes: Sizes, say: Callable[[str], None]) -> Result:
    raw: list[dict[str, Any]] = []
    with stores.server() as server:
        for store in ("sqlite", "server"):
            for pair in range(sizes.processes):
                took = {}
                order = (ours, theirs) if pair % 2 else (theirs, ours)
                for function in order:
                    uri = server if store == "server" else stores.sqlite()
                    took[function.__name__] = fresh(function, stores.folder, uri).seconds
                raw.append({"store": store, **took, "ratio": took["ours"] / took["theirs"]})
                say(f"{store}, pair {pair + 1}: {took['ours']:.2f} s and {took['theirs']:.2f} s")
    rows, checks = [], []
    for store in ("sqlite", "server"):
        group = [row for row in raw if row["store"] == store]
        ratio = statistics.median(row["ratio"] for row in group)
        for key, by in (("ours", "orbiter"), ("theirs", "mlflow")):
            times = [row[key] for row in group]
            rows.append(
                {
                    "store": store,
                    "by": by,
                    "seconds": statistics.median(times),
                    "least": min(times),
                    "most": max(times),
                    "ratio": ratio if key == "ours" else 1.0,
                }
            )
        checks.append(Check(f"{store}: train and evaluate, relative to mlflow", ratio, "<=", 1.3))
    note = NOTE.format(steps=STEPS, pairs=sizes.processes)
    title = "One tiny train and evaluate, from process start to exit"
    return Result(NAME, title, note, COLUMNS, list(rows), checks, list(raw))
