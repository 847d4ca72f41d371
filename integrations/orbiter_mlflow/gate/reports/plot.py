"""A metric over the baseline's runs, and the candidate beside them, as SVG for the page.

Everything is told by shape and label, not by colour alone: circles are baseline runs, diamonds the
candidate's, a crossed mark at the edge is a run without a finite value.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil, floor, log10

from orbiter_mlflow.gate.model import GateReport, GateRun, MetricResult, Sample
from orbiter_mlflow.gate.reports import figures, wording
from orbiter_mlflow.gate.reports.markup import Element, element

__all__ = ["MAX_RUNS", "history", "in_start_order"]

MAX_RUNS = 200
"""Baseline runs that are drawn: the latest."""

_WIDTH, _HEIGHT = 452, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 356, 14, 160
_FAR = 2.0
"""A limit further away than this many times the spread of the values is not drawn, but named."""
_LINE_HEIGHT = 13
_LABEL_WIDTH = 46
_INSET, _LANE = 12, 34


@dataclass(frozen=True, slots=True)
class _Scale:
    """Values to heights, from `top` to `bottom`; what is equal stands in the middle."""

    low: float
    high: float
    top: float
    bottom: float

    def y(self, value: float) -> float:
        # Halves, for the largest floats lie further apart than a float can say.
        span = self.high / 2 - self.low / 2
        share = (value / 2 - self.low / 2) / span if span > 0 else 0.5
        return self.bottom - share * (self.bottom - self.top)


def in_start_order(runs: Sequence[GateRun]) -> list[GateRun]:
    """Oldest first; runs whose start is not known keep their order."""
    return sorted(runs, key=lambda run: run.start_time)


def history(report: GateReport, metric: MetricResult, title_id: str) -> Element:
    """The plot of one metric; its title, for those who cannot see it, has the id `title_id`."""
    known = in_start_order(_that_count(report.baseline, metric.baseline))
    baseline = known[-MAX_RUNS:]
    candidate = in_start_order(_that_count(report.candidate, metric.candidate))
    old, new = _values(baseline, metric.baseline), _values(candidate, metric.candidate)
    mean = _finite(figures.mean(metric.baseline))
    limits = [limit for limit in map(_finite, metric.allowed) if limit is not None]
    odd = [_shown(run, metric.baseline) for run, v in zip(baseline, old, strict=True) if v is None]
    odd += [
        _shown(run, metric.candidate) for run, v in zip(candidate, new, strict=True) if v is None
    ]
    scale, drawn = _scale([*old, *new, mean], limits, odd)
    svg = element(
        "svg",
        element("title", _told(metric, len(old), len(new)), id=title_id),
        role="img",
        aria_labelledby=title_id,
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
    )
    svg.append(_band(metric, drawn, scale))
    svg.extend(_axis(scale))
    svg.extend(_levels(mean, limits, drawn, scale))
    split = _RIGHT - min(0.45 * (_RIGHT - _LEFT), 44 + 16 * max(0, len(new) - 1))
    svg.append(_line("split", split, _TOP, split, _BOTTOM))
    spots = _spread(len(old), _LEFT + 6, split - 6)
    points = [f"{x:.1f},{scale.y(v):.1f}" for x, v in zip(spots, old, strict=True) if v is not None]
    svg.append(element("polyline", points=" ".join(points), class_="trail"))
    svg.extend(_marks("run", spots, baseline, metric.baseline, scale))
    spots = _spread(len(new), split + 6, _RIGHT - 6)
    svg.extend(_marks("candidate", spots, candidate, metric.candidate, scale))
    middle = (_LEFT + split) / 2
    shown = "baseline" if baseline == known else f"latest {MAX_RUNS} of the baseline"
    svg.append(_label(middle, _BOTTOM + 16, f"{shown}, oldest first", "middle"))
    svg.append(_label((split + _RIGHT) / 2, _BOTTOM + 16, "candidate", "middle"))
    return svg


def _that_count(runs: Sequence[GateRun], sample: Sample) -> list[GateRun]:
    return [run for run in runs if run.run_id in sample.values or run.run_id in sample.missing]


def _values(runs: Sequence[GateRun], sample: Sample) -> list[float | None]:
    return [_finite(sample.values.get(run.run_id)) for run in runs]


def _finite(value: float | None) -> float | None:
    return value if value is not None and figures.is_finite(value) else None


def _told(metric: MetricResult, old: int, new: int) -> str:
    """The plot in words."""
    limits = f"; limits {', '.join(metric.limits)}" if metric.limits else ""
    return (
        f"{metric.metric}: baseline mean {wording.mean_and_n(metric.baseline)}, "
        f"candidate mean {wording.mean_and_n(metric.candidate)}{limits}. "
        f"{wording.counted(old, 'baseline run')} and {wording.counted(new, 'candidate run')} drawn."
    )


# -- heights -------------------------------------------------------------------------------------


def _scale(
    values: list[float | None], limits: list[float], odd: list[str]
) -> tuple[_Scale, list[float]]:
    """The scale that holds all values, and those limits that are not far from them.

    What has no height stands at an edge, which is left free for it.
    """
    top = _TOP + (_LANE if "inf" in odd else _INSET)
    bottom = _BOTTOM - (_LANE if set(odd) - {"inf"} else _INSET)
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


def _axis(scale: _Scale) -> list[Element]:
    parts = []
    for value in _ticks(scale):
        y = scale.y(value)
        parts.append(_line("grid", _LEFT, y, _RIGHT, y))
        parts.append(_label(_LEFT - 6, y + 4, figures.number(float(f"{value:.4g}")), "end"))
    return parts


def _band(metric: MetricResult, drawn: list[float], scale: _Scale) -> Element:
    """What the limits allow; a limit that is not drawn is beyond the plot."""
    lowest, highest = metric.allowed
    top = scale.y(highest) if highest in drawn and highest is not None else _TOP
    bottom = scale.y(lowest) if lowest in drawn and lowest is not None else _BOTTOM
    limited = lowest is not None or highest is not None
    height = max(0.0, bottom - top) if limited else 0.0
    return element(
        "rect",
        x=f"{_LEFT}",
        y=f"{top:.1f}",
        width=f"{_RIGHT - _LEFT}",
        height=f"{height:.1f}",
        class_="band",
    )


def _levels(
    mean: float | None, limits: list[float], drawn: list[float], scale: _Scale
) -> list[Element]:
    """The lines across, each with its label on the right; labels make room for each other."""
    parts, labels = [], []
    if mean is not None:
        y = scale.y(mean)
        parts.append(_line("mean", _LEFT, y, _RIGHT, y))
        labels.append((y, f"mean {figures.number(mean)}"))
    for limit in limits:
        if limit in drawn:
            y = scale.y(limit)
            parts.append(_line("limit", _LEFT, y, _RIGHT, y))
            labels.append((y, f"limit {figures.number(limit)}"))
        else:
            below = limit < scale.low
            y, arrow = (_BOTTOM - 4, "\u2193") if below else (_TOP + 4, "\u2191")
            labels.append((y, f"limit {figures.number(limit)} {arrow}"))
    at = float("-inf")
    for y, text in sorted(labels):
        at = max(at + _LINE_HEIGHT, y)
        parts.append(_label(_RIGHT + 6, at + 4, text, "start"))
    return parts


# -- marks ---------------------------------------------------------------------------------------


def _spread(count: int, left: float, right: float) -> list[float]:
    """That many places, evenly."""
    return [left + (right - left) * (at + 0.5) / count for at in range(count)]


def _marks(
    kind: str, spots: list[float], runs: Sequence[GateRun], sample: Sample, scale: _Scale
) -> list[Element]:
    marks = []
    labelled: dict[str, float] = {}
    for x, run in zip(spots, runs, strict=True):
        shown = _shown(run, sample)
        title = element("title", f"{wording.run_words(run)}: {shown}{_date(run.start_time)}")
        value = _finite(sample.values.get(run.run_id))
        if value is None:
            high = shown == "inf"
            y = float(_TOP + 8 if high else _BOTTOM - 8)
            path = f"M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8"
            marks.append(element("path", title, d=path, class_="lost"))
            if x - labelled.get(shown, -_WIDTH) > _LABEL_WIDTH:  # one label serves neighbours
                labelled[shown] = x
                marks.append(_label(x, y + 17 if high else y - 8, shown, "middle", "lost"))
        elif kind == "run":
            y = scale.y(value)
            marks.append(
                element("circle", title, cx=f"{x:.1f}", cy=f"{y:.1f}", r="3.5", class_=kind)
            )
        else:
            path = f"M{x:.1f} {scale.y(value) - 7:.1f}l7 7l-7 7l-7 -7z"
            marks.append(element("path", title, d=path, class_=kind))
    return marks


def _shown(run: GateRun, sample: Sample) -> str:
    value = sample.values.get(run.run_id)
    return "missing" if value is None else figures.number(value)


def _date(start_time: int) -> str:
    if not 0 < start_time < 253_402_300_800_000:  # the year 10000
        return ""
    return f", {datetime.fromtimestamp(start_time / 1000, UTC):%Y-%m-%d %H:%M} UTC"


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> Element:
    return element(
        "line", x1=f"{x1:.1f}", y1=f"{y1:.1f}", x2=f"{x2:.1f}", y2=f"{y2:.1f}", class_=kind
    )


def _label(x: float, y: float, text: str, anchor: str, kind: str = "label") -> Element:
    return element("text", text, x=f"{x:.1f}", y=f"{y:.1f}", class_=f"{kind} {anchor}")
