"""The hook interface: how an integration follows a trainer without touching its lifecycle.

An integration is a mixin that overrides hooks and stands before the backend:

    class Printed(TrainerHooks):
        def _on_report(self, metrics, step):
            super()._on_report(metrics, step)
            print(step, metrics)

    class MyPrintedTrainer(Printed, MyTrainer): ...

The hooks of one trainer, in the order of its life:

| event                          | hooks                                                           |
|--------------------------------|-----------------------------------------------------------------|
| `check_*` returns              | `_on_check_passed(check, arguments)`                            |
| `mark_validated()`             | `_on_transition(CREATED, VALIDATED)`                            |
| `train` begins                 | `_on_transition(VALIDATED, TRAINING)`                           |
| `report(...)`                  | `_on_report(metrics, step)`                                     |
| `report(..., phase="eval")`    | `_on_evaluation_report(metrics, step, data)`                    |
| `at_step(...)`                 | `_on_step(step)`                                                |
| `report_rollouts(...)`         | `_on_rollouts(rollouts, step, phase)`                           |
| `report_checkpoint(...)`       | `_on_checkpoint(path, step)`                                    |
| `train` returns                | `_on_transition(TRAINING, COMPLETED)`, `_on_train_result`       |
| `train` raises                 | `_on_transition(TRAINING, FAILED)`, `_on_error("train", error)` |
| `evaluate` begins, at any time | `_on_evaluate_started(test_data)`                               |
| `evaluate` returns             | `_on_evaluate_result(metrics, test_data)`                       |
| `evaluate` raises              | `_on_error("evaluate", error)`                                  |

- Every override calls `super()` with the same arguments, so that integrations can be combined.
- A method that calls its `super()` is one event, not two. A refused call is none.
- Hooks run where the event happens, and the trainer waits for them.
- An `Exception` from a hook is logged and dropped. Only `_on_train_result` and
  `_on_evaluate_result` may raise: the caller of `train` or `evaluate` gets that exception
  unchanged, and the state stays as it is.

The underscores keep hooks clear of a backend's own names. All names of this module are public.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from orbiter.train._control_flow import stops_on_purpose
from orbiter.train._log_throttle import quiet_logger
from orbiter.train._runtime import Runtime, runtime_of
from orbiter.train.metrics import TrainMetrics, left_at_default
from orbiter.train.rollouts import Rollout
from orbiter.train.states import Phase, TrainerState

__all__ = [
    "Phase",
    "Rollout",
    "Runtime",
    "TrainerHooks",
    "left_at_default",
    "quiet_logger",
    "runtime_of",
    "stops_on_purpose",
]


class TrainerHooks:
    """One no-op for each event of a trainer; the module says when each is called."""

    def _on_check_passed(self, check: str, arguments: Mapping[str, Any]) -> None:
        """Called when a check has returned.

        Args:
            check: the name of the method, such as `check_dataset`.
            arguments: those that the caller gave, by the contract's parameter names.
        """

    def _on_transition(self, before: TrainerState, after: TrainerState) -> None:
        """Called when the state has changed."""

    def _on_report(self, metrics: Mapping[str, Any] | TrainMetrics, step: int) -> None:
        """Called by `report` for a training."""

    def _on_evaluation_report(
        self, metrics: Mapping[str, Any] | TrainMetrics, step: int, data: Any
    ) -> None:
        """Called by `report` for an evaluation; `data=None` means the data of `check_dataset`."""

    def _on_step(self, step: int) -> None:
        """Called by `at_step`."""

    def _on_rollouts(
        self, rollouts: Sequence[Rollout], step: int, phase: Literal["train", "eval"]
    ) -> None:
        """Called by `report_rollouts`, unless none of them can be used.

        Args:
            rollouts: at least one; the caller may change what they hold once this has returned.
            step: the optimizer steps so far.
            phase: the kind of data that the prompts are from, not a method of the trainer.
        """

    def _on_checkpoint(self, path: str, step: int) -> None:
        """Called by `report_checkpoint`.

        Args:
            path: of the folder or file; the caller may remove it once this has returned.
            step: the optimizer steps that it holds.
        """

    def _on_evaluate_started(self, test_data: Any) -> None:
        """Called when an `evaluate` has been admitted, before it runs."""

    async def _on_train_result(self, metrics: TrainMetrics) -> None:
        """Called when the outermost `train` has returned `metrics`; the state is final."""

    async def _on_evaluate_result(self, metrics: TrainMetrics, test_data: Any) -> None:
        """Called when the outermost `evaluate` has returned `metrics`."""

    async def _on_error(self, phase: Phase, error: BaseException) -> None:
        """Called when `train` (by then FAILED) or `evaluate` ends with an exception.

        Args:
            phase: the method that ends.
            error: as it was raised, before `TrainerError` wraps it. If it is not an `Exception`
                (a cancellation, Ctrl-C), the hook must not suspend.
        """
