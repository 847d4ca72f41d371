"""The verdict on one metric, in two steps, as the correction for several needs all p-values first.

`assess` does everything that needs this metric alone; `decide` adds the adjusted p-value.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from enum import Enum, auto

from orbiter_mlflow.gate import statistics
from orbiter_mlflow.gate.comparability import param_of, shown_ids, unusable_values
from orbiter_mlflow.gate.effect import change_words, with_effect
from orbiter_mlflow.gate.limits import SLACK
from orbiter_mlflow.gate.model import Bound, GateRun, MetricResult, Sample, Test, Verdict
from orbiter_mlflow.gate.policy import MetricPolicy
from orbiter_mlflow.gate.statistics import Comparison, Corrected, Losses
from orbiter_mlflow.gate.tolerance import Assessment, against_limits

__all__ = ["BaselineStatus", "assess", "decide"]

WIDENED = 2.0
"""From this many times the baseline's spread on, the candidate's is mentioned."""
_BATCHES_SHOWN = 5


class BaselineStatus(Enum):
    """Whether there is something to compare the candidate with."""

    USABLE = auto()
    NOT_YET = auto()
    """There is no baseline, and the user passed `--bootstrap`."""
    NOT_COMPARABLE = auto()
    """The baseline is missing, too small, or differs in a field that must be equal."""
    CANDIDATE_INCOMPLETE = auto()
    """The candidate itself is incomplete: nothing is judged."""


def assess(
    metric: str,
    expected: MetricPolicy,
    candidate: Sequence[GateRun],
    baseline: Sequence[GateRun],
    *,
    alpha: float,
    status: BaselineStatus,
    obstacle: str = "",
) -> Assessment:
    """Judge a metric as far as that is possible without the others.

    Args:
        obstacle: why this metric cannot be compared although the runs can; empty if it can.
    """
    if obstacle and status is BaselineStatus.USABLE:
        status = BaselineStatus.NOT_COMPARABLE
    ours, theirs = _sample(metric, candidate), _sample(metric, baseline)
    result = MetricResult(
        metric=metric,
        direction=expected.direction,
        severity=expected.severity,
        verdict=Verdict.CANNOT_COMPARE,
        reason="",
        test=Test.BOUNDS,
        candidate=ours,
        baseline=theirs,
        limits=expected.limits,
        target=expected.target,
        at=expected.at,
        allowed=(expected.min, expected.max),
    )
    if status is BaselineStatus.CANDIDATE_INCOMPLETE:
        return Assessment(replace(result, reason="not judged: the candidate is incomplete"))
    broken = _missing(expected, ours) or unusable_values(ours)
    if broken:
        return Assessment(replace(result, verdict=Verdict.FAIL, reason=broken))
    compared = None
    if status is BaselineStatus.USABLE and theirs.n and not unusable_values(theirs):
        sides = _losses(expected, ours, candidate), _losses(expected, theirs, baseline)
        if expected.compared and statistics.batches_conflict(sides[1]):
            status, obstacle = BaselineStatus.NOT_COMPARABLE, _conflict(theirs, baseline)
        else:
            compared = statistics.compare(*sides, alpha=alpha, requested=expected.test)
            result = with_effect(result, expected, compared, sides, candidate)
    outside = _outside(expected, ours)
    if outside:
        against = change_words(result).removeprefix(": ")
        reason = f"{outside}; against the baseline: {against}" if against else outside
        return Assessment(replace(result, verdict=Verdict.FAIL, reason=reason), compared)
    bounds = "it is within its bounds" if _bounded(expected) else "it has no bounds"
    if status is BaselineStatus.USABLE and not theirs.n:
        reason = f"no run of the baseline has it: {bounds}, and nothing else could be judged"
        return Assessment(replace(result, verdict=Verdict.NEW, reason=reason))
    if not expected.compared:
        what = "within its bounds" if _bounded(expected) else "for information, without a limit"
        passed = replace(result, verdict=Verdict.PASS, reason=f"{what}{change_words(result)}")
        return Assessment(passed, compared)
    if status is BaselineStatus.NOT_YET:
        reason = f"not judged: {obstacle or 'there is no baseline yet'}; {bounds}"
        return Assessment(replace(result, verdict=Verdict.UNJUDGED, reason=reason))
    if status is BaselineStatus.NOT_COMPARABLE:
        reason = obstacle or "not compared: the problems of the whole report say why"
        return Assessment(replace(result, reason=reason))
    if compared is None:
        return Assessment(replace(result, reason=f"the baseline's {unusable_values(theirs)}"))
    return against_limits(expected, result, compared, sides, alpha=alpha)


def decide(
    assessment: Assessment,
    corrected: Corrected | None,
    *,
    alpha: float,
    tested: int,
    quiet: bool,
) -> MetricResult:
    """The final result, once all p-values are known.

    Args:
        corrected: None if the metric has no part in the correction.
        tested: number of metrics that have.
        quiet: whether a metric past tolerance passes if that is well within chance.
    """
    result, compared = assessment.result, assessment.comparison
    remarks = assessment.remarks
    if compared is not None and compared.evidence is not None and result.p_value is not None:
        against = corrected or Corrected(result.p_value, alpha)
        significant = against.p_value <= alpha
        result = replace(
            result,
            p_adjusted=None if corrected is None else against.p_value,
            bound=_at_least(compared, against.level, significant=significant),
        )
        if assessment.open:
            result = _by_p_value(result, compared, against, alpha=alpha, tested=tested, quiet=quiet)
            remarks = (*_assumptions(compared), *remarks)
    return replace(result, reason="; ".join([result.reason, *remarks]))


def _at_least(compared: Comparison, level: float, *, significant: bool) -> Bound | None:
    if compared.evidence is None:
        return None
    value = float(compared.evidence.at_least(level))
    # Rounding must not set figure and verdict against each other.
    value = max(0.0, value) if significant else min(0.0, value)
    return Bound("at least", value, 1 - level) if math.isfinite(value) else None


def _by_p_value(
    result: MetricResult,
    compared: Comparison,
    against: Corrected,
    *,
    alpha: float,
    tested: int,
    quiet: bool,
) -> MetricResult:
    """The verdict on a metric past tolerance."""
    over = f" over {tested} metrics" if result.p_adjusted is not None and tested > 1 else ""
    found = f"p = {against.p_value:.2g}{over} by {result.test.with_article}"
    reason = f"{result.reason}; {found}"
    if against.p_value <= alpha:
        return replace(result, verdict=Verdict.FAIL, reason=reason)
    m, n = result.candidate.n, result.baseline.n
    if result.test is Test.PERMUTATION and statistics.orders(m, n) * alpha < max(1, tested):
        needed = statistics.orders_needed(m, n, alpha / tested)
        return replace(result, verdict=Verdict.CANNOT_COMPARE, reason=f"{result.reason}; {needed}")
    if quiet and statistics.well_within_chance(against.p_value, alpha):
        reason = f"{result.reason}, but well within chance: {found}"
        return replace(result, verdict=Verdict.PASS, reason=reason, by_chance=True)
    level = alpha / max(1, tested * len(compared.plans))
    settled = [statistics.seeds_needed(compared.loss, plan, level) for plan in compared.plans]
    seeds = min((one for one in settled if one is not None), default=None)
    return replace(
        result,
        verdict=Verdict.INCONCLUSIVE,
        reason=f"{reason}, which may be chance: {_advice(result.test, seeds)}",
        seeds_needed=seeds,
    )


def _advice(test: Test, seeds: int | None) -> str:
    if test is Test.BATCHES:
        return "more batches in the baseline, or only the newest, would settle it"
    if seeds is None:
        return f"not even {statistics.MAX_SEEDS} runs on each side would settle it"
    return f"if it is real, about {seeds} runs on each side would settle it"


def _assumptions(compared: Comparison) -> tuple[str, ...]:
    """What a test takes for granted, where it may be wrong."""
    by_baseline = compared.test in (Test.PREDICTION, Test.COMBINED, Test.BATCHES)
    if not by_baseline or compared.widened is None or compared.widened <= WIDENED:
        return ()
    return (
        (
            f"the candidate's runs spread {compared.widened:.3g} times as wide as the baseline's, "
            "which counts against it: look at its worst run"
        ),
    )


def _conflict(sample: Sample, runs: Sequence[GateRun]) -> str:
    """Why the batches of a baseline are no one baseline."""
    by_batch: dict[str, list[float]] = {}
    for run in runs:
        if run.run_id in sample.values:
            by_batch.setdefault(run.batch, []).append(sample.values[run.run_id])
    shown = [
        f"{batch or 'no batch'} {statistics.mean_of(values):.6g} (n = {len(values)})"
        for batch, values in [*by_batch.items()][:_BATCHES_SHOWN]
    ]
    more = ", ..." if len(by_batch) > _BATCHES_SHOWN else ""
    return (
        "the batches of the baseline differ by far more than their runs' spread: "
        f"{', '.join(shown)}{more}: compare with one of them (baseline.pool = 1)"
    )


# -- one side --------------------------------------------------------------------------------------


def _sample(metric: str, runs: Sequence[GateRun]) -> Sample:
    return Sample(
        {run.run_id: run.metrics[metric] for run in runs if metric in run.metrics},
        tuple(run.run_id for run in runs if metric not in run.metrics),
    )


def _missing(expected: MetricPolicy, sample: Sample) -> str:
    if not sample.missing:
        return ""
    at = expected.at
    where = f" at step {at.removeprefix('step=')}" if at.startswith("step=") else ""
    return (
        f"{len(sample.missing)} of {sample.n + len(sample.missing)} candidate runs have no value "
        f"of it{where}: {shown_ids(sample.missing)}"
    )


def _bounded(expected: MetricPolicy) -> bool:
    return expected.min is not None or expected.max is not None


def _outside(expected: MetricPolicy, sample: Sample) -> str:
    """The bound that the candidate's mean violates; empty if none."""
    mean = statistics.mean_of([*sample.values.values()])
    shown = f"mean {mean:.6g} of {sample.n} runs" if sample.n > 1 else f"{mean:.6g}"
    if expected.min is not None and mean < expected.min - SLACK * abs(expected.min):
        return f"{shown} is below min = {expected.min:.12g}"
    if expected.max is not None and mean > expected.max + SLACK * abs(expected.max):
        return f"{shown} is above max = {expected.max:.12g}"
    return ""


def _losses(expected: MetricPolicy, sample: Sample, runs: Sequence[GateRun]) -> Losses:
    pairs = None
    if expected.paired_by is not None:
        by_run = {run.run_id: param_of(run, expected.paired_by) for run in runs}
        known = [by_run[run_id] for run_id in sample.values]
        pairs = [value for value in known if value is not None]
        pairs = pairs if len(pairs) == len(known) else None
    values = [*sample.values.values()]
    batch_of = {run.run_id: run.batch for run in runs}
    batches = [batch_of[run_id] for run_id in sample.values]
    return statistics.to_losses(values, expected.direction, expected.target, pairs, batches)
