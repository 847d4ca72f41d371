"""Ways to log the same points, behind one interface: to MLflow, and with W&B to a local file.

A contender creates its run and logs one metric, so that later calls are not first calls. It lets
`work` log to the run, and returns the run's id once all points are stored and the run is FINISHED.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

Log = Callable[[Mapping[str, float], int], object]
Work = Callable[[Log], None]
Contender = Callable[[str, Work], str]

PREFIX = "train/"
"""The prefix of the metric keys in the store."""
BATCH = 1_000
"""MLflow's limit on the metrics of one batch."""
EXPERIMENT = "benchmark"
WARM_UP = {"warm-up": 0.0}

OURS, OURS_THREAD, CEILING = "orbiter", "orbiter, thread", "bare log_batch of 1,000"
BUFFERED = "mlflow async, buffered 1 s"
LIGHTNING, WANDB = "lightning MLFlowLogger", "wandb offline"


def _orbiter(uri: str, work: Work, delivery: str = "process") -> str:
    import asyncio

    from benchmarks.trainer import Benchmarked, benchmarked, delivered, train, warm_up

    trainer = benchmarked(uri, delivery=delivery)

    async def body(trainer: Benchmarked) -> None:
        await warm_up(trainer)
        work(lambda metrics, step: trainer.report(metrics, step=step))

    train(trainer, body)
    asyncio.run(delivered(trainer))
    return str(trainer.run_id)


def _prefixed(metrics: Mapping[str, float]) -> dict[str, float]:
    return {PREFIX + name: value for name, value in metrics.items()}


def _new_run(uri: str) -> tuple[Any, str]:
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    found = client.get_experiment_by_name(EXPERIMENT)
    experiment = found.experiment_id if found else client.create_experiment(EXPERIMENT)
    run_id = client.create_run(experiment).info.run_id
    client.log_batch(run_id, metrics=_entities(WARM_UP, 0), synchronous=True)
    return client, run_id


def _entities(metrics: Mapping[str, float], step: int) -> list[Any]:
    import time

    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    return [Metric(PREFIX + name, value, now, step) for name, value in metrics.items()]


def _client_per_step(uri: str, work: Work) -> str:
    client, run_id = _new_run(uri)

    def log(metrics: Mapping[str, float], step: int) -> None:
        client.log_batch(run_id, metrics=_entities(metrics, step), synchronous=True)

    work(log)
    client.set_terminated(run_id)
    return run_id


def _ceiling(uri: str, work: Work) -> str:
    client, run_id = _new_run(uri)
    batch: list[Any] = []

    def send() -> None:
        client.log_batch(run_id, metrics=batch, synchronous=True)
        batch.clear()

    def log(metrics: Mapping[str, float], step: int) -> None:
        batch.extend(_entities(metrics, step))
        if len(batch) > BATCH - len(metrics):
            send()

    work(log)
    if batch:
        send()
    client.set_terminated(run_id)
    return run_id


def _fluent(uri: str, work: Work, synchronous: bool = True) -> str:
    import mlflow

    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment(EXPERIMENT)
    with mlflow.start_run() as run:
        mlflow.log_metrics(WARM_UP, step=0, synchronous=True)
        mlflow.flush_async_logging()
        work(
            lambda metrics, step: mlflow.log_metrics(
                _prefixed(metrics), step=step, synchronous=synchronous
            )
        )
        if not synchronous:
            mlflow.flush_async_logging()
    return str(run.info.run_id)


def _lightning(uri: str, work: Work, synchronous: bool = True) -> str:
    import mlflow
    from lightning.pytorch.loggers import MLFlowLogger

    logger = MLFlowLogger(EXPERIMENT, tracking_uri=uri, synchronous=synchronous)
    run_id = str(logger.run_id)
    logger.log_metrics(WARM_UP, 0)
    mlflow.flush_async_logging()
    work(lambda metrics, step: logger.log_metrics(_prefixed(metrics), step))
    if not synchronous:
        mlflow.flush_async_logging()
    logger.finalize("success")
    return run_id


