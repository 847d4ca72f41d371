"""Correction for the number of metrics: what a p-value must reach when several are tested."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["WITHIN_CHANCE", "Corrected", "Correction", "corrected", "well_within_chance"]

Correction = Literal["holm", "fdr"]
"""What `alpha` bounds: the probability of any false alarm, or the share of false alarms."""


WITHIN_CHANCE = 4
"""A loss past tolerance whose adjusted p-value is above this many times alpha is well within
chance: it passes. With alpha = 0.05, 4 of 5 good builds have no warning, for any number of metrics.
"""


@dataclass(frozen=True, slots=True)
class Corrected:
    """A p-value after correction.

    Attributes:
        p_value: the adjusted p-value, to be compared with alpha.
        level: the level that the p-value itself was compared with: it is at most `level` exactly
            if the adjusted one is at most alpha.
    """

    p_value: float
    level: float


def corrected(p_values: Sequence[float], alpha: float, method: Correction) -> list[Corrected]:
    """Adjust p-values for their number.

    "holm" (Holm 1979) keeps the probability of any false alarm at alpha; "fdr" (Benjamini and
    Hochberg 1995) keeps the expected share of false alarms among the failures at alpha.
    """
    if not p_values:
        return []
    return (_holm if method == "holm" else _benjamini_hochberg)(p_values, alpha)


def well_within_chance(p_value: float, alpha: float) -> bool:
    """Whether an adjusted p-value is so large that a loss past tolerance says nothing."""
    return p_value > min(0.5, WITHIN_CHANCE * alpha)


def _holm(p_values: Sequence[float], alpha: float) -> list[Corrected]:
    count = len(p_values)
    ranked = sorted(range(count), key=lambda i: p_values[i])
    adjusted, least = [1.0] * count, 0.0
    for rank, i in enumerate(ranked):
        least = max(least, min(1.0, (count - rank) * p_values[i]))
        adjusted[i] = least
    # Holm stops at the first p-value above its level: the rest is held against that level.
    failed = sum(p <= alpha for p in adjusted)
    levels = {i: alpha / (count - min(rank, failed)) for rank, i in enumerate(ranked)}
    return [Corrected(p, levels[i]) for i, p in enumerate(adjusted)]


def _benjamini_hochberg(p_values: Sequence[float], alpha: float) -> list[Corrected]:
    from scipy import stats

    adjusted = [float(p) for p in stats.false_discovery_control(p_values, method="bh")]
    # All failures share the level of the largest of them (Benjamini and Yekutieli 2005).
    failed = sum(p <= alpha for p in adjusted)
    level = alpha * (max(1, failed) / len(adjusted))
    return [Corrected(p, level) for p in adjusted]
