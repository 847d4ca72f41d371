"""How a change is told from chance: which test the number of runs permits, and what it says.

Pure; the tests are scipy's. All is in losses: whatever the direction, a larger value is worse, and
a p-value is one-sided, for "the candidate is worse".
"""

import math
import warnings
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from orbiter_mlflow.gate.model import Direction, Test

__all__ = [
    "Comparison",
    "Losses",
    "compare",
    "holm",
    "losses",
    "mean_of",
    "paired",
    "power",
    "prediction",
    "seeds_needed",
    "welch",
]

Array: TypeAlias = Any
"""Of numpy's, or a float: runs along the last axis, any number of axes before it."""
Wanted = Literal["auto", "none", "welch", "paired"]

MIN_RUNS = 3
"""On each side, for Welch's test or the paired one to be chosen: the spread of two runs comes out
at a third or less of the true one in one case of four."""
MIN_SPREAD_RUNS = 5
"""On one side, for its spread to stand for that of the other, which has fewer than `MIN_RUNS`."""
MAX_SEEDS = 1000
"""On each side; where more are needed, none are advised."""
POWER = 0.8
"""Chance with which the advised number of seeds sees the loss."""

_ROUNDING = 1e-12
"""A spread below this part of the values is rounding, not chance."""
_SMALLEST = 1e-70
"""A spread below this part of the largest value of either side has a variance whose square is 0."""


