"""The step that the events of a run belong to: the trainer's own count."""

from typing import Any

from orbiter.train.hooks import quiet_logger
from orbiter_mlflow.text.values import bounded_int

_logger = quiet_logger(__name__)


class Steps:
    """How far a training is.

    Attributes:
        present: where an evaluation that starts now stands.
        latest: the largest step that was told.
    """

    def __init__(self) -> None:
        self.present = self.latest = 0

    def reported(self, step: Any) -> int:
        """The step of a report, which others of earlier steps may follow."""
        at = self.bounded(step)
        self.present = max(self.present, at)
        self.latest = max(self.latest, at)
        return at

    def told(self, step: Any) -> None:
        """The step that what comes next belongs to, as the user says, be it an earlier one."""
        self.present = self.bounded(step)
        self.latest = max(self.latest, self.present)

    def ended(self, steps: Any) -> int:
        """The step of a result after `steps`: the last of the training."""
        self.present = self.latest = max(self.latest, self.bounded(steps))
        return self.latest

    def bounded(self, step: Any) -> int:
        """`step` as MLflow takes it; the present one for what is none, with a warning."""
        try:
            return bounded_int(step)
        except (TypeError, ValueError) as error:
            _logger.warning("%s: recorded at step %d instead", str(error), self.present)
            return self.present
