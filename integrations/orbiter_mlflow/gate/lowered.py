"""How a new blessing changes the baseline: the means of each metric, and which of them are lowered.

Pure. A blessing that is worse than the present one by more than the policy tolerates needs a word
of acceptance for each such metric.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from orbiter_mlflow.errors import BlessError
from orbiter_mlflow.gate.limits import exceeds, tolerance
from orbiter_mlflow.gate.model import GateRun
from orbiter_mlflow.gate.policy import MetricPolicy
from orbiter_mlflow.gate.statistics import mean_of, to_losses

__all__ = ["Change", "compare_means", "describe_changes", "require_not_lower", "values_of"]

MAX_LINES = 20
"""Metrics whose means are listed; a policy's are all listed."""


@dataclass(frozen=True, slots=True)
class Change:
    """The change of one metric from the present baseline to the new one.

    Attributes:
        loss: by how much it is worse, by the policy's direction; None without a policy.
        allowed: the largest loss that the policy tolerates; None without such a limit.
        lowered: whether the loss is past that.
    """

    metric: str
    old: float
    new: float
    loss: float | None = None
    allowed: float | None = None
    lowered: bool = False

    @property
    def described(self) -> str:
        """`eval/accuracy: mean 0.9 before, 0.6 now (-0.3)`."""
        return (
            f"{self.metric}: mean {self.old:.6g} before, {self.new:.6g} now "
            f"({self.new - self.old:+.3g})"
        )


def values_of(runs: Sequence[GateRun], metrics: Collection[str]) -> dict[str, list[float]]:
    """Metric -> its values in the runs; metrics without a value are left out."""
    found = {key: [run.metrics[key] for run in runs if key in run.metrics] for key in metrics}
    return {key: values for key, values in found.items() if values}


def compare_means(
    metrics: Mapping[str, MetricPolicy | None],
    old: Mapping[str, Sequence[float]],
    new: Mapping[str, Sequence[float]],
) -> list[Change]:
    """The changes of the metrics that both baselines have, in the order of `metrics`.

    Args:
        metrics: key -> its entry in the policy; None without a policy.
        old: key -> the values of the present baseline.
        new: key -> the values of the new one.
    """
    return [
        _change(key, expected, old[key], new[key])
        for key, expected in metrics.items()
        if key in old and key in new
    ]


def _change(
    key: str, expected: MetricPolicy | None, old: Sequence[float], new: Sequence[float]
) -> Change:
    change = Change(key, mean_of(old), mean_of(new))
    if expected is None:
        return change
    before, after = (
        to_losses(values, expected.direction, expected.target) for values in (old, new)
    )
    loss, allowed = after.mean - before.mean, tolerance(expected, before)
    lowered = allowed is not None and exceeds(loss, allowed, max(before.rounding, after.rounding))
    return Change(key, change.old, change.new, loss, allowed, lowered)


def require_not_lower(changes: Sequence[Change], accepted: Collection[str]) -> list[str]:
    """The metrics that are lowered, all of which a person accepts.

    Raises:
        BlessError: one of them is not accepted; the message names each, a line each.
    """
    lowered = [change for change in changes if change.lowered]
    refused = [change for change in lowered if change.metric not in accepted]
    if refused:
        raise BlessError(
            "\n".join(
                f"{change.described}, worse by {change.loss:.6g}, and the policy tolerates "
                f"{change.allowed:.6g}: bless better runs, or add --accept-lower {change.metric}"
                for change in refused
            )
        )
    return [change.metric for change in lowered]


def describe_changes(changes: Sequence[Change]) -> list[str]:
    """A line for each metric; without a policy, for some, and the number of the others."""
    shown = [change for n, change in enumerate(changes) if change.loss is not None or n < MAX_LINES]
    lines = [
        f"{change.described}, accepted although it is past tolerance"
        if change.lowered
        else change.described
        for change in shown
    ]
    more = len(changes) - len(shown)
    return [*lines, f"and {more} more metrics"] if more else lines