@dataclass(frozen=True, slots=True)
class Losses:
    """The values of one side, the larger the worse.

    Attributes:
        rounding: a difference up to this is rounding.
        pairs: what pairs each value with one of the other side; None where nothing does.
    """

    values: tuple[float, ...]
    rounding: float = 0.0
    pairs: tuple[str, ...] | None = None

    @property
    def mean(self) -> float:
        """The same in whatever order the runs come."""
        return mean_of(self.values)

    @property
    def n(self) -> int:
        """How many there are."""
        return len(self.values)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What can be said of a change.

    Attributes:
        test: how it was looked at.
        loss: mean of the candidate's losses less that of the baseline's.
        margin: half the width of the two-sided confidence interval of `loss` at 1 - alpha; None
            where there is no test.
        p_value: one-sided; None where there is no test.
        spread: standard deviations of candidate and baseline, as the test takes them.
        too_few: the test that was asked for needs this many runs on each side; 0 where it has them.
        matched: whether the runs of the two sides come in pairs.
    """

    test: Test
    loss: float
    margin: float | None = None
    p_value: float | None = None
    spread: tuple[float, float] | None = None
    too_few: int = 0
    matched: bool = False


def losses(
    values: Sequence[float],
    direction: Direction,
    target: float | None = None,
    pairs: Sequence[str] | None = None,
) -> Losses:
    """Values of a metric as losses: for a target, the distances to it."""
    largest = max([*map(abs, values), abs(target or 0.0)], default=0.0)
    if direction == "target":
        found = [abs(value - (target or 0.0)) for value in values]
    else:
        found = [-value if direction == "higher" else value for value in values]
    return Losses(tuple(found), _ROUNDING * largest, None if pairs is None else tuple(pairs))


def compare(
    candidate: Losses, baseline: Losses, *, alpha: float, wanted: Wanted = "auto"
) -> Comparison:
    """Compare the two sides, each of at least one finite value.

    | runs | test |
    |---|---|
    | the same pairs on both sides, 3 or more | paired t-test |
    | 3 or more on each side | Welch's t-test |
    | 1 or 2 on one side, 5 or more on the other | prediction interval |
    | fewer | tolerance only |

    Where the test has no spread to go by, the values are compared as they are: exact.

    Args:
        alpha: 1 - alpha is the confidence of the interval.
        wanted: "welch" and "paired" take that test or none; they need two runs on each side.
    """
    exponent = _exponent((*candidate.values, *baseline.values))
    first, second = _normal(candidate, exponent), _normal(baseline, exponent)
    loss = _scaled(first.mean - second.mean, exponent)
    matched = _matched(first, second)
    test, too_few = _choose(first, second, wanted, matched)
    if test in (Test.TOLERANCE, Test.EXACT):
        return Comparison(test, loss, too_few=too_few, matched=matched)
    if test is Test.PAIRED:
        by_pair = _by_pair(first), _by_pair(second)
        p_value, margin = paired(*by_pair, alpha=alpha)
        spread = _deviation([a - b for a, b in zip(*by_pair, strict=True)]), 0.0
    elif test is Test.WELCH:
        p_value, margin = welch(sorted(first.values), sorted(second.values), alpha=alpha)
        spread = _deviation(first.values), _deviation(second.values)
    else:
        p_value, margin = prediction(sorted(first.values), sorted(second.values), alpha=alpha)
        of_one = _deviation(max(first.values, second.values, key=len))
        spread = of_one, of_one
    return Comparison(
        test,
        loss,
        _scaled(float(margin), exponent),
        float(p_value),
        (_scaled(spread[0], exponent), _scaled(spread[1], exponent)),
        matched=matched,
    )


def _choose(candidate: Losses, baseline: Losses, wanted: Wanted, matched: bool) -> tuple[Test, int]:
    """The test, and how many runs on each side the one that was asked for lacks."""
    few, many = sorted((candidate.n, baseline.n))
    constant = _constant(candidate.values, candidate.rounding)
    both = constant and _constant(baseline.values, baseline.rounding)
    if wanted == "none" or (wanted == "paired" and not matched):
        return Test.TOLERANCE, 0
    if wanted in ("welch", "paired") and few < 2:
        return Test.TOLERANCE, 2
    if matched and wanted != "welch" and (few >= MIN_RUNS or wanted == "paired"):
        gaps = [a - b for a, b in zip(_by_pair(candidate), _by_pair(baseline), strict=True)]
        rounding = candidate.rounding + baseline.rounding
        return (Test.EXACT if _constant(gaps, rounding) else Test.PAIRED), 0
    if few >= 2 and both:
        return Test.EXACT, 0
    if few >= MIN_RUNS or wanted == "welch":
        return Test.WELCH, 0
    if many >= MIN_SPREAD_RUNS:
        side = max(candidate, baseline, key=lambda one: one.n)
        return (Test.EXACT if _constant(side.values, side.rounding) else Test.PREDICTION), 0
    return Test.TOLERANCE, 0


# -- the tests: of one comparison, or of many at once ----------------------------------------------


def welch(candidate: Array, baseline: Array, *, alpha: float) -> tuple[Array, Array]:
    """p-value and margin of Welch's t-test (unequal variances, Welch 1947)."""
    from scipy import stats

    with warnings.catch_warnings():
        # Of a side that is constant: its variance is 0, and that is no loss of precision.
        warnings.filterwarnings("ignore", "Precision loss", RuntimeWarning)
        found = stats.ttest_ind(
            candidate, baseline, axis=-1, equal_var=False, alternative="greater"
        )
    return found.pvalue, _half(candidate, baseline, found, alpha)


def paired(candidate: Array, baseline: Array, *, alpha: float) -> tuple[Array, Array]:
    """p-value and margin of the paired t-test; the runs are in the order of their pairs."""
    from scipy import stats

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Precision loss", RuntimeWarning)
        found = stats.ttest_rel(candidate, baseline, axis=-1, alternative="greater")
    return found.pvalue, _half(candidate, baseline, found, alpha)


