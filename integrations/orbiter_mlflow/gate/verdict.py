"""The verdict on one metric, in two steps, because Holm's correction needs all p-values first.

`assess` does everything that needs this metric alone; `decide` adds the adjusted p-value.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto

from orbiter_mlflow.gate import statistics
from orbiter_mlflow.gate.comparability import fields_of, shown_ids, unusable_values
from orbiter_mlflow.gate.model import GateRun, MetricResult, Sample, Test, Verdict
from orbiter_mlflow.gate.policy import MetricPolicy
from orbiter_mlflow.gate.statistics import Comparison, Losses

__all__ = ["UNPAIRED", "Assessment", "BaselineStatus", "assess", "decide"]

UNPAIRED = "not paired:"
"""Starts the remark that `paired_by` is set, but its values do not match."""

_SLACK = 1e-9
"""Fraction of a limit that rounding may exceed it by: 0.80 - 0.79 is not more than 0.01."""


class BaselineStatus(Enum):
    """Whether there is something to compare the candidate with."""

    USABLE = auto()
    NOT_YET = auto()
    """There is no baseline, and the user passed `--bootstrap`."""
    NOT_COMPARABLE = auto()
    """The baseline is missing, too small, or differs in a field that must be equal."""
    CANDIDATE_INCOMPLETE = auto()
    """The candidate itself is incomplete: nothing is judged."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """A metric before `decide`.

    Attributes:
        result: everything but the adjusted p-value; the verdict is final unless `open`.
        comparison: None if the metric was not compared.
        open: whether the metric is past tolerance, so that its p-value decides.
        remarks: texts that `decide` appends to the reason.
    """

    result: MetricResult
    comparison: Comparison | None = None
    open: bool = False
    remarks: tuple[str, ...] = ()

    @property
    def tested(self) -> bool:
        """Whether its p-value is one of those that share alpha."""
        return self.result.p_value is not None and self.result.severity != "info"


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
        compared = statistics.compare(*sides, alpha=alpha, requested=expected.test)
        result = _with_effect(result, expected, compared, sides[1], alpha)
    outside = _outside(expected, ours)
    if outside:
        reason = f"{outside}{_change(result)}"
        return Assessment(replace(result, verdict=Verdict.FAIL, reason=reason), compared)
    bounds = "it is within its bounds" if _bounded(expected) else "it has no bounds"
    if status is BaselineStatus.USABLE and not theirs.n:
        reason = f"no run of the baseline has it: {bounds}, and nothing else could be judged"
        return Assessment(replace(result, verdict=Verdict.NEW, reason=reason))
    if not expected.compared:
        what = "within its bounds" if _bounded(expected) else "for information, without a limit"
        passed = replace(result, verdict=Verdict.PASS, reason=f"{what}{_change(result)}")
        return Assessment(passed, compared)
    if status is BaselineStatus.NOT_YET:
        reason = f"not judged: there is no baseline yet; {bounds}"
        return Assessment(replace(result, verdict=Verdict.UNJUDGED, reason=reason))
    if status is BaselineStatus.NOT_COMPARABLE:
        reason = obstacle or "not compared: the problems of the whole report say why"
        return Assessment(replace(result, reason=reason))
    if compared is None:
        return Assessment(replace(result, reason=f"the baseline's {unusable_values(theirs)}"))
    return _against_limits(expected, result, compared, sides)


def decide(
    assessment: Assessment, p_adjusted: float | None, *, alpha: float, tested: int
) -> MetricResult:
    """The final result, once all p-values are known.

    Args:
        p_adjusted: after Holm's correction; None if the metric does not take part in it.
        tested: number of metrics that take part.
    """
    result, compared = replace(assessment.result, p_adjusted=p_adjusted), assessment.comparison
    p_value = result.p_value if p_adjusted is None else p_adjusted
    if assessment.open and compared is not None and p_value is not None:
        over = f" over {tested} metrics" if p_adjusted is not None and tested > 1 else ""
        reason = f"{result.reason}; p = {p_value:.2g}{over} by {result.test.with_article}"
        if p_value <= alpha:
            result = replace(result, verdict=Verdict.FAIL, reason=reason)
        else:
            seeds = statistics.seeds_needed(compared, alpha / max(1, tested))
            result = replace(
                result,
                verdict=Verdict.INCONCLUSIVE,
                reason=f"{reason}, which may be chance: {_advice(seeds)}",
                seeds_needed=seeds,
            )
    return replace(result, reason="; ".join([result.reason, *assessment.remarks]))


def _advice(seeds: int | None) -> str:
    if seeds is None:
        return f"not even {statistics.MAX_SEEDS} runs on each side would settle it"
    return f"if it is real, about {seeds} runs on each side would settle it"


# -- tolerance -------------------------------------------------------------------------------------


def _against_limits(
    expected: MetricPolicy,
    result: MetricResult,
    compared: Comparison,
    sides: tuple[Losses, Losses],
) -> Assessment:
    """Check the loss against `max_drop` and `max_drop_rel`."""
    remarks = _remarks(expected, result, compared)
    if expected.test == "paired" and not compared.matched:
        reason = (
            f"test = 'paired' needs the same values of {expected.paired_by} on both sides, each "
            "once: run the same seeds, or set test = 'auto'"
        )
        return Assessment(replace(result, reason=reason), compared, remarks=remarks)
    base, noise = abs(sides[1].mean), max(side.rounding for side in sides)
    limits = []
    if expected.max_drop is not None:
        limits.append((f"max_drop = {expected.max_drop:.12g}", expected.max_drop))
    if expected.max_drop_rel is not None and base > sides[1].rounding:
        limit = expected.max_drop_rel * base
        limits.append((f"max_drop_rel = {expected.max_drop_rel:.12g}, here {limit:.6g}", limit))
    elif expected.max_drop_rel is not None:
        remarks = (*remarks, "max_drop_rel has no meaning for a baseline of 0")
        if not limits and compared.loss > noise:
            reason = f"worse by {compared.loss:.6g} than 0: add max_drop, an absolute limit"
            failed = replace(result, verdict=Verdict.FAIL, reason=reason)
            return Assessment(failed, compared, remarks=remarks)
    past = [name for name, limit in limits if compared.loss > limit * (1 + _SLACK) + noise]
    if not past:
        passed = replace(result, verdict=Verdict.PASS, reason=f"within tolerance{_change(result)}")
        return Assessment(passed, compared, remarks=remarks)
    reason = f"{_change(result).removeprefix(': ')}, past {' and '.join(past)}"
    # Not inconclusive, which may pass: one seed alone would get every change through.
    verdict = Verdict.CANNOT_COMPARE if compared.runs_required else Verdict.FAIL
    return Assessment(
        replace(result, verdict=verdict, reason=reason),
        compared,
        open=compared.p_value is not None,
        remarks=remarks,
    )


def _remarks(expected: MetricPolicy, result: MetricResult, compared: Comparison) -> tuple[str, ...]:
    """Remarks on how a metric was compared."""
    found = []
    if compared.test is Test.EXACT:
        found.append("there is no spread to test, so the values were compared exactly")
    elif compared.runs_required:
        found.append(
            f"test = {expected.test!r} needs {compared.runs_required} runs on each side, but there "
            f"are {result.candidate.n} and {result.baseline.n}: add runs, or set test = 'auto'"
        )
    elif expected.test == "none":
        found.append("tolerance only, because test = 'none'")
    elif compared.test is Test.TOLERANCE and expected.test == "auto":
        found.append(
            f"tolerance only, because {result.candidate.n} against {result.baseline.n} runs are "
            f"too few for a test: it takes {statistics.MIN_RUNS} on each side, or "
            f"{statistics.MIN_SPREAD_RUNS} on one"
        )
    if expected.paired_by is not None and expected.test == "auto" and not compared.matched:
        found.append(
            f"{UNPAIRED} the values of {expected.paired_by} differ between the sides, or repeat"
        )
    if result.baseline.missing:
        count, n = len(result.baseline.missing), len(result.baseline.missing) + result.baseline.n
        found.append(f"{count} of {n} baseline runs lack it and do not count")
    return tuple(found)


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
    if expected.min is not None and mean < expected.min - _SLACK * abs(expected.min):
        return f"{shown} is below min = {expected.min:.12g}"
    if expected.max is not None and mean > expected.max + _SLACK * abs(expected.max):
        return f"{shown} is above max = {expected.max:.12g}"
    return ""


def _losses(expected: MetricPolicy, sample: Sample, runs: Sequence[GateRun]) -> Losses:
    pairs = None
    if expected.paired_by is not None:
        by_run = {run.run_id: fields_of(run).get(expected.paired_by) for run in runs}
        known = [by_run[run_id] for run_id in sample.values]
        pairs = [value for value in known if value is not None]
        pairs = pairs if len(pairs) == len(known) else None
    values = [*sample.values.values()]
    return statistics.to_losses(values, expected.direction, expected.target, pairs)


# -- the change ------------------------------------------------------------------------------------


def _with_effect(
    result: MetricResult,
    expected: MetricPolicy,
    compared: Comparison,
    baseline: Losses,
    alpha: float,
) -> MetricResult:
    loss, margin = compared.loss, compared.margin
    change = 0.0 - loss if expected.direction == "higher" else loss
    base = abs(baseline.mean)
    return replace(
        result,
        test=compared.test if expected.compared else result.test,
        change=change,
        change_rel=change / base if base > baseline.rounding else None,
        worse_by=loss,
        interval=None if margin is None else (change - margin, change + margin),
        confidence=None if margin is None else 1 - alpha,
        p_value=compared.p_value if expected.compared else None,
        allowed=_allowed(expected, baseline),
    )


def _allowed(expected: MetricPolicy, baseline: Losses) -> tuple[float | None, float | None]:
    """The lowest and the highest mean of the candidate that all limits allow."""
    drops = [] if expected.max_drop is None else [expected.max_drop]
    if expected.max_drop_rel is not None and abs(baseline.mean) > baseline.rounding:
        drops.append(expected.max_drop_rel * abs(baseline.mean))
    lows, highs = [expected.min], [expected.max]
    if drops:
        worst = baseline.mean + min(drops)
        if expected.direction == "higher":
            lows.append(-worst)
        elif expected.direction == "lower":
            highs.append(worst)
        elif expected.target is not None:
            lows.append(expected.target - worst)
            highs.append(expected.target + worst)
    return (
        max((low for low in lows if low is not None), default=None),
        min((high for high in highs if high is not None), default=None),
    )


def _change(result: MetricResult) -> str:
    """`: worse by 0.03 (3.7%)`; empty if the metric was not compared."""
    if result.worse_by is None:
        return ""
    if result.worse_by == 0:
        return ": no change"
    word = "worse" if result.worse_by > 0 else "better"
    part = "" if result.change_rel is None else f" ({abs(result.change_rel):.2%})"
    return f": {word} by {abs(result.worse_by):.6g}{part}"
