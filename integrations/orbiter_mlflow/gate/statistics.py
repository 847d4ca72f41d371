"""Significance tests: choose one by sample size; give p-value and confidence interval.

Pure; scipy does the tests. Values are converted to losses first: whatever the direction, larger is
worse, and every p-value is one-sided, for "the candidate is worse".

A new test is a member of `Test`, a branch in `_choose` and in `compare`, and a name in
`RequestedTest` if a policy may ask for it.
"""

import math
import warnings
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, TypeAlias

__all__ = [
    "MAX_VALUE",
    "Comparison",
    "Direction",
    "Losses",
    "RequestedTest",
    "Test",
    "compare",
    "holm",
    "mean_of",
    "paired",
    "power",
    "prediction",
    "seeds_needed",
    "to_losses",
    "welch",
]

Array: TypeAlias = Any
"""A numpy array or a float: runs along the last axis, any number of axes before it."""
Direction = Literal["higher", "lower", "target"]
RequestedTest = Literal["auto", "none", "welch", "paired"]
"""A policy's choice of the test."""

MAX_VALUE = 1e150
"""Largest absolute value of a metric that is compared: the squares of larger ones overflow."""
MIN_RUNS = 3
"""Runs on each side for Welch's or the paired test to be chosen. With two runs, the estimated
spread is a third of the true one or less in one case of four."""
MIN_SPREAD_RUNS = 5
"""Runs on one side for its spread to stand for that of a side with fewer than `MIN_RUNS`."""
MAX_SEEDS = 1000
"""Seeds on each side that are advised at most; if more are needed, there is no advice."""
POWER = 0.8
"""Probability with which the advised number of seeds detects the loss."""

_ROUNDING = 1e-12
"""A spread below this fraction of the values is rounding, not chance."""
_MIN_SPREAD = 1e-70
"""A spread below this fraction of the largest value is constant: its fourth power, which Welch's
degrees of freedom need, underflows."""


class Test(StrEnum):
    """How the candidate was compared with the baseline."""

    __test__ = False  # pytest would take it for a class of tests

    TOLERANCE = "tolerance only"
    """Too few runs for statistics: the difference of the means was compared with the limit."""
    PREDICTION = "prediction interval"
    WELCH = "Welch's t-test"
    PAIRED = "paired t-test"
    EXACT = "exact"
    """There is no spread: the values were compared exactly, without a p-value."""
    BOUNDS = "bounds only"

    @property
    def with_article(self) -> str:
        """The name within a sentence: `the paired t-test`, `Welch's t-test`."""
        return self.value if self is Test.WELCH else f"the {self.value}"


