"""Advice on the number of seeds: the power of a test, and the runs that would settle a result."""

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

from orbiter_mlflow.gate.statistics.losses import MIN_SPREAD

__all__ = ["MAX_SEEDS", "MIN_RUNS", "POWER", "Plan", "power", "seeds_needed", "smallest"]

MIN_RUNS = 3
"""Runs of the baseline from which its spread is used. With two runs, the estimated spread is a
third of the true one or less in one case of four."""
MAX_SEEDS = 1000
"""Seeds on each side that are advised at most; if more are needed, there is no advice."""
POWER = 0.8
"""Probability with which the advised number of seeds detects the loss."""
_LARGEST_RATIO = 1e9
"""Beyond this loss in standard errors scipy has no figure; the power is 1."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How precise a test becomes with n runs on each side.

    Attributes:
        deviation: the standard error with n runs, times the square root of n.
        sides: the degrees of freedom with n runs, divided by n - 1.
    """

    deviation: float
    sides: float = 1.0


def power(loss: float, error: float, freedom: float, level: float) -> float:
    """The probability that a one-sided t-test at `level` detects a true `loss`.

    Args:
        error: standard error of the loss.
        freedom: degrees of freedom.
    """
    import numpy as np
    from scipy import stats

    ratio, critical = min(loss / error, _LARGEST_RATIO), stats.t.isf(level, freedom)
    with np.errstate(all="ignore"):
        found = float(stats.nct.sf(critical, freedom, ratio))
    # Older versions of scipy give NaN far out in a tail.
    return float(ratio > critical) if math.isnan(found) else found


def seeds_needed(loss: float, plan: Plan | None, level: float) -> int | None:
    """The number of runs on each side that detects a true `loss` with probability 0.8.

    Args:
        level: the p-value that must be reached.

    Returns:
        None without a loss or a plan, or if `MAX_SEEDS` are not enough.
    """
    if plan is None or loss <= 0 or not plan.deviation:
        return None
    # In units of the loss: no power of it overflows or underflows.
    deviation = max(plan.deviation / loss, MIN_SPREAD)

    def power_with(n: int) -> float:
        return power(1.0, deviation / math.sqrt(n), plan.sides * (n - 1), level)

    return smallest(lambda n: power_with(n) >= POWER, MIN_RUNS)


def smallest(enough: Callable[[int], bool], first: int) -> int | None:
    """The smallest number from `first` to `MAX_SEEDS` that is enough; None if none is."""
    sizes = range(first, MAX_SEEDS + 1)
    index = bisect_left(sizes, True, key=enough)
    return sizes[index] if index < len(sizes) else None