def prediction(candidate: Array, baseline: Array, *, alpha: float) -> tuple[Array, Array]:
    """p-value and margin of a mean of m runs against the spread of n.

    The half width is t * s * sqrt(1/m + 1/n) with s, and n - 1 degrees of freedom, from the side
    that has more runs (Hahn and Meeker, Statistical Intervals, 1991, chapter 4). It takes the
    other side to be spread alike.
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


def _half(candidate: Array, baseline: Array, found: Any, alpha: float) -> Array:
    """Half the two-sided interval: its lower end is that of the one-sided one at alpha / 2."""
    import numpy as np

    low = found.confidence_interval(1 - alpha / 2).low
    return np.mean(candidate, axis=-1) - np.mean(baseline, axis=-1) - low


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number (Holm 1979): the chance of any false alarm is alpha."""
    ranked = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, least = [1.0] * len(p_values), 0.0
    for rank, i in enumerate(ranked):
        least = max(least, min(1.0, (len(ranked) - rank) * p_values[i]))
        adjusted[i] = least
    return adjusted


def power(loss: float, error: float, freedom: float, level: float) -> float:
    """Chance that a one-sided t-test at `level` sees a true `loss`.

    Args:
        error: standard error of the loss.
        freedom: degrees of freedom.
    """
    from scipy import stats

    return float(stats.nct.sf(stats.t.isf(level, freedom), freedom, loss / error))


def seeds_needed(comparison: Comparison, level: float) -> int | None:
    """Runs on each side with which a loss like this one is seen with a chance of 0.8.

    It takes the loss and the spread that were seen for the true ones. Where it says 3 or 4 the
    chance is up to 6 points less: Welch's test then knows little of its degrees of freedom.

    Args:
        level: what the p-value has to come down to.

    Returns:
        None where there is no loss or no spread, and where `MAX_SEEDS` are not enough.
    """
    largest = max(comparison.spread or (0.0,))
    if comparison.spread is None or comparison.loss <= 0 or not largest:
        return None
    # As parts of the larger spread: whatever the unit, no power of them is too large or too small.
    first, second = (deviation / largest for deviation in comparison.spread)
    spread = max(largest / comparison.loss, _SMALLEST)

    def seen(n: int) -> float:
        total = first**2 + second**2
        freedom = (n - 1) * total**2 / (first**4 + second**4)  # Welch-Satterthwaite
        return power(1.0, spread * math.sqrt(total / n), freedom, level)

    tried = range(MIN_RUNS, MAX_SEEDS + 1)
    index = bisect_left(tried, POWER, key=seen)
    return tried[index] if index < len(tried) else None


# -- values ----------------------------------------------------------------------------------------


def mean_of(values: Sequence[float]) -> float:
    """The mean of one finite value or more: no order changes it, no sum is too large for it."""
    exponent = _exponent(values)
    return _scaled(math.fsum(_scaled(v, -exponent) for v in values) / len(values), exponent)


def _exponent(values: Sequence[float]) -> int:
    """Of the power of two that brings all of them to 1 or less; their squares are finite then."""
    return max((math.frexp(value)[1] for value in values if value), default=0)


def _scaled(value: float, exponent: int) -> float:
    """`value` times a power of two: exact, or infinite where it is too large for a float."""
    try:
        return math.ldexp(value, exponent)
    except OverflowError:
        return math.copysign(math.inf, value)


def _normal(side: Losses, exponent: int) -> Losses:
    values = tuple(_scaled(value, -exponent) for value in side.values)
    return Losses(values, max(_SMALLEST, _scaled(side.rounding, -exponent)), side.pairs)


def _constant(values: Sequence[float], rounding: float) -> bool:
    return max(values) - min(values) <= rounding


def _matched(candidate: Losses, baseline: Losses) -> bool:
    """Whether both have the same pairs, each once."""
    if candidate.pairs is None or baseline.pairs is None:
        return False
    alike = set(candidate.pairs) == set(baseline.pairs)
    return alike and len(set(candidate.pairs)) == candidate.n == baseline.n


def _by_pair(side: Losses) -> list[float]:
    return [value for _, value in sorted(zip(side.pairs or (), side.values, strict=True))]


def _deviation(values: Sequence[float]) -> float:
    import numpy as np

    return float(np.std(sorted(values), ddof=1))
