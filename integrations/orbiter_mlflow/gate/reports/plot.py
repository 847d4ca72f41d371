"""The plot of a metric over the baseline's runs, with the candidate beside them, as geometry.

The page's template draws it. Shapes and labels carry the meaning, not colour alone: circles are
baseline runs, diamonds candidates, and a cross at the edge is a run without a finite value.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil, floor, log10

from orbiter_mlflow.gate.model import GateReport, GateRun, MetricResult, Sample, counted
from orbiter_mlflow.gate.reports import figures, wording

__all__ = ["MAX_RUNS", "Plot", "history", "in_start_order", "value_words"]

MAX_RUNS = 200
"""Baseline runs that are drawn at most: the latest."""

_WIDTH, _HEIGHT = 452, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 356, 14, 160
_FAR = 2.0
"""A limit further away than this many times the range of the values is named, but not drawn."""
_LINE_HEIGHT = 13
_LABEL_WIDTH = 46
_INSET, _LANE = 12, 34


@dataclass(frozen=True, slots=True)
class Line:
    """A straight line; `kind` is grid, mean, limit or split."""

    kind: str
    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True, slots=True)
class Label:
    """A text at a point; `kind` is label or lost, `anchor` is start, middle or end."""

    x: float
    y: float
    text: str
    anchor: str
    kind: str = "label"


@dataclass(frozen=True, slots=True)
class Mark:
    """One run; `kind` is run, candidate, or lost if it has no finite value."""

    kind: str
    x: float
    y: float
    title: str


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Plot:
    """The shapes of a plot, in the units of its view box.

    Attributes:
        title: the plot in words, for those who cannot see it.
        band: the range that all limits allow.
        trail: the points of the baseline's line.
    """

    title: str
    band: Box
    lines: list[Line]
    trail: list[tuple[float, float]]
    marks: list[Mark]
    labels: list[Label]
    width: int = _WIDTH
    height: int = _HEIGHT


@dataclass(frozen=True, slots=True)
class _Scale:
    """Maps values to heights from `top` to `bottom`; equal values are in the middle."""

    low: float
    high: float
    top: float
    bottom: float

    def y(self, value: float) -> float:
        # In halves, because the difference of the largest floats overflows.
        span = self.high / 2 - self.low / 2
        share = (value / 2 - self.low / 2) / span if span > 0 else 0.5
        return round(self.bottom - share * (self.bottom - self.top), 1)


def in_start_order(runs: Sequence[GateRun]) -> list[GateRun]:
    """Runs by start time, the oldest first; runs without one keep their order."""
    return sorted(runs, key=lambda run: run.start_time)


def history(report: GateReport, metric: MetricResult) -> Plot:
    """The plot of one metric."""
    known = in_start_order(_with_metric(report.baseline, metric.baseline))
    baseline = known[-MAX_RUNS:]
    candidate = in_start_order(_with_metric(report.candidate, metric.candidate))
    old, new = _values(baseline, metric.baseline), _values(candidate, metric.candidate)
    mean = _finite(figures.mean(metric.baseline))
    limits = [limit for limit in map(_finite, metric.allowed) if limit is not None]
    lost = [value_words(run, metric.baseline) for run in baseline]
    lost += [value_words(run, metric.candidate) for run in candidate]
    lost = [text for text, value in zip(lost, [*old, *new], strict=True) if value is None]
    scale, drawn = _scale([*old, *new, mean], limits, lost)
    split = _RIGHT - min(0.45 * (_RIGHT - _LEFT), 44 + 16 * max(0, len(new) - 1))
    old_x, new_x = _spread(len(old), _LEFT + 6, split - 6), _spread(len(new), split + 6, _RIGHT - 6)
    axis_lines, axis_labels = _axis(scale)
    level_lines, level_labels = _levels(mean, limits, drawn, scale)
    old_marks, old_labels = _marks("run", old_x, baseline, metric.baseline, scale)
    new_marks, new_labels = _marks("candidate", new_x, candidate, metric.candidate, scale)
    shown = "baseline" if baseline == known else f"latest {MAX_RUNS} of the baseline"
    return Plot(
        title=_title(metric, len(old), len(new)),
        band=_band(metric, drawn, scale),
        lines=[*axis_lines, *level_lines, Line("split", split, _TOP, split, _BOTTOM)],
        trail=[(x, scale.y(v)) for x, v in zip(old_x, old, strict=True) if v is not None],
        marks=[*old_marks, *new_marks],
        labels=[
            *(*axis_labels, *level_labels, *old_labels, *new_labels),
            Label((_LEFT + split) / 2, _BOTTOM + 16, f"{shown}, oldest first", "middle"),
            Label((split + _RIGHT) / 2, _BOTTOM + 16, "candidate", "middle"),
        ],
    )


def _with_metric(runs: Sequence[GateRun], sample: Sample) -> list[GateRun]:
    return [run for run in runs if run.run_id in sample.values or run.run_id in sample.missing]


def _values(runs: Sequence[GateRun], sample: Sample) -> list[float | None]:
    return [_finite(sample.values.get(run.run_id)) for run in runs]


def _finite(value: float | None) -> float | None:
    return value if value is not None and figures.is_finite(value) else None


def _title(metric: MetricResult, old: int, new: int) -> str:
    limits = f"; limits {', '.join(metric.limits)}" if metric.limits else ""
    return (
        f"{metric.metric}: baseline mean {wording.mean_and_n(metric.baseline)}, "
        f"candidate mean {wording.mean_and_n(metric.candidate)}{limits}. "
        f"{counted(old, 'baseline run')} and {counted(new, 'candidate run')} drawn."
    )


# -- heights -------------------------------------------------------------------------------------


def _scale(
    values: list[float | None], limits: list[float], lost: list[str]
) -> tuple[_Scale, list[float]]:
    """The scale that fits all values, and the limits near enough to be drawn.

    Runs without a finite value are drawn at an edge, in a lane that is kept free.
    """
    top = _TOP + (_LANE if "inf" in lost else _INSET)
    bottom = _BOTTOM - (_LANE if set(lost) - {"inf"} else _INSET)
    known = [value for value in values if value is not None] or limits or [0.0]
    low, high = min(known), max(known)
    reach = (high / 2 - low / 2) * 2 * _FAR
    drawn = [at for at in limits if low - reach <= at <= high + reach or high == low]
    return _Scale(min([low, *drawn]), max([high, *drawn]), top, bottom), drawn


def _ticks(scale: _Scale) -> list[float]:
    """Two to five round numbers on the scale."""
    span = scale.high - scale.low
    if not (span > 1e-12 * max(abs(scale.low), abs(scale.high)) and span < 1e300):
        return [scale.low]
    size = 10.0 ** floor(log10(span / 2)) if span > 1e-300 else span
    step = next((size * f for f in (5, 2.5, 2, 1) if span / (size * f) >= 2), size)
    first = ceil(scale.low / step)
    return [at * step for at in range(first, floor(scale.high / step) + 1)][:7] or [scale.low]


def _axis(scale: _Scale) -> tuple[list[Line], list[Label]]:
    heights = [(value, scale.y(value)) for value in _ticks(scale)]
    return (
        [Line("grid", _LEFT, y, _RIGHT, y) for _, y in heights],
        [Label(_LEFT - 6, y + 4, figures.number(float(f"{v:.4g}")), "end") for v, y in heights],
    )


def _band(metric: MetricResult, drawn: list[float], scale: _Scale) -> Box:
    """The allowed range; a limit that is not drawn is beyond the plot."""
    lowest, highest = metric.allowed
    top = scale.y(highest) if highest in drawn and highest is not None else _TOP
    bottom = scale.y(lowest) if lowest in drawn and lowest is not None else _BOTTOM
    limited = lowest is not None or highest is not None
    return Box(_LEFT, top, _RIGHT - _LEFT, max(0.0, bottom - top) if limited else 0.0)


def _levels(
    mean: float | None, limits: list[float], drawn: list[float], scale: _Scale
) -> tuple[list[Line], list[Label]]:
    """The mean and the limits, with labels on the right that do not overlap."""
    lines, texts = [], []
    for kind, value in (("mean", mean), *(("limit", limit) for limit in limits)):
        if value is None:
            continue
        text = f"{kind} {figures.number(value)}"
        if kind == "mean" or value in drawn:
            y = scale.y(value)
            lines.append(Line(kind, _LEFT, y, _RIGHT, y))
            texts.append((y, text))
        elif value < scale.low:
            texts.append((_BOTTOM - 4, f"{text} \u2193"))
        else:
            texts.append((_TOP + 4, f"{text} \u2191"))
    labels = []
    at = float("-inf")
    for y, text in sorted(texts):
        at = max(at + _LINE_HEIGHT, y)
        labels.append(Label(_RIGHT + 6, at + 4, text, "start"))
    return lines, labels


# -- marks ---------------------------------------------------------------------------------------


def _spread(count: int, left: float, right: float) -> list[float]:
    """That many positions, evenly spaced."""
    return [round(left + (right - left) * (at + 0.5) / count, 1) for at in range(count)]


def _marks(
    kind: str, positions: list[float], runs: Sequence[GateRun], sample: Sample, scale: _Scale
) -> tuple[list[Mark], list[Label]]:
    marks, labels = [], []
    last_label: dict[str, float] = {}
    for x, run in zip(positions, runs, strict=True):
        words = value_words(run, sample)
        title = f"{wording.run_words(run)}: {words}{_date(run.start_time)}"
        value = _finite(sample.values.get(run.run_id))
        if value is not None:
            marks.append(Mark(kind, x, scale.y(value), title))
            continue
        high = words == "inf"
        y = _TOP + 8 if high else _BOTTOM - 8
        marks.append(Mark("lost", x, y, title))
        if x - last_label.get(words, -_WIDTH) > _LABEL_WIDTH:  # one label serves its neighbours
            last_label[words] = x
            labels.append(Label(x, y + 17 if high else y - 8, words, "middle", "lost"))
    return marks, labels


def value_words(run: GateRun, sample: Sample) -> str:
    """The value of a run as text: `0.8123`, `NaN`, `missing`."""
    value = sample.values.get(run.run_id)
    return "missing" if value is None else figures.number(value)


def _date(start_time: int) -> str:
    if not 0 < start_time < 253_402_300_800_000:  # the year 10000
        return ""
    return f", {datetime.fromtimestamp(start_time / 1000, UTC):%Y-%m-%d %H:%M} UTC"
