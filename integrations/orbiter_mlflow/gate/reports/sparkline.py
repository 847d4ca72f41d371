"""A metric over the blessings in one small line: of block characters, or as a drawing."""

from collections.abc import Sequence
from dataclasses import dataclass

from orbiter_mlflow.gate.history import Point, history_of
from orbiter_mlflow.gate.model import GateReport, counted
from orbiter_mlflow.gate.reports import figures

__all__ = ["Sparkline", "blocks", "sparkline"]

_BLOCKS = "▁▂▃▄▅▆▇█"
WIDTH, HEIGHT = 160, 24
_EDGE = 4
"""Room for the marks around the line."""


@dataclass(frozen=True, slots=True)
class Sparkline:
    """A line within `WIDTH` times `HEIGHT`.

    Attributes:
        trail: x and y of each blessing, the oldest first.
        changes: those that differ from the one before beyond chance.
        title: the line in words.
    """

    trail: tuple[tuple[int, int], ...]
    changes: tuple[tuple[int, int], ...]
    title: str


def blocks(values: Sequence[float]) -> str:
    """`▁▃█`: one character for each value, the lowest and the highest for the extremes."""
    return "".join(_BLOCKS[round(level * (len(_BLOCKS) - 1))] for level in _levels(values))


def sparkline(report: GateReport, metric: str) -> Sparkline | None:
    """The line of a metric over the blessings of a report; None with fewer than two."""
    points = history_of(metric, report.history)
    if len(points) < 2:
        return None
    step = (WIDTH - 2 * _EDGE) / (len(points) - 1)
    levels = _levels([point.summary.mean for point in points])
    trail = tuple(
        (round(_EDGE + n * step), round(HEIGHT - _EDGE - level * (HEIGHT - 2 * _EDGE)))
        for n, level in enumerate(levels)
    )
    changes = tuple(at for at, point in zip(trail, points, strict=True) if point.is_change)
    return Sparkline(trail, changes, _title(points))


def _levels(values: Sequence[float]) -> list[float]:
    """The values between 0 for the lowest and 1 for the highest."""
    unit = max(map(abs, values), default=0.0) or 1.0  # no difference overflows
    scaled = [value / unit for value in values]
    low = min(scaled, default=0.0)
    span = max(scaled, default=0.0) - low
    return [(value - low) / span if span else 0.5 for value in scaled]


def _title(points: Sequence[Point]) -> str:
    first, last = points[0].summary.mean, points[-1].summary.mean
    changes = sum(point.is_change for point in points)
    marked = f", {counted(changes, 'change point')}" if changes else ""
    return (
        f"The last {len(points)} blessings: {figures.number(first)} to {figures.number(last)}"
        f"{marked}"
    )
