"""Callbacks that connect a `Trainer` of transformers, or of TRL, with one of ours."""

import asyncio
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from orbiter.train.trainer import Trainer

__all__ = ["ReportCallback", "StopCallback", "report_checkpoint"]

_EVAL = "eval_"
_TEST = "test_"
_TRAIN = "train_"
_LOSS_OF_SUMMARY = "train_loss"


class ReportCallback(TrainerCallback):  # type: ignore[misc]  # untyped here
    """Reports what a Hugging Face loop logs to a trainer of ours, by global step.

        transformers_trainer.add_callback(ReportCallback(self))

    Logs of training become `train/loss`, `train/grad_norm` and so on; those of an evaluation,
    `eval_loss`, become `eval/loss`. A `test_` prefix stays: `eval/test_loss`. The summary at the
    end becomes `train/runtime` in seconds, `train/samples_per_second` and so on, its mean loss
    `train/mean_loss`. A saved checkpoint is reported, too. Only the world's rank 0 reports.

    Set `report_to="none"`, or the loop's own `MLflowCallback` logs the same a second time.

    Args:
        trainer: the trainer whose `train` runs the loop.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    def on_log(
        self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **_: Any
    ) -> None:
        """Report one log."""
        if not logs or not state.is_world_process_zero:
            return
        measured = {key: value for key, value in logs.items() if value is not None}
        if any(key.startswith((_EVAL, _TEST)) for key in measured):
            self._trainer.report(evaluation_metrics(measured), step=state.global_step, phase="eval")
        else:
            self._trainer.report(training_metrics(measured), step=state.global_step)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Report the checkpoint that has been saved."""
        if state.is_world_process_zero:
            report_checkpoint(self._trainer, args.output_dir, state.global_step)


def report_checkpoint(trainer: Trainer, output_dir: str, step: int) -> None:
    """Report the checkpoint that a Hugging Face loop has saved at a step, if it is there."""
    folder = Path(output_dir, f"{PREFIX_CHECKPOINT_DIR}-{step}")
    if folder.is_dir():  # a search of hyperparameters has folders of its own
        trainer.report_checkpoint(folder, step=step)


def evaluation_metrics(logs: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics of an evaluation, without what only repeats the progress of the training."""
    return {
        key.removeprefix(_EVAL): value
        for key, value in logs.items()
        if key.startswith((_EVAL, _TEST))
    }


def training_metrics(logs: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics of a training log, or of the summary of a training."""
    named = {
        key.removeprefix(_TRAIN): value for key, value in logs.items() if key != _LOSS_OF_SUMMARY
    }
    if _LOSS_OF_SUMMARY in logs:  # over all steps: no point of the curve
        named["mean_loss"] = logs[_LOSS_OF_SUMMARY]
    return named


class StopCallback(TrainerCallback):  # type: ignore[misc]  # untyped here
    """Ends a Hugging Face loop after its present step, with a checkpoint.

        stop = StopCallback()
        transformers_trainer.add_callback(stop)
        await run_blocking(transformers_trainer.train, stop=stop.request)

    An evaluation ends after its present batch. In a distributed training add it on every rank: the
    ranks agree after each step, so that a request on one of them ends all at the same step.

    Args:
        save: save a checkpoint when a training is ended.
    """

    def __init__(self, *, save: bool = True) -> None:
        self._save = save
        self._requested = threading.Event()

    @property
    def requested(self) -> bool:
        """Whether the loop was asked to end."""
        return self._requested.is_set()

    def request(self) -> None:
        """Ask the loop to end; returns at once."""
        self._requested.set()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """End the training after this step."""
        if self._agreed(args):
            control.should_training_stop = True
            control.should_log = True
            control.should_save = control.should_save or self._save
            control.should_evaluate = False  # it may take longer than many steps

    def on_prediction_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """End the evaluation after this batch.

        Raises:
            asyncio.CancelledError: transformers has no flag that ends an evaluation.
        """
        if self._agreed(args):
            raise asyncio.CancelledError("the evaluation was ended")

    def _agreed(self, args: Any) -> bool:
        """Whether any rank was asked to end."""
        if args.world_size > 1 and torch.distributed.is_initialized():
            asked = torch.tensor(int(self.requested), device=args.device)
            torch.distributed.all_reduce(asked, op=torch.distributed.ReduceOp.MAX)
            if asked.item():
                self._requested.set()
        return self.requested
