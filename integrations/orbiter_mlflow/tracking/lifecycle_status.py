"""The state of a trainer and the status of its run: which status each ending gives."""

from collections.abc import Callable

from orbiter.train import TrainerState
from orbiter_mlflow import names
from orbiter_mlflow.delivery.records import RunStatus, Status
from orbiter_mlflow.text.clock import now, utc


class LifecycleStatus:
    """Where a run stands.

    Args:
        before_end: called once the run is to end and before the time of its end is taken, so that
            nothing of the run is later.

    Attributes:
        state: the trainer's present state.
        status: the run's present status; it has an end time once the run has ended.
        evaluated: whether an evaluation has given a result.
    """

    def __init__(self, before_end: Callable[[], None]) -> None:
        self._before_end = before_end
        self.state = TrainerState.CREATED
        self.status = Status("RUNNING")
        self.evaluated = False
        self._after_failed_evaluation: RunStatus | None = None

    @property
    def has_ended(self) -> bool:
        """Whether the run has its final status."""
        return self.status.end_time is not None

    @property
    def status_without_training(self) -> RunStatus:
        """The status of a run that ends without a training."""
        return self._after_failed_evaluation or ("FINISHED" if self.evaluated else "KILLED")

    def moved(self, state: TrainerState) -> dict[str, str]:
        """Note that the trainer is in `state`; returns the tags that say so."""
        self.state = state
        return {names.STATE: state.value, names.state_at(state.value): utc(now())}

    def end(self, status: RunStatus) -> Status:
        """Note that the run ends now; returns the record of it."""
        self._before_end()
        self.status = Status(status, now())
        return self.status

    def failed(self, phase: str, error: BaseException, *, on_purpose: bool) -> Status | None:
        """Note that `train` or `evaluate` raised.

        Returns:
            The record of the run's end; None after `evaluate`, which ends no run.
        """
        status: RunStatus = "KILLED" if on_purpose else "FAILED"
        if phase != names.TRAIN:
            self._after_failed_evaluation = status
            return None
        return self.end(status if isinstance(error, Exception) else "KILLED")
