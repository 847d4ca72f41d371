"""Values of a metric as losses: whatever the direction, larger is worse."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

__all__ = ["MAX_VALUE", "Direction", "Losses", "deviation", "matched", "mean_of", "to_losses"]

Direction = Literal["higher", "lower", "target"]

MAX_VALUE = 1e150
"""Largest absolute value of a metric that is compared: the squares of larger ones overflow."""

_ROUNDING = 1e-12
"""A spread below this fraction of the values is rounding, not chance."""
MIN_SPREAD = 1e-70
"""A spread below this fraction of the largest value is constant: its fourth power, which Welch's
degrees of freedom need, underflows."""


@dataclass(frozen=True, slots=True)
class Losses:
    """The losses of one side: the larger, the worse.

    Attributes:
        values: one for each run.
        rounding: a difference up to this is rounding.
        pairs: the key that pairs each value with one of the other side; None without pairs.
        batches: the batch of each value; empty if all are of one batch.
    """

    values: tuple[float, ...]
    rounding: float = 0.0
    pairs: tuple[str, ...] | None = None
    batches: tuple[str, ...] = ()

    @property
    def mean(self) -> float:
        """The mean loss; the order of the runs does not change it."""
        return mean_of(self.values)

    @property
    def n(self) -> int:
        """The number of runs."""
        return len(self.values)

    @property
    def constant(self) -> bool:
        """Whether all values are equal, but for rounding."""
        return max(self.values) - min(self.values) <= self.rounding

    @property
    def ordered(self) -> list[float]:
        """The values in an order that does not depend on the runs', by pair if there are pairs."""
        if self.pairs is None:
            return sorted(self.values)
        return [value for _, value in sorted(zip(self.pairs, self.values, strict=True))]

    @property
    def by_batch(self) -> list[list[float]]:
        """The values of each batch, sorted."""
        if not self.batches:
            return [sorted(self.values)]
        both = sorted(zip(self.batches, self.values, strict=True))
        return [[v for _, v in batch] for _, batch in groupby(both, key=lambda pair: pair[0])]

    def divided(self, unit: float) -> "Losses":
        """The same losses in another unit."""
        values = tuple(value / unit for value in self.values)
        return Losses(values, max(MIN_SPREAD, self.rounding / unit), self.pairs, self.batches)


def to_losses(
    values: Sequence[float],
    direction: Direction,
    target: float | None = None,
    pairs: Sequence[str] | None = None,
    batches: Sequence[str] = (),
) -> Losses:
    """Convert the values of a metric to losses; with a target, the loss is the distance to it."""
    largest = max([*map(abs, values), abs(target or 0.0)], default=0.0)
    if direction == "target":
        found = [abs(value - (target or 0.0)) for value in values]
    else:
        found = [-value if direction == "higher" else value for value in values]
    several = tuple(batches) if len(set(batches)) > 1 else ()
    return Losses(
        tuple(found), _ROUNDING * largest, None if pairs is None else tuple(pairs), several
    )


def mean_of(values: Sequence[float]) -> float:
    """The mean of one value or more; their order does not change it.

    Raises:
        OverflowError: the sum is too large, which takes values beyond `MAX_VALUE`.
    """
    return math.fsum(values) / len(values)


def matched(candidate: Losses, baseline: Losses) -> bool:
    """Whether both sides have the same pairs, each once, and the baseline is one batch."""
    if candidate.pairs is None or baseline.pairs is None or baseline.batches:
        return False
    same = set(candidate.pairs) == set(baseline.pairs)
    return same and len(set(candidate.pairs)) == candidate.n == baseline.n


def deviation(values: Sequence[float]) -> float:
    """The standard deviation of two values or more, by n - 1; their order does not change it.

    Plain Python, for thousands of small samples; values up to `MAX_VALUE` do not overflow.
    """
    largest = max(map(abs, values)) or 1.0
    mean = mean_of(values) / largest
    squares = math.fsum((value / largest - mean) ** 2 for value in values)
    return largest * math.sqrt(squares / (len(values) - 1))


def spread_of(values: Sequence[float]) -> float | None:
    """The standard deviation of the values; None for a single one."""
    return deviation(values) if len(values) > 1 else None
