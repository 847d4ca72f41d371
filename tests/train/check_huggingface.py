"""`make test-integrations`: real loops of transformers that report to a tracked trainer.

`make test` does not collect this file, because of its name.
"""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from mlflow import MlflowClient

from lifecycle_recorder import Recorder
from orbiter.train import TrainMetrics
from orbiter.train.blocking import run_blocking
from orbiter.train.huggingface import evaluation_metrics, training_metrics
from orbiter_mlflow.transformers import ReportCallback, StopCallback
from tiny_models import tiny_agent
from trainers import Backend, history, run_of, stored, tracked, trained
from waiting import eventually

ROWS = [{"input_ids": row, "labels": row} for row in torch.randint(3, 40, (24, 8)).tolist()]


def loop(*callbacks: Any, **arguments: Any) -> Any:
    """A loop of transformers on rows of chance, 3 steps an epoch."""
    given = {
        "output_dir": "out",
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "logging_steps": 1,
        "save_strategy": "no",
        "num_train_epochs": 2,
    }
    model, tokenizer = tiny_agent()
    return transformers.Trainer(
        model,
        transformers.TrainingArguments(**{**given, **arguments}),
        train_dataset=ROWS,
        eval_dataset={"near": ROWS[:8], "far": ROWS[8:]},
        processing_class=tokenizer,
        callbacks=list(callbacks),
    )


async def test_logs_of_training_and_evaluation_are_curves_at_their_steps(sqlite_uri: str) -> None:
    async def body(trainer: Backend) -> TrainMetrics:
        hugging = loop(ReportCallback(trainer), eval_strategy="steps", eval_steps=3)
        done = await run_blocking(hugging.train, stop=lambda: None)
        return TrainMetrics(loss=done.training_loss, steps=done.global_step)

    trainer = await trained(tracked(sqlite_uri, body=body))
    metrics = stored(sqlite_uri, trainer).data.metrics
    assert [step for step, _ in history(sqlite_uri, trainer, "train/loss")] == [1, 2, 3, 4, 5, 6]
    assert [step for step, _ in history(sqlite_uri, trainer, "eval/near_loss")] == [3, 6]
    assert [step for step, _ in history(sqlite_uri, trainer, "train/runtime")] == [6]
    losses = [value for _, value in history(sqlite_uri, trainer, "train/loss")]
    assert metrics["train/mean_loss"] == pytest.approx(sum(losses) / 6, rel=1e-3)
    assert metrics["train/final/loss"] == metrics["train/mean_loss"]
    assert {"train/grad_norm", "train/learning_rate", "train/epoch"} <= metrics.keys()
    assert {"eval/near_runtime", "eval/far_loss"} <= metrics.keys()
    assert not [key for key in metrics if "train_" in key or "eval_" in key]


def test_only_the_first_rank_of_the_world_reports() -> None:
    trainer = Recorder()
    callback = ReportCallback(trainer)
    for first in (False, True):
        state = SimpleNamespace(is_world_process_zero=first, global_step=4)
        callback.on_log(None, state, None, logs={"loss": 2.0, "rewards/none": None})
    assert trainer.events_of("report") == [("report", {"loss": 2.0}, 4)]


def test_only_the_first_rank_reports_a_checkpoint_that_is_there(tmp_path: Path) -> None:
    trainer = Recorder()
    callback = ReportCallback(trainer)
    (tmp_path / "checkpoint-4").mkdir()
    arguments = SimpleNamespace(output_dir=str(tmp_path))
    for first, step in ((False, 4), (True, 4), (True, 6)):
        state = SimpleNamespace(is_world_process_zero=first, global_step=step)
        callback.on_save(arguments, state, None)
    assert trainer.events_of("checkpoint") == [("checkpoint", str(tmp_path / "checkpoint-4"), 4)]


def test_names_are_not_doubled() -> None:
    log = {"eval_loss": 1.0, "eval_rewards/accuracies": 0.5, "test_loss": 2.0, "epoch": 1.0}
    assert evaluation_metrics(log) == {"loss": 1.0, "rewards/accuracies": 0.5, "test_loss": 2.0}
    assert training_metrics({"loss": 1.0, "train_tokens_per_second": 9.0}) == {
        "loss": 1.0,
        "tokens_per_second": 9.0,
    }
    summary = {"train_runtime": 3.0, "train_loss": 0.5, "total_flos": 7.0}
    assert training_metrics(summary) == {"runtime": 3.0, "mean_loss": 0.5, "total_flos": 7.0}


# -- stopping --------------------------------------------------------------------------------------


class At(transformers.TrainerCallback):  # type: ignore[misc]
    """Calls `act` at an event of the loop."""

    def __init__(self, event: str, act: Callable[[], object], step: int = 0) -> None:
        self._act, self._step = act, step
        setattr(self, event, self._called)

    def _called(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step >= self._step:
            self._act()


async def cancelled_at(sqlite_uri: str, event: str, step: int = 0, **arguments: Any) -> Any:
    """The loop of a tracked training that is cancelled at an event."""
    loops: list[Any] = []

    async def body(trainer: Backend) -> TrainMetrics:
        events, task, stop = asyncio.get_running_loop(), asyncio.current_task(), StopCallback()
        assert task is not None

        def cancel() -> None:
            events.call_soon_threadsafe(task.cancel)
            eventually(lambda: stop.requested)

        loops.append(
            loop(ReportCallback(trainer), At(event, cancel, step), stop, max_steps=50, **arguments)
        )
        await run_blocking(loops[0].train, stop=stop.request)
        return TrainMetrics()

    trainer = tracked(sqlite_uri, body=body)
    with pytest.raises(asyncio.CancelledError):
        await trained(trainer)
    eventually(lambda: trainer.delivered)
    assert run_of(sqlite_uri, trainer.run_id).info.status == "KILLED"
    return loops[0]


def test_a_cancelled_loop_ends_after_its_step_with_a_checkpoint(sqlite_uri: str) -> None:
    ended = asyncio.run(cancelled_at(sqlite_uri, "on_step_begin", step=4, eval_strategy="epoch"))
    assert ended.state.global_step == 5
    assert Path("out/checkpoint-5/trainer_state.json").exists()
    client = MlflowClient(sqlite_uri)
    (run,) = client.search_runs(["0"])
    losses = client.get_metric_history(run.info.run_id, "train/loss")
    assert [point.step for point in losses] == [1, 2, 3, 4, 5]


async def test_a_cancelled_loop_ends_in_the_midst_of_its_evaluation(sqlite_uri: str) -> None:
    batches: list[None] = []
    counted = At("on_prediction_step", lambda: batches.append(None))
    stop = StopCallback()
    hugging = loop(counted, At("on_prediction_step", stop.request), stop)
    with pytest.raises(asyncio.CancelledError):
        await run_blocking(hugging.evaluate, stop=stop.request)
    assert len(batches) == 1
    often: dict[str, Any] = {"eval_strategy": "steps", "eval_steps": 2}
    ended = await cancelled_at(sqlite_uri, "on_prediction_step", **often)
    assert ended.state.global_step == 2


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")
