"""The figures of docs/explanation/statistics.md: the benchmark checks them, and a test the page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.results import Check

BETWEEN = (0.0, 1.0, 2.0)
"""Standard deviations between batches, in those within a batch."""
LOSSES = (0.0, 0.5, 0.9, 1.0, 1.5, 2.0, 3.0)
"""True losses as parts of the tolerance, which is one spread."""


@dataclass(frozen=True)
class Table:
    """One table of the page.

    Attributes:
        alarms: how many figures, from the first, are false alarms.
        rows: what was simulated -> the figures of the page.
    """

    name: str
    alarms: int
    rows: Mapping[tuple[Any, ...], Sequence[float]]

    def formatted(self, figures: Sequence[float]) -> list[str]:
        """The figures as the page writes them: percentages, but the first of power is a drop."""
        spreads = 1 if self.name == "power" else 0
        return [f"{drop:.1f}" for drop in figures[:spreads]] + [
            f"{percent:.1f}%" for percent in figures[spreads:]
        ]

    def checks(self, row: tuple[Any, ...], found: Sequence[float]) -> list[Check]:
        """The largest difference from the page, for false alarms and for the rest."""
        label = f"{self.name}: {', '.join(map(str, row))}"
        gaps = [abs(a - b) for a, b in zip(found, self.rows[row], strict=True)]
        alarms, rest = gaps[: self.alarms], gaps[self.alarms :]
        checks = [Check(f"false alarms, {label}", max(alarms), "<=", 1, "points")] if alarms else []
        if rest:
            checks.append(Check(f"other figures, {label}", max(rest), "<=", 2, "points"))
        return checks


TABLES = (
    Table(
        "false alarms",
        6,
        {
            (10, 3, "prediction"): (4.9, 6.4, 10.5, 1.1, 17.1, 25.6),
            (5, 5, "prediction"): (5.1, 6.2, 13.2, 1.2, 12.3, 19.7),
            (3, 3, "prediction"): (5.2, 5.9, 13.2, 1.7, 10.4, 16.0),
            (10, 10, "prediction"): (5.1, 6.2, 11.7, 1.6, 13.8, 21.8),
            (20, 20, "prediction"): (5.1, 6.0, 10.0, 1.9, 14.0, 22.1),
            (10, 1, "prediction"): (5.0, 5.5, 9.5, 0.2, 18.4, 27.0),
            (5, 1, "prediction"): (5.1, 5.8, 10.4, 0.8, 15.8, 24.4),
            (3, 1, "prediction"): (5.1, 5.7, 10.9, 1.8, 12.1, 19.4),
            (3, 2, "prediction"): (5.0, 6.0, 12.3, 1.9, 11.1, 17.3),
            (10, 3, "welch"): (5.5, 4.5, 1.9, 11.7, 5.9, 5.7),
            (5, 5, "welch"): (4.5, 4.0, 3.5, 3.7, 5.1, 5.1),
            (3, 3, "welch"): (3.9, 3.3, 2.9, 2.9, 4.7, 5.0),
            (10, 10, "welch"): (4.9, 4.5, 4.5, 4.5, 5.1, 5.0),
            (20, 20, "welch"): (5.0, 4.9, 4.9, 4.9, 4.9, 5.0),
            (10, 3, "permutation"): (5.0, 5.0, 4.8, 5.0, 11.2, 14.7),
            (5, 5, "permutation"): (4.7, 4.8, 4.7, 4.8, 5.4, 5.9),
            (3, 3, "permutation"): (4.9, 5.0, 5.0, 5.0, 5.9, 7.0),
        },
    ),
    Table(
        "power",
        0,
        {
            (3, 1, "prediction"): (4.6, 32.1, 52.4, 100.0, 0.0),
            (3, 2, "prediction"): (3.6, 43.2, 68.1, 100.0, 0.0),
            (3, 3, "prediction"): (3.3, 49.1, 75.0, 99.8, 0.0),
            (5, 1, "prediction"): (3.3, 45.0, 73.0, 100.0, 0.0),
            (5, 5, "prediction"): (1.9, 82.8, 98.5, 99.9, 0.0),
            (10, 1, "prediction"): (2.8, 54.5, 83.9, 100.0, 0.0),
            (10, 3, "prediction"): (1.8, 87.5, 99.4, 100.0, 0.0),
            (10, 10, "prediction"): (1.2, 99.3, 100.0, 99.3, 0.0),
            (20, 20, "prediction"): (0.8, 100.0, 100.0, 91.9, 0.0),
            (3, 3, "welch"): (2.7, 57.5, 86.4, 0.0, 0.0),
            (5, 5, "welch"): (1.7, 88.2, 99.6, 0.0, 0.0),
            (10, 3, "welch"): (2.2, 75.1, 94.2, 0.0, 0.0),
            (10, 10, "welch"): (1.2, 99.6, 100.0, 0.0, 0.0),
            (20, 20, "welch"): (0.8, 100.0, 100.0, 0.7, 0.7),
            (3, 3, "permutation"): (2.6, 62.9, 89.1, 10.1, 0.0),
            (5, 5, "permutation"): (1.7, 88.3, 99.5, 9.6, 0.0),
            (10, 3, "permutation"): (1.8, 87.4, 99.4, 21.1, 0.0),
        },
    ),
    Table(
        "pairs",
        1,
        {
            (3, 0.0, "paired"): (5.0, 49.0, 0.0),
            (3, 0.0, "paired and prediction"): (4.4, 42.8, 96.2),
            (3, 0.5, "paired"): (4.8, 49.5, 0.0),
            (3, 0.5, "paired and prediction"): (3.6, 38.0, 96.8),
            (3, 0.9, "paired"): (5.0, 49.5, 0.0),
            (3, 0.9, "paired and prediction"): (2.7, 31.2, 97.0),
            (5, 0.0, "paired"): (5.1, 82.8, 0.0),
            (5, 0.0, "paired and prediction"): (4.0, 76.5, 99.5),
            (5, 0.5, "paired"): (4.9, 82.6, 0.0),
            (5, 0.5, "paired and prediction"): (3.1, 71.5, 99.8),
            (5, 0.9, "paired"): (5.0, 82.8, 0.0),
            (5, 0.9, "paired and prediction"): (2.5, 66.8, 99.9),
        },
    ),
    Table(
        "families",
        2,
        {
            (3, 3, 1, "holm"): (5.1, 20.2, 75.2, 99.3),
            (3, 3, 20, "holm"): (4.9, 18.3, 7.1, 24.8),
            (3, 3, 20, "fdr"): (5.0, 20.1, 7.7, 33.5),
            (5, 5, 1, "holm"): (5.0, 19.7, 98.4, 100.0),
            (5, 5, 20, "holm"): (4.8, 18.3, 42.7, 77.9),
            (5, 5, 20, "fdr"): (4.9, 20.0, 44.3, 82.6),
            (10, 3, 1, "holm"): (5.1, 20.1, 99.5, 100.0),
            (10, 3, 20, "holm"): (4.7, 18.2, 77.3, 93.5),
            (10, 3, 20, "fdr"): (5.0, 20.1, 78.0, 94.9),
            (10, 10, 1, "holm"): (4.9, 19.7, 100.0, 100.0),
            (10, 10, 20, "holm"): (4.9, 18.2, 99.0, 99.9),
            (10, 10, 20, "fdr"): (5.0, 20.0, 99.1, 99.9),
            (1, 3, 1, "tolerance only"): (49.9, 49.9, 99.5, 99.5),
            (1, 3, 20, "tolerance only"): (100.0, 100.0, 99.6, 99.6),
        },
    ),
    Table(
        "tolerance",
        7,
        {
            (3, 3, "auto"): (3.3, 8.9, 16.4, 18.8, 32.7, 48.4, 75.3),
            (3, 3, "non_inferiority"): (86.0, 93.8, 97.1, 97.7, 99.3, 99.8, 100.0),
            (5, 5, "auto"): (2.9, 12.1, 27.7, 32.7, 59.7, 81.8, 98.4),
            (5, 5, "non_inferiority"): (68.2, 87.7, 95.6, 96.8, 99.5, 100.0, 100.0),
            (10, 3, "auto"): (3.9, 15.0, 32.6, 37.9, 66.0, 87.0, 99.4),
            (10, 3, "non_inferiority"): (74.4, 90.5, 96.7, 97.5, 99.6, 100.0, 100.0),
            (10, 10, "auto"): (1.2, 12.4, 40.0, 48.6, 85.9, 98.7, 100.0),
            (10, 10, "non_inferiority"): (36.9, 76.5, 94.2, 96.2, 99.8, 100.0, 100.0),
        },
    ),
    Table(
        "batches",
        6,
        {
            (2, 3, 3): (4.9, 3.7, 13.9, 8.0, 20.3, 8.1, 58.7),
            (3, 3, 3): (5.0, 3.9, 13.3, 6.4, 18.4, 5.8, 70.4),
            (5, 3, 3): (5.0, 3.9, 13.0, 5.6, 17.2, 5.0, 84.4),
            (10, 1, 1): (4.9, 4.9, 4.9, 4.9, 4.9, 4.9, 54.4),
            (10, 1, 3): (4.9, 0.8, 9.9, 2.7, 12.4, 4.1, 56.5),
        },
    ),
    Table(
        "drift",
        2,
        {
            (3, 3, 0.0, "normal"): (0.5, 7.2, 96.4, 100.0),
            (3, 3, 0.5, "normal"): (0.5, 7.1, 77.8, 100.0),
            (3, 3, 1.0, "normal"): (0.5, 7.2, 36.8, 94.7),
            (3, 1, 0.0, "normal"): (0.5, 8.1, 92.6, 100.0),
            (3, 3, 0.0, "heavy"): (0.4, 6.4, 94.7, 100.0),
        },
    ),
)