def _accelerate(uri: str, work: Work) -> str:
    import mlflow
    from accelerate.tracking import MLflowTracker

    mlflow.set_tracking_uri(uri)
    tracker = MLflowTracker(EXPERIMENT)
    tracker.start()
    tracker.log(WARM_UP, 0)
    mlflow.flush_async_logging()
    work(lambda metrics, step: tracker.log(_prefixed(metrics), step))
    run_id = str(tracker.tracker.info.run_id)
    tracker.finish()
    return run_id


def _transformers(uri: str, work: Work) -> str:
    import mlflow
    from transformers import TrainerControl, TrainerState, TrainingArguments
    from transformers.integrations import MLflowCallback

    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment(EXPERIMENT)
    callback, state, control = MLflowCallback(), TrainerState(), TrainerControl()
    args = TrainingArguments(report_to=[])
    callback.on_train_begin(args, state, control, model=None)
    run_id = str(mlflow.active_run().info.run_id)
    callback.on_log(args, state, control, logs=WARM_UP)
    mlflow.flush_async_logging()

    def log(metrics: Mapping[str, float], step: int) -> None:
        state.global_step = step
        callback.on_log(args, state, control, logs=_prefixed(metrics))

    work(log)
    callback.on_train_end(args, state, control)
    return run_id


def _wandb(_uri: str, work: Work) -> str:
    import wandb

    run = wandb.init(project=EXPERIMENT, mode="offline", dir=str(Path.cwd()))
    path = str(run.settings.sync_file)
    run.log(WARM_UP, step=0)
    work(lambda metrics, step: run.log(_prefixed(metrics), step=step))
    run.finish()
    return path


def _nothing(_uri: str, work: Work) -> str:
    work(lambda _metrics, _step: None)
    return ""


CONTENDERS: Mapping[str, Contender] = {
    OURS: _orbiter,
    OURS_THREAD: partial(_orbiter, delivery="thread"),
    CEILING: _ceiling,
    "MlflowClient.log_batch": _client_per_step,
    "mlflow.log_metrics": _fluent,
    "mlflow.log_metrics async": partial(_fluent, synchronous=False),
    BUFFERED: partial(_fluent, synchronous=False),
    LIGHTNING: _lightning,
    "lightning MLFlowLogger async": partial(_lightning, synchronous=False),
    "accelerate MLflowTracker": _accelerate,
    "transformers MLflowCallback": _transformers,
    WANDB: _wandb,
}

NOTHING = "nothing"
_REQUIRED = {
    "lightning": "lightning",
    "accelerate": "accelerate",
    "transformers": "transformers",
    "wandb": "wandb",
}
_VARIABLES = {
    BUFFERED: {"MLFLOW_ASYNC_LOGGING_BUFFERING_SECONDS": "1"},
    WANDB: {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"},
}


def variables(name: str) -> dict[str, str]:
    """The environment variables for a contender."""
    return _VARIABLES.get(name, {})


def installed() -> list[str]:
    """The contenders whose packages are installed."""
    from importlib.util import find_spec

    return [
        name
        for name in CONTENDERS
        if (package := _REQUIRED.get(name.partition(" ")[0])) is None or find_spec(package)
    ]


def run(name: str, uri: str, work: Work) -> str:
    """Let a contender, or `NOTHING`, log the metrics of `work`."""
    return _nothing(uri, work) if name == NOTHING else CONTENDERS[name](uri, work)


def found_points(name: str, uri: str, run_id: str, steps: range, count: int) -> int:
    """Points of a contender's run that are stored once, with the value that was logged."""
    from benchmarks import stores, wandb_log

    if name == WANDB:
        return wandb_log.found_points(run_id, PREFIX, steps, count)
    return stores.found_points(uri, run_id, PREFIX, steps, count)
