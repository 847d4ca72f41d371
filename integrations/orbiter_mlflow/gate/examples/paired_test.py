"""Tests of paired scores: McNemar's exact test for 0/1, and the sign-flip test for any scores.

Pure. Both are one-sided, for "the candidate is worse", and both give the end of the confidence
interval of the mean loss that agrees with the p-value: it is above 0 at a level exactly if the
p-value is below that level.
"""

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, TypeAlias

__all__ = ["ExampleTest", "PairedTest", "mcnemar", "sign_flip"]

Array: TypeAlias = Any
"""A numpy array of floats, one for each example."""

MAX_EXACT = 16
"""Examples up to which all 2^n sign flips are enumerated."""
MAX_CONCENTRATION = 0.01
"""Largest sum(d^4) / sum(d^2)^2 of losses whose flips are taken from the normal limit. By the first
term of the Edgeworth series its error is then below 0.0005, and below 0.0002 for p-values below
0.1; that of 9,999 random flips is 0.002 at p = 0.05."""
MIN_DISTINCT = 65
"""Distinct losses for the normal limit: with few, the mean moves in steps that it does not know."""
FLIPS = 9_999
MAX_DRAWS = 200_000_000
"""Random draws in a test at most; a table so large that still needs them gets fewer flips."""

_CHUNK = 1_000_000
_SEED = 20_250_601
_ROUNDING = 1e-12


class ExampleTest(StrEnum):
    """How two evaluations were compared example by example."""

    MCNEMAR = "McNemar's exact test"
    SIGN_FLIP = "sign-flip permutation test"


class PairedTest(Protocol):
    """A finished test."""

    @property
    def p_value(self) -> float:
        """One-sided: the chance of such a loss, or a larger one, if nothing has changed."""

    def at_least(self, level: float) -> float:
        """The mean loss that the candidate has at least, with confidence 1 - `level`."""


# -- McNemar ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _McNemar:
    broken: int
    fixed: int
    n: int

    @property
    def p_value(self) -> float:
        from scipy import stats

        return float(stats.binom.sf(self.broken - 1, self.broken + self.fixed, 0.5))

    def at_least(self, level: float) -> float:
        from scipy import stats

        changed = self.broken + self.fixed
        share = float(stats.beta.ppf(level, self.broken, self.fixed + 1)) if self.broken else 0.0
        return changed / self.n * (2 * share - 1)


def mcnemar(broken: int, fixed: int, n: int) -> PairedTest:
    """McNemar's exact test: of the examples whose score changed, half break by chance.

    The p-value is the binomial one of `broken` or more among them (McNemar 1947). The confidence
    bound is that of Clopper and Pearson (1934) for the share that broke, given their number.

    Args:
        broken: examples that were 1 and are 0, or the reverse if lower is better.
        fixed: the opposite.
        n: all examples.
    """
    return _McNemar(broken, fixed, n)


# -- sign flips ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Normal:
    """The limit for many examples, in units of `scale`."""

    mean: float
    deviation: float
    n: int
    scale: float

    @property
    def p_value(self) -> float:
        from scipy import stats

        size = math.hypot(self.mean, self.deviation)
        return float(stats.norm.sf(math.sqrt(self.n) * self.mean / size)) if size else 1.0

    def at_least(self, level: float) -> float:
        from scipy import stats

        z = float(stats.norm.isf(level))
        # The loss whose removal makes the p-value `level`: the root of a quadratic equation.
        room = self.n - z * z
        if room <= 0:
            return -math.inf
        return self.scale * (self.mean - z * self.deviation / math.sqrt(room))


@dataclass(frozen=True, slots=True)
class _Flips:
    """All sign flips, or a random sample of them.

    Attributes:
        means: means of random subsets of the losses, sorted, in units of `scale`.
        always: flips that count whatever the loss: those that change no sign.
    """

    means: Array = field(repr=False)
    always: int
    scale: float

    @property
    def p_value(self) -> float:
        below = int(self.means.searchsorted(_ROUNDING, side="right"))
        return (below + self.always) / (len(self.means) + self.always)

    def at_least(self, level: float) -> float:
        total = len(self.means) + self.always
        rank = math.floor(level * total + _ROUNDING) - self.always
        return self.scale * float(self.means[rank]) if rank >= 0 else -math.inf


def sign_flip(losses: Array) -> PairedTest:
    """The sign-flip permutation test of the mean loss (Fisher 1935; Pitman 1937).

    If nothing has changed, each example's loss is as likely to be positive as negative. Up to
    `MAX_EXACT` examples all flips are enumerated. Beyond, the normal limit is used where it is
    accurate; else random flips with a fixed seed, whose p-value is (b + 1) / (N + 1), with the
    limit for the many small losses beside a few large ones.

    A flip leaves the mean no less than observed exactly if the flipped losses have a mean of 0 or
    less: so the confidence bound is a quantile of the means of random subsets (Hartigan 1969).

    Args:
        losses: baseline minus candidate of one example or more, or the reverse if lower is better.
    """
    import numpy as np

    scale = float(np.abs(losses).max()) or 1.0
    scaled = np.asarray(losses, float) / scale
    n = len(scaled)
    if n <= MAX_EXACT:
        sums, sizes = np.zeros(1), np.zeros(1)
        for loss in scaled:
            sums, sizes = np.append(sums, sums + loss), np.append(sizes, sizes + 1)
        return _Flips(np.sort(sums[1:] / sizes[1:]), 1, scale)
    scaled = scaled[np.argsort(-np.abs(scaled), kind="stable")]
    large = _large(scaled)
    if large == 0:
        return _Normal(float(scaled.mean()), float(scaled.std()), n, scale)
    return _random_flips(scaled[:large], scaled[large:], scale)


def _large(losses: Array) -> int:
    """How many losses are too large for the normal limit, from the front: the others are even."""
    import numpy as np

    if len(np.unique(losses)) < MIN_DISTINCT:
        return len(losses) if losses.any() else 0
    squares, fourths = (np.cumsum(losses[::-1] ** power)[::-1] for power in (2, 4))
    even = (squares > 0) & (fourths <= MAX_CONCENTRATION * squares**2)
    return int(even.argmax()) if even.any() else len(losses)


def _random_flips(large: Array, rest: Array, scale: float) -> _Flips:
    """Random flips of the large losses, and the normal limit of those of the rest."""
    import numpy as np

    values, counts = np.unique(large, return_counts=True)
    flips = min(FLIPS, MAX_DRAWS // len(values))
    generator = np.random.default_rng(_SEED)
    # Sum and number of the flipped ones among the rest: each is flipped with probability 1/2.
    mean = [float(rest.sum()) / 2, len(rest) / 2]
    shared = float(rest.sum()) / 4
    variance = [[float((rest**2).sum()) / 4, shared], [shared, len(rest) / 4]]
    sums, sizes = generator.multivariate_normal(mean, variance, flips, method="eigh").T
    # Of equal losses, only the number flipped matters.
    for value, count in zip(values[counts > 1], counts[counts > 1], strict=True):
        flipped = generator.binomial(count, 0.5, flips)
        sums += value * flipped
        sizes += flipped
    once = values[counts == 1]
    step = max(8, _CHUNK // flips)
    for start in range(0, len(once), step):
        part = once[start : start + step]
        packed = generator.integers(0, 256, (flips, -(-len(part) // 8)), np.uint8)
        bits = np.unpackbits(packed, axis=1, count=len(part)).astype(float)
        sums += bits @ part
        sizes += bits @ np.ones(len(part))
    means = np.sort(sums[sizes > 0] / sizes[sizes > 0])
    return _Flips(means, 1 + flips - len(means), scale)
