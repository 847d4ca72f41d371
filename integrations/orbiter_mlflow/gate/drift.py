"""Slow decline: the trend of a metric over the last blessings and the candidate.

Pure. Each step of a slow decline is within tolerance; the sum of them is not. A line is fitted to
the means, each weighted by its number of runs, and a t-test asks whether it gets worse. The spread
comes from the blessings around the line, so that releases which differ by chance raise no alarm.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from orbiter_mlflow.gate.limits import exceeds, tolerance
from orbiter_mlflow.gate.lineage import PastBlessing, Summary
from orbiter_mlflow.gate.model import DriftResult, MetricResult, Verdict
from orbiter_mlflow.gate.past import summary_of
from orbiter_mlflow.gate.policy import MetricPolicy
from orbiter_mlflow.gate.policy.baseline import MIN_BLESSINGS
from orbiter_mlflow.gate.statistics import Correction, Losses, corrected

__all__ = ["LEVEL", "find_drift", "trend"]

LEVEL = 0.1
"""Fraction of alpha at which a trend is significant. Checks follow each other over nearly the same
blessings: at a tenth of alpha, a false alarm within 20 releases has about the probability alpha."""
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Trend:
    """A line through the losses of successive blessings.

    Attributes:
        slope: change of the loss from one to the next.
        decline: `slope` over all of them.
        p_value: one-sided, for "the loss grows"; None if all points are on the line.
    """

    slope: float
    decline: float
    p_value: float | None


def trend(losses: Sequence[float], weights: Sequence[float], rounding: float = 0.0) -> Trend:
    """Fit a line by weighted least squares, and test its slope (Student's t, n - 2 degrees).

    Args:
        losses: three or more, the oldest first.
        weights: of each; the number of runs behind it.
        rounding: a distance from the line up to this is rounding.
    """
    from scipy import special

    total, count = math.fsum(weights), len(losses)
    pairs = [*zip(range(count), losses, weights, strict=True)]
    middle = math.fsum(w * x for x, _, w in pairs) / total
    mean = math.fsum(w * y for _, y, w in pairs) / total
    square = math.fsum(w * (x - middle) ** 2 for x, _, w in pairs)
    slope = math.fsum(w * (x - middle) * (y - mean) for x, y, w in pairs) / square
    off = [y - mean - slope * (x - middle) for x, y, _ in pairs]
    decline = slope * (count - 1)
    if max(map(abs, off)) <= rounding:
        return Trend(slope, decline, None)
    largest = max(map(abs, off))
    variance = math.fsum(w * (d / largest) ** 2 for (_, _, w), d in zip(pairs, off, strict=True))
    error = largest * math.sqrt(variance / (count - 2) / square)
    return Trend(slope, decline, float(special.stdtr(count - 2, -slope / error)))


def find_drift(
    metrics: Mapping[str, MetricPolicy],
    results: Sequence[MetricResult],
    history: Sequence[PastBlessing],
    *,
    alpha: float,
    correction: Correction,
) -> tuple[list[DriftResult], list[str]]:
    """The trend of each metric that has a tolerance, and notes on those that have none yet.

    A trend begins at the oldest blessing that can be compared with the newest one, or at the last
    that was allowed to lower the metric.

    Args:
        metrics: key -> its entry in the policy.
        results: the candidate's; metrics without a usable value in it have no trend.
        history: the blessings, the oldest first.
        alpha: of the policy.
        correction: of the policy; for the number of trends.
    """
    found, short = [], list[str]()
    for result in results:
        expected = metrics[result.metric]
        candidate = summary_of([*result.candidate.values.values()])
        if not expected.compared or candidate is None or result.candidate.missing:
            continue
        past = _window(result.metric, history)
        if len(past) < MIN_BLESSINGS:
            short.append(result.metric)
        else:
            found.append(_of_metric(expected, result, [*past, candidate]))
    tested = [one.p_value for one in found if one.p_value is not None and one.severity != "info"]
    level = LEVEL * alpha
    adjusted = iter(corrected(tested, level, correction))
    decided = [
        _decided(
            one,
            next(adjusted).p_value if one.p_value is not None and one.severity != "info" else None,
            level=level,
        )
        for one in found
    ]
    return decided, _notes(short, len(found) + len(short))


def _window(metric: str, history: Sequence[PastBlessing]) -> list[Summary]:
    """The comparable blessings of the metric, the oldest first."""
    found: list[Summary] = []
    for blessing in reversed(history):
        if blessing.differs:
            break
        if metric in blessing.metrics:
            found.append(blessing.metrics[metric])
        if metric in blessing.lowered:
            break
    return found[::-1]


def _of_metric(
    expected: MetricPolicy, result: MetricResult, points: Sequence[Summary]
) -> DriftResult:
    means = [point.mean for point in points]
    if expected.direction == "target":
        losses = [abs(mean - (expected.target or 0.0)) for mean in means]
    else:
        losses = [-mean if expected.direction == "higher" else mean for mean in means]
    rounding = _ROUNDING * max([*map(abs, means), abs(expected.target or 0.0)])
    fitted = trend(losses, [point.n for point in points], rounding)
    start = losses[0]
    allowed = tolerance(expected, Losses((start,), rounding)) or 0.0
    past = exceeds(fitted.decline, allowed, rounding)
    every = f"{len(points) - 1} blessings and the candidate"
    reason = f"{_change(fitted.decline)} over {every}, {_change(fitted.slope)} from one to the next"
    return DriftResult(
        metric=result.metric,
        severity=result.severity,
        verdict=Verdict.FAIL if past else Verdict.PASS,
        reason=f"{reason}; {'past' if past else 'within'} the tolerance of {allowed:.6g}",
        points=len(points),
        slope=fitted.slope,
        decline=fitted.decline,
        allowed=allowed,
        p_value=fitted.p_value,
    )


def _decided(result: DriftResult, p_adjusted: float | None, *, level: float) -> DriftResult:
    """The verdict, once all p-values are known: a FAIL that may be chance is none."""
    result = replace(result, p_adjusted=p_adjusted)
    p_value = result.p_value if p_adjusted is None else p_adjusted
    if result.verdict is not Verdict.FAIL or p_value is None:
        return result
    shown = f"{result.reason}; p = {p_value:.2g}"
    if p_value <= level:
        return replace(result, reason=shown)
    return replace(
        result,
        verdict=Verdict.PASS,
        reason=f"{shown}, which may be chance (significant from {level:.2g} down)",
    )


def _change(loss: float) -> str:
    if loss == 0:
        return "no change"
    return f"{'worse' if loss > 0 else 'better'} by {abs(loss):.4g}"


def _notes(short: Sequence[str], every: int) -> list[str]:
    if not short:
        return []
    which = "the metrics" if len(short) == every else ", ".join(short[:5])
    more = f" and {len(short) - 5} more" if len(short) != every and len(short) > 5 else ""
    note = f"drift of {which}{more} is not judged yet: it takes {MIN_BLESSINGS} blessings"
    return [f"{note} that can be compared with each other"]