@dataclass(frozen=True, slots=True)
class Losses:
    """The losses of one side: the larger, the worse.

    Attributes:
        values: one for each run.
        rounding: a difference up to this is rounding.
        pairs: the key that pairs each value with one of the other side; None without pairs.
    """

    values: tuple[float, ...]
    rounding: float = 0.0
    pairs: tuple[str, ...] | None = None

    @property
    def mean(self) -> float:
        """The mean loss; the order of the runs does not change it."""
        return mean_of(self.values)

    @property
    def n(self) -> int:
        """The number of runs."""
        return len(self.values)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result of comparing two sides.

    Attributes:
        test: the test that was used.
        loss: mean loss of the candidate minus mean loss of the baseline.
        margin: half the width of the two-sided confidence interval of `loss` at 1 - alpha; None
            without a test.
        p_value: one-sided; None without a test.
        spread: standard deviations of candidate and baseline, as used by the test.
        runs_required: runs on each side that the requested test needs and does not have; else 0.
        matched: whether the runs of the two sides come in pairs.
    """

    test: Test
    loss: float
    margin: float | None = None
    p_value: float | None = None
    spread: tuple[float, float] | None = None
    runs_required: int = 0
    matched: bool = False


def to_losses(
    values: Sequence[float],
    direction: Direction,
    target: float | None = None,
    pairs: Sequence[str] | None = None,
) -> Losses:
    """Convert the values of a metric to losses; with a target, the loss is the distance to it."""
    largest = max([*map(abs, values), abs(target or 0.0)], default=0.0)
    if direction == "target":
        found = [abs(value - (target or 0.0)) for value in values]
    else:
        found = [-value if direction == "higher" else value for value in values]
    return Losses(tuple(found), _ROUNDING * largest, None if pairs is None else tuple(pairs))


def compare(
    candidate: Losses, baseline: Losses, *, alpha: float, requested: RequestedTest = "auto"
) -> Comparison:
    """Compare two sides, each with at least one value and none beyond `MAX_VALUE`.

    | runs | test |
    |---|---|
    | the same pairs on both sides, 3 or more | paired t-test |
    | 3 or more on each side | Welch's t-test |
    | 1 or 2 on one side, 5 or more on the other | prediction interval |
    | fewer | tolerance only |

    If all values of a side are equal, a test has no spread to use, and the values are compared
    exactly.

    Args:
        alpha: 1 - alpha is the confidence of the interval.
        requested: "welch" and "paired" take that test or none; they need two runs on each side.
    """
    loss = candidate.mean - baseline.mean
    # In units of the largest value: no square or fourth power of a small spread underflows.
    unit = max(map(abs, (*candidate.values, *baseline.values))) or 1.0
    first, second = _divided(candidate, unit), _divided(baseline, unit)
    matched = _matched(first, second)
    test, runs_required = _choose(first, second, requested, matched)
    if test in (Test.TOLERANCE, Test.EXACT):
        return Comparison(test, loss, runs_required=runs_required, matched=matched)
    if test is Test.PAIRED:
        by_pair = _by_pair(first), _by_pair(second)
        p_value, margin = paired(*by_pair, alpha=alpha)
        spread = _deviation([a - b for a, b in zip(*by_pair, strict=True)]), 0.0
    elif test is Test.WELCH:
        p_value, margin = welch(sorted(first.values), sorted(second.values), alpha=alpha)
        spread = _deviation(first.values), _deviation(second.values)
    else:
        p_value, margin = prediction(sorted(first.values), sorted(second.values), alpha=alpha)
        larger = _deviation(max(first.values, second.values, key=len))
        spread = larger, larger
    return Comparison(
        test,
        loss,
        float(margin) * unit,
        float(p_value),
        (spread[0] * unit, spread[1] * unit),
        matched=matched,
    )


def _choose(
    candidate: Losses, baseline: Losses, requested: RequestedTest, matched: bool
) -> tuple[Test, int]:
    """Choose the test; the number is `Comparison.runs_required`."""
    few, many = sorted((candidate.n, baseline.n))
    constant = _constant(candidate.values, candidate.rounding)
    both = constant and _constant(baseline.values, baseline.rounding)
    if requested == "none" or (requested == "paired" and not matched):
        return Test.TOLERANCE, 0
    if requested in ("welch", "paired") and few < 2:
        return Test.TOLERANCE, 2
    if matched and requested != "welch" and (few >= MIN_RUNS or requested == "paired"):
        gaps = [a - b for a, b in zip(_by_pair(candidate), _by_pair(baseline), strict=True)]
        rounding = candidate.rounding + baseline.rounding
        return (Test.EXACT if _constant(gaps, rounding) else Test.PAIRED), 0
    if few >= 2 and both:
        return Test.EXACT, 0
    if few >= MIN_RUNS or requested == "welch":
        return Test.WELCH, 0
    if many >= MIN_SPREAD_RUNS:
        side = max(candidate, baseline, key=lambda losses: losses.n)
        return (Test.EXACT if _constant(side.values, side.rounding) else Test.PREDICTION), 0
    return Test.TOLERANCE, 0


# -- the tests, vectorized over comparisons --------------------------------------------------------


def welch(candidate: Array, baseline: Array, *, alpha: float) -> tuple[Array, Array]:
    """The p-value and margin of Welch's t-test (unequal variances, Welch 1947)."""
    from scipy import stats

    return _t_test(stats.ttest_ind, candidate, baseline, alpha, equal_var=False)


def paired(candidate: Array, baseline: Array, *, alpha: float) -> tuple[Array, Array]:
    """The p-value and margin of the paired t-test; both sides are in the order of their pairs."""
    from scipy import stats

    return _t_test(stats.ttest_rel, candidate, baseline, alpha)


