"""Significance tests: each gives a p-value, and the confidence bounds that agree with it.

Every p-value is one-sided. A test rejects at a level exactly if its bound at that level excludes
the value that was tested: report and decision cannot contradict each other. `Student` and the tests
that make one are vectorized: runs along the last axis, any number of axes before it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Any, Protocol, TypeAlias

__all__ = [
    "DRAWS",
    "MAX_ORDERS",
    "Array",
    "Both",
    "Either",
    "Evidence",
    "Permuted",
    "Student",
    "batched",
    "orders",
    "paired",
    "permutation",
    "prediction",
    "welch",
]

Array: TypeAlias = Any
"""A numpy array or a float."""

MAX_ORDERS = 200_000
"""Divisions of the runs into two sides that the permutation test goes through."""
DRAWS = 20_000
"""If there are more, it draws so many at random, the same ones each time."""
_BLOCK = 1_000
"""Divisions drawn at once, so that many runs need little memory."""

POOLING = 0.25
"""Batches whose means would differ as much with a larger probability are one sample; a level that
keeps the price of a wrong choice small (Bancroft, Biometrics 20, 1964)."""


class Evidence(Protocol):
    """The result of a test, about the true loss: how much worse the candidate really is."""

    @property
    def p_value(self) -> Array:
        """Probability of so large a loss, or a larger one, if the true loss is 0."""

    def at_least(self, level: float) -> Array:
        """The lower confidence bound of the true loss at 1 - level."""

    def scaled(self, unit: float) -> "Evidence":
        """The same evidence in another unit."""


@dataclass(frozen=True, slots=True)
class Student:
    """A loss with a standard error whose estimate has so many degrees of freedom."""

    loss: Array
    error: Array
    freedom: Array

    @property
    def p_value(self) -> Array:
        return self._tail(self.loss)

    def p_no_worse(self, limit: float) -> Array:
        """Probability of so small a loss, or a smaller one, if the true loss is `limit`."""
        return self._tail(limit - self.loss)

    def at_least(self, level: float) -> Array:
        return self.loss - self._half_width(level)

    def at_most(self, level: float) -> Array:
        """The upper confidence bound of the true loss at 1 - level."""
        return self.loss + self._half_width(level)

    def scaled(self, unit: float) -> "Student":
        return Student(self.loss * unit, self.error * unit, self.freedom)

    def _tail(self, distance: Array) -> Array:
        import numpy as np
        from scipy import special  # scipy.stats takes a second to load

        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return special.stdtr(self.freedom, -np.divide(distance, self.error))

    def _half_width(self, level: float) -> Array:
        from scipy import special

        return -special.stdtrit(self.freedom, level) * self.error


@dataclass(frozen=True, slots=True)
class Either:
    """Two looks at a loss, of which one is enough: the smaller p-value, doubled (Bonferroni)."""

    first: Student
    second: Student

    @property
    def p_value(self) -> Array:
        import numpy as np

        return np.minimum(1.0, 2 * np.minimum(self.first.p_value, self.second.p_value))

    def at_least(self, level: float) -> Array:
        import numpy as np

        return np.maximum(self.first.at_least(level / 2), self.second.at_least(level / 2))

    def scaled(self, unit: float) -> "Either":
        return Either(self.first.scaled(unit), self.second.scaled(unit))


@dataclass(frozen=True, slots=True)
class Both:
    """Several looks at a loss that must all show it to be below a limit."""

    looks: tuple[Student, ...]

    def p_no_worse(self, limit: float) -> float:
        """The largest p-value for a true loss of `limit` or more."""
        return max(float(look.p_no_worse(limit)) for look in self.looks)

    def at_most(self, level: float) -> float:
        """The largest upper confidence bound of the true loss at 1 - level."""
        return max(float(look.at_most(level)) for look in self.looks)

    def scaled(self, unit: float) -> "Both":
        return Both(tuple(look.scaled(unit) for look in self.looks))


@dataclass(frozen=True, slots=True)
class Permuted:
    """The true losses at which a permutation test changes its mind, in ascending order.

    Attributes:
        turns: one for each division of the runs but the observed one: the true loss from which on
            that division gives a difference as large as the observed one.
    """

    turns: tuple[float, ...]

    @property
    def p_value(self) -> float:
        return (1 + sum(turn <= 0 for turn in self.turns)) / (1 + len(self.turns))

    def at_least(self, level: float) -> float:
        # p exceeds the level from the loss on at which `allowed` divisions have turned. The share
        # of an ulp keeps 1/20 within 0.05.
        allowed = math.floor(level * (1 + len(self.turns)) * (1 + 1e-12))
        return self.turns[allowed - 1] if allowed else -math.inf

    def scaled(self, unit: float) -> "Permuted":
        return Permuted(tuple(turn * unit for turn in self.turns))


# -- the tests -------------------------------------------------------------------------------------


def prediction(candidate: Array, baseline: Array) -> Student:
    """Are these more runs of the baseline? The standard error is s * sqrt(1/m + 1/n).

    s, with n - 1 degrees of freedom, is the spread of the baseline alone, so that a bad run of the
    candidate cannot excuse the others (Hahn and Meeker, Statistical Intervals, 1991, chapter 4). It
    assumes that the candidate has the same spread.
    """
    import numpy as np

    first, second = np.asarray(candidate), np.asarray(baseline)
    m, n = first.shape[-1], second.shape[-1]
    error = second.std(axis=-1, ddof=1) * math.sqrt(1 / m + 1 / n)
    return Student(first.mean(axis=-1) - second.mean(axis=-1), error, n - 1)


def batched(candidate: Array, batches: Sequence[Array]) -> Student:
    """Is this one more batch? Batches differ by a random effect, and the candidate has its own.

    If the batches do not differ (F-test at `POOLING`), they are one sample. Else the variance of
    the loss comes from the mean squares between and within batches, as in one-way analysis of
    variance with random effects; the degrees of freedom are Satterthwaite's (1946). With batches of
    the candidate's size that is the prediction interval for the batches' means. Batches of one run
    each hold no spread of their own: their runs are means.
    """
    import numpy as np
    from scipy import stats

    first = np.asarray(candidate)
    m, sizes = first.shape[-1], [np.shape(batch)[-1] for batch in batches]
    n, k = sum(sizes), len(sizes)
    means = [np.mean(batch, axis=-1) for batch in batches]
    grand = sum(size * mean for size, mean in zip(sizes, means, strict=True)) / n
    between = sum(s * (mean - grand) ** 2 for s, mean in zip(sizes, means, strict=True)) / (k - 1)
    loss = first.mean(axis=-1) - grand
    squares = sum(size**2 for size in sizes)
    usual = (n - squares / n) / (k - 1)  # the size of a batch, if all are equal
    weight = (1 + squares / n**2) / usual
    if n == k:
        return Student(loss, np.sqrt(weight * between), k - 1)
    within = sum(np.var(b, axis=-1) * s for b, s in zip(batches, sizes, strict=True)) / (n - k)
    rest = max(0.0, 1 / m + 1 / n - weight) * within
    variance = weight * between + rest
    parts = (weight * between) ** 2 / (k - 1) + rest**2 / (n - k)
    pooled = (between * (k - 1) + within * (n - k)) / (n - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        alike = stats.f.sf(np.divide(between, within), k - 1, n - k) > POOLING
        freedom = np.where(alike, n - 1, np.where(parts > 0, variance**2 / parts, k - 1))
    error = np.sqrt(np.where(alike, pooled * (1 / m + 1 / n), variance))
    return Student(loss, error, freedom)


def welch(candidate: Array, baseline: Array) -> Student:
    """Welch's t-test (1947): each side has a spread of its own."""
    import numpy as np

    first, second = np.asarray(candidate), np.asarray(baseline)
    m, n = first.shape[-1], second.shape[-1]
    one, other = first.var(axis=-1, ddof=1) / m, second.var(axis=-1, ddof=1) / n
    with np.errstate(invalid="ignore"):
        freedom = (one + other) ** 2 / (one**2 / (m - 1) + other**2 / (n - 1))
    return Student(first.mean(axis=-1) - second.mean(axis=-1), np.sqrt(one + other), freedom)


