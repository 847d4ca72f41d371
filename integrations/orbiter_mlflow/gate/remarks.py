"""Notes of the report that concern its metrics, and that no single verdict says."""

from collections.abc import Mapping, Sequence
from statistics import median

from orbiter_mlflow.gate.model import MetricResult, Test, Verdict
from orbiter_mlflow.gate.statistics import MIN_RUNS, deviation, to_losses

__all__ = ["metric_notes"]

FAR_GAIN = 6.0
"""Spreads of the baseline by which a gain is too good not to be looked at."""
GAIN_CHANCE = 0.001
"""Chance alone must give such a gain less often than this."""
OUTLIER_CHANCE = 0.005
"""A baseline without an outlier is said to have one less often than this, if values are normal."""
_NAMED = 5


def metric_notes(metrics: Sequence[MetricResult], names: Mapping[str, str]) -> list[str]:
    """The notes, one sentence each.

    Args:
        names: id of a baseline run -> its name.
    """
    # A metric that passes shows no reason, but its user expects a paired test.
    notes = [
        f"{one.metric} is {one.unpaired}"
        for one in metrics
        if one.verdict is Verdict.PASS
        and one.test is not Test.TOLERANCE
        and one.candidate.n >= MIN_RUNS
        and one.unpaired
    ]
    chance = [one.metric for one in metrics if one.by_chance]
    if chance:
        notes.append(
            f"past tolerance, but well within chance, which passes: {_named(chance)}; "
            "on_inconclusive = 'fail' would not let it pass"
        )
    return [*notes, *_tolerance_only(metrics), *_gains(metrics), *_outliers(metrics, names)]


def _tolerance_only(metrics: Sequence[MetricResult]) -> list[str]:
    judged = [
        one
        for one in metrics
        if one.test is Test.TOLERANCE
        and one.severity != "info"
        and one.verdict in (Verdict.PASS, Verdict.FAIL)
        and one.worse_by is not None
    ]
    failed = sum(one.verdict is Verdict.FAIL for one in judged)
    if not failed or len(judged) < 2:
        return []
    note = (
        f"{len(judged)} metrics were judged by their tolerance only, and {failed} failed: "
        "without a test nothing corrects for their number, so that a good build is the likelier to "
        "fail the more there are"
    )
    return [note]


def _gains(metrics: Sequence[MetricResult]) -> list[str]:
    found = []
    for one in metrics:
        spreads = _gain(one)
        if spreads is not None and spreads > FAR_GAIN:
            found.append(
                f"{one.metric} is better by {spreads:.3g} spreads of the baseline's runs: a gain "
                "that large may be a test set that leaked, or a change of the metric"
            )
    return found


def _gain(metric: MetricResult) -> float | None:
    """The gain in spreads of the baseline; None unless it is beyond chance."""
    from orbiter_mlflow.gate.statistics.significance import prediction

    known = metric.baseline.n > 2 and metric.candidate.n > 0
    if not known or metric.worse_by is None or not metric.worse_by < 0:
        return None
    ours, theirs = (
        to_losses([*side.values.values()], metric.direction, metric.target)
        for side in (metric.candidate, metric.baseline)
    )
    unit = max(map(abs, (*ours.values, *theirs.values)))
    ours, theirs = ours.divided(unit), theirs.divided(unit)
    if theirs.constant:
        return None
    chance = prediction([-v for v in ours.ordered], [-v for v in theirs.ordered]).p_value
    return (theirs.mean - ours.mean) / deviation(theirs.values) if chance < GAIN_CHANCE else None


def _outliers(metrics: Sequence[MetricResult], names: Mapping[str, str]) -> list[str]:
    """Baseline runs so far from the others that they widen the spread, which hides regressions."""
    found: dict[str, list[str]] = {}
    for one in metrics:
        run_id = _outlier(one)
        if run_id is not None:
            found.setdefault(run_id, []).append(one.metric)
    return [
        f"the baseline's run {names.get(run_id) or run_id} is far from its others in "
        f"{_named(of)}: it widens the spread, so that regressions stay unseen; if something went "
        "wrong in it, bless the others without it"
        for run_id, of in found.items()
    ]


def _outlier(metric: MetricResult) -> str | None:
    """The run of the baseline that is farthest from its others, if that is beyond chance."""
    from orbiter_mlflow.gate.statistics.significance import prediction

    values = metric.baseline.values
    if len(values) <= MIN_RUNS or metric.worse_by is None:
        return None
    unit = max(map(abs, values.values())) or 1.0
    middle = median(values.values())
    run_id = max(values, key=lambda one: (abs(values[one] - middle), one))
    others = to_losses([v / unit for one, v in values.items() if one != run_id], "lower")
    if others.constant:
        return None
    gap = abs(values[run_id] / unit - others.mean)
    chance = 2 * prediction([others.mean + gap], others.ordered).p_value
    return run_id if chance * len(values) < OUTLIER_CHANCE else None


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