def _t_test(
    test: Callable[..., Any], candidate: Array, baseline: Array, alpha: float, **options: bool
) -> tuple[Array, Array]:
    import numpy as np

    with warnings.catch_warnings():
        # scipy warns of a side without variance; that is no loss of precision.
        warnings.filterwarnings("ignore", "Precision loss", RuntimeWarning)
        found = test(candidate, baseline, axis=-1, alternative="greater", **options)
    # The lower end of the two-sided interval is that of a one-sided interval at alpha / 2.
    low = found.confidence_interval(1 - alpha / 2).low
    return found.pvalue, np.mean(candidate, axis=-1) - np.mean(baseline, axis=-1) - low


def prediction(candidate: Array, baseline: Array, *, alpha: float) -> tuple[Array, Array]:
    """The p-value and margin of a prediction interval: a mean of m runs against the spread of n.

    The half width is t * s * sqrt(1/m + 1/n) with s, and n - 1 degrees of freedom, from the side
    that has more runs (Hahn and Meeker, Statistical Intervals, 1991, chapter 4). It assumes that
    the other side has the same spread.
    """
    import numpy as np
    from scipy import stats

    few, many = np.asarray(candidate), np.asarray(baseline)
    loss = few.mean(axis=-1) - many.mean(axis=-1)
    if few.shape[-1] > many.shape[-1]:
        few, many = many, few
    m, n = few.shape[-1], many.shape[-1]
    error = many.std(axis=-1, ddof=1) * math.sqrt(1 / m + 1 / n)
    return stats.t.sf(loss / error, n - 1), stats.t.isf(alpha / 2, n - 1) * error


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number (Holm 1979): any false alarm has probability alpha."""
    ranked = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, least = [1.0] * len(p_values), 0.0
    for rank, i in enumerate(ranked):
        least = max(least, min(1.0, (len(ranked) - rank) * p_values[i]))
        adjusted[i] = least
    return adjusted


def power(loss: float, error: float, freedom: float, level: float) -> float:
    """The probability that a one-sided t-test at `level` detects a true `loss`.

    Args:
        error: standard error of the loss.
        freedom: degrees of freedom.
    """
    from scipy import stats

    return float(stats.nct.sf(stats.t.isf(level, freedom), freedom, loss / error))


def seeds_needed(comparison: Comparison, level: float) -> int | None:
    """The number of runs on each side that detects such a loss with probability 0.8.

    It takes the observed loss and spread as the true ones. For 3 or 4 runs the probability is up to
    6 points lower, as Welch's test then estimates its degrees of freedom badly.

    Args:
        level: the p-value that must be reached.

    Returns:
        None without a loss or a spread, or if `MAX_SEEDS` are not enough.
    """
    largest = max(comparison.spread or (0.0,))
    if comparison.spread is None or comparison.loss <= 0 or not largest:
        return None
    # In units of the larger spread: no power of it overflows or underflows.
    first, second = (deviation / largest for deviation in comparison.spread)
    spread = max(largest / comparison.loss, _MIN_SPREAD)

    def power_with(n: int) -> float:
        total = first**2 + second**2
        freedom = (n - 1) * total**2 / (first**4 + second**4)  # Welch-Satterthwaite
        return power(1.0, spread * math.sqrt(total / n), freedom, level)

    sizes = range(MIN_RUNS, MAX_SEEDS + 1)
    index = bisect_left(sizes, POWER, key=power_with)
    return sizes[index] if index < len(sizes) else None


# -- values ----------------------------------------------------------------------------------------


def mean_of(values: Sequence[float]) -> float:
    """The mean of one value or more; their order does not change it.

    Raises:
        OverflowError: the sum is too large, which takes values beyond `MAX_VALUE`.
    """
    return math.fsum(values) / len(values)


def _divided(losses: Losses, unit: float) -> Losses:
    values = tuple(value / unit for value in losses.values)
    return Losses(values, max(_MIN_SPREAD, losses.rounding / unit), losses.pairs)


def _constant(values: Sequence[float], rounding: float) -> bool:
    return max(values) - min(values) <= rounding


def _matched(candidate: Losses, baseline: Losses) -> bool:
    """Whether both sides have the same pairs, each once."""
    if candidate.pairs is None or baseline.pairs is None:
        return False
    same = set(candidate.pairs) == set(baseline.pairs)
    return same and len(set(candidate.pairs)) == candidate.n == baseline.n


def _by_pair(side: Losses) -> list[float]:
    return [value for _, value in sorted(zip(side.pairs or (), side.values, strict=True))]


def _deviation(values: Sequence[float]) -> float:
    import numpy as np

    return float(np.std(sorted(values), ddof=1))
