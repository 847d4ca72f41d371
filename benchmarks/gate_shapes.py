"""Simulated losses for the gate's tests: many trials at once, a trial in each row."""

import math
from dataclasses import dataclass
from typing import Any

COLLAPSE = 20.0
"""Standard deviations by which a collapsed run is worse."""


@dataclass(frozen=True)
class Shape:
    """How the runs of both sides vary; the baseline's have a standard deviation of 1.

    Attributes:
        kind: normal, heavy (Student's t with 3 degrees of freedom), or worse and better
            (exponential, with its tail on that side).
        wide: the candidate's standard deviation.
    """

    kind: str = "normal"
    wide: float = 1.0

    def sides(self, m: int, n: int, trials: int, generator: Any) -> tuple[Any, Any]:
        """Losses of candidates and baselines that do not differ in their means."""
        candidate, baseline = (self.values((trials, size), generator) for size in (m, n))
        return candidate * self.wide, baseline

    def values(self, size: tuple[int, int], generator: Any) -> Any:
        """Losses of this kind with a standard deviation of 1."""
        match self.kind:
            case "heavy":
                return generator.standard_t(3, size) / math.sqrt(3)
            case "worse":
                return generator.standard_exponential(size) - 1
            case "better":
                return 1 - generator.standard_exponential(size)
            case _:
                return generator.standard_normal(size)


SHAPES = (
    Shape(),
    Shape("heavy"),
    Shape("worse"),
    Shape("better"),
    Shape(wide=2.0),
    Shape(wide=3.0),
)
"""In the order of the documented columns."""


def collapsed(side: Any) -> Any:
    """The same runs, but one of each trial collapsed."""
    found = side.copy()
    found[:, 0] += COLLAPSE
    return found


def paired_sides(shared: float, n: int, trials: int, generator: Any) -> tuple[Any, Any]:
    """Sides whose pairs share this part of their variance, and not their means."""
    common = generator.standard_normal((trials, n)) * math.sqrt(shared)
    own = math.sqrt(1 - shared)
    return (
        common + own * generator.standard_normal((trials, n)),
        common + own * generator.standard_normal((trials, n)),
    )


def batch_sides(
    count: int, size: int, m: int, between: float, trials: int, generator: Any
) -> tuple[Any, list[Any]]:
    """A candidate of m runs and the batches of a baseline, whose means vary by `between`."""

    def batch(n: int) -> Any:
        return generator.standard_normal((trials, n)) + between * generator.standard_normal(
            (trials, 1)
        )

    return batch(m), [batch(size) for _ in range(count)]
