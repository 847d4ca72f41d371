"""How much worse than a baseline a metric may be, by the limits of its policy."""

from orbiter_mlflow.gate.policy import MetricPolicy
from orbiter_mlflow.gate.statistics import Losses

__all__ = ["SLACK", "exceeds", "tolerance"]

SLACK = 1e-9
"""Fraction of a limit that rounding may exceed it by: 0.80 - 0.79 is not more than 0.01."""


def tolerance(expected: MetricPolicy, baseline: Losses) -> float | None:
    """The largest loss against `baseline` that both `max_drop` and `max_drop_rel` allow.

    Returns:
        None if the policy has neither. A relative limit has no meaning for a baseline of 0: alone,
        it allows no loss.
    """
    limits = [] if expected.max_drop is None else [expected.max_drop]
    if expected.max_drop_rel is not None and (abs(baseline.mean) > baseline.rounding or not limits):
        limits.append(expected.max_drop_rel * abs(baseline.mean))
    return min(limits, default=None)


def exceeds(loss: float, allowed: float, rounding: float) -> bool:
    """Whether a loss exceeds what is allowed by more than rounding.

    Args:
        rounding: a difference of the metric's values up to this is rounding.
    """
    return loss > allowed * (1 + SLACK) + rounding
