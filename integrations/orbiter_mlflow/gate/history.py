"""A metric over the blessings, and its change points: blessings that differ from the one before.

Pure.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from orbiter_mlflow.gate.lineage import PastBlessing, Summary
from orbiter_mlflow.gate.statistics import corrected

__all__ = ["LEVEL", "Point", "history_of"]

LEVEL = 0.05
"""Probability that any blessing of a history without a change is marked as one."""
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Point:
    """A metric in one blessing.

    Attributes:
        change: mean minus the mean of the blessing before it; None for the first.
        p_value: two-sided, for "it differs from the one before", after Holm's correction; None if
            there is no spread to test with.
        is_change: whether it differs beyond chance.
    """

    blessing: PastBlessing
    summary: Summary
    change: float | None = None
    p_value: float | None = None
    is_change: bool = False


def history_of(metric: str, blessings: Sequence[PastBlessing]) -> list[Point]:
    """The blessings that have the metric, with its change points.

    Each is compared with the one before by a t-test with the spread of all: the standard deviation
    within blessings, pooled over those of two runs or more. Without any, nothing is marked; where
    that spread is zero, every difference is.

    Args:
        blessings: the oldest first.
    """
    found = [(one, one.metrics[metric]) for one in blessings if metric in one.metrics]
    summaries = [summary for _, summary in found]
    changes = [new.mean - old.mean for old, new in pairwise(summaries)]
    p_values = _p_values(summaries, changes)
    points = [Point(blessing, summary) for blessing, summary in found[:1]]
    for (blessing, summary), change, p_value in zip(found[1:], changes, p_values, strict=True):
        differs = p_value is not None and p_value <= LEVEL
        points.append(Point(blessing, summary, change, p_value, differs))
    return points


def _p_values(summaries: Sequence[Summary], changes: Sequence[float]) -> list[float | None]:
    from scipy import special

    spreads = [(one.n - 1, one.sd) for one in summaries if one.sd is not None]
    freedom = sum(count for count, _ in spreads)
    if not changes or not freedom:
        return [None] * len(changes)
    largest = max([*(abs(one.mean) for one in summaries), *(sd for _, sd in spreads)]) or 1.0
    variance = math.fsum(count * (sd / largest) ** 2 for count, sd in spreads) / freedom
    deviation = math.sqrt(variance)
    if deviation <= _ROUNDING:
        return [1.0 if abs(change) <= _ROUNDING * largest else 0.0 for change in changes]
    pairs = pairwise(summaries)
    errors = [deviation * math.sqrt(1 / old.n + 1 / new.n) for old, new in pairs]
    sizes = [abs(change) / largest / error for change, error in zip(changes, errors, strict=True)]
    raw = [2 * float(special.stdtr(freedom, -size)) for size in sizes]
    return [one.p_value for one in corrected(raw, LEVEL, "holm")]
