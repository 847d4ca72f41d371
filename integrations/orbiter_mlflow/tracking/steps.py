"""The step that the events of a run belong to: the trainer's own count."""

from typing import Any

from orbiter.train.hooks import quiet_logger
from orbiter_mlflow.text.values import bounded_int

_logger = quiet_logger(__name__)


class Steps:
    """The steps of a training.

    Attributes:
        present: the step of an evaluation that starts now.
        latest: the largest step so far.
    """

    def __init__(self) -> None:
        self.present = self.latest = 0

    def reported(self, step: Any) -> int:
        """Take in the step of a report; reports of earlier steps may follow."""
        at = self.bounded(step)
        self.present = max(self.present, at)
        self.latest = max(self.latest, at)
        return at

    def move_to(self, step: Any) -> None:
        """Set the step of what comes next, even to an earlier one."""
        self.present = self.bounded(step)
        self.latest = max(self.latest, self.present)

    def ended(self, steps: Any) -> int:
        """The step of a result after `steps` steps: the last of the training."""
        self.present = self.latest = max(self.latest, self.bounded(steps))
        return self.latest

    def bounded(self, step: Any) -> int:
        """`step` as MLflow takes it; the present step, with a warning, if it is none."""
        try:
            return bounded_int(step)
        except (TypeError, ValueError) as error:
            _logger.warning("%s: recorded at step %d instead", str(error), self.present)
            return self.present