def paired(candidate: Array, baseline: Array) -> Student:
    """The paired t-test; both sides are in the order of their pairs."""
    import numpy as np

    gaps = np.asarray(candidate) - np.asarray(baseline)
    n = gaps.shape[-1]
    return Student(gaps.mean(axis=-1), gaps.std(axis=-1, ddof=1) / math.sqrt(n), n - 1)


def permutation(candidate: Sequence[float], baseline: Sequence[float]) -> Permuted:
    """The exact permutation test of the means (Fisher 1935; Pitman 1937): no shape is assumed.

    If the two sides do not differ, each division of the runs into sides of these sizes is equally
    probable: the p-value is the share of those whose means differ as much. It goes through all
    divisions, or draws `DRAWS` of them.
    """
    import numpy as np

    m, n = len(candidate), len(baseline)
    values = np.array([*candidate, *baseline])
    chosen = _divisions(m, n)
    sums = values[chosen].sum(axis=-1)
    means = sums / m - (values.sum() - sums) / n
    # A true loss of d is taken off the candidate's runs, so it moves a division less than the
    # observed one, by 1/m + 1/n for each of the baseline's runs that took the place of another.
    moved = (chosen >= m).sum(axis=-1) * (1 / m + 1 / n)
    gaps = float(np.mean(candidate)) - float(np.mean(baseline)) - means
    gaps[np.abs(gaps) < _TIE * np.abs(values).max()] = 0.0
    with np.errstate(invalid="ignore"):
        turns = np.where(moved > 0, gaps / np.maximum(moved, 1 / m), -math.inf)
    return Permuted(tuple(np.sort(turns).tolist()))


_TIE = 1e-12
"""Differences of means that are closer than this fraction of the values are equal."""


def orders(m: int, n: int) -> int:
    """The number of divisions that count: no p-value is below one in so many."""
    ways = math.comb(m + n, m)
    return ways if ways <= MAX_ORDERS else DRAWS + 1


@lru_cache(maxsize=4)
def _divisions(m: int, n: int) -> Array:
    """For each division but the observed one, the places of the runs on the first side."""
    import numpy as np

    if math.comb(m + n, m) <= MAX_ORDERS:
        every = combinations(range(m + n), m)
        next(every)
        return np.array(list(every), dtype=np.int32)
    generator = np.random.default_rng(0)
    drawn = [
        generator.permuted(np.tile(np.arange(m + n), (_BLOCK, 1)), axis=-1)[:, :m]
        for _ in range(DRAWS // _BLOCK)
    ]
    return np.concatenate(drawn).astype(np.int32)
