"""The verdict on one metric: in two steps, as Holm's correction needs all p-values first.

`look` finds all that can be said of the metric alone; `settle` adds what the p-values of the other
metrics make of its own.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto

from orbiter_mlflow.gate import statistics
from orbiter_mlflow.gate.comparability import fields_of
from orbiter_mlflow.gate.model import LARGEST, GateRun, MetricResult, Sample, Test, Verdict
from orbiter_mlflow.gate.policy import MetricPolicy
from orbiter_mlflow.gate.statistics import Comparison, Losses

__all__ = ["UNPAIRED", "Against", "Found", "look", "settle"]

UNPAIRED = "not paired:"
"""So begins what is said where `paired_by` was given, and its values do not match."""

_SLACK = 1e-9
"""Part of a limit by which rounding may pass it: 0.80 - 0.79 is no more than 0.01."""
_MAX_IDS = 5


class Against(Enum):
    """What the candidate can be held against."""

    BASELINE = auto()
    NOTHING_YET = auto()
    """There is no baseline, and the user said so."""
    NOTHING_ALIKE = auto()
    """The baseline is missing, too small, or not to be compared with."""
    UNFINISHED = auto()
    """The candidate itself is not whole: nothing of it can be judged."""


@dataclass(frozen=True, slots=True)
class Found:
    """A metric before it is settled.

    Attributes:
        result: all but the adjusted p-value; its verdict stands unless it is open.
        comparison: None where there was none.
        open: whether it is past tolerance, and its p-value decides.
        asides: what the reason says at its end.
    """

    result: MetricResult
    comparison: Comparison | None = None
    open: bool = False
    asides: tuple[str, ...] = ()

    @property
    def tested(self) -> bool:
        """Whether its p-value is one of those that share alpha."""
        return self.result.p_value is not None and self.result.severity != "info"


def look(
    metric: str,
    wanted: MetricPolicy,
    candidate: Sequence[GateRun],
    baseline: Sequence[GateRun],
    *,
    alpha: float,
    against: Against,
    apart: str = "",
) -> Found:
    """Judge a metric as far as it can be done without the others.

    `apart` says why this one cannot be compared, where the runs as a whole can.
    """
    if apart and against is Against.BASELINE:
        against = Against.NOTHING_ALIKE
    ours, theirs = _sample(metric, candidate), _sample(metric, baseline)
    result = MetricResult(
        metric=metric,
        direction=wanted.direction,
        severity=wanted.severity,
        verdict=Verdict.CANNOT_COMPARE,
        reason="",
        test=Test.BOUNDS,
        candidate=ours,
        baseline=theirs,
        limits=wanted.limits,
        target=wanted.target,
        at=wanted.at,
        allowed=(wanted.min, wanted.max),
    )
    if against is Against.UNFINISHED:
        return Found(replace(result, reason="not judged: the candidate is not whole"))
    broken = _missing(wanted, ours) or _not_finite(ours)
    if broken:
        return Found(replace(result, verdict=Verdict.FAIL, reason=broken))
    compared = None
    if against is Against.BASELINE and theirs.n and not _not_finite(theirs):
        sides = _losses(wanted, ours, candidate), _losses(wanted, theirs, baseline)
        compared = statistics.compare(*sides, alpha=alpha, wanted=wanted.test)
        result = _with_effect(result, wanted, compared, sides[1], alpha)
    outside = _outside(wanted, ours)
    if outside:
        found = replace(result, verdict=Verdict.FAIL, reason=f"{outside}{_change(result)}")
        return Found(found, compared)
    if against is Against.BASELINE and not theirs.n:
        held = "its bounds held" if _bounded(wanted) else "it has no bounds"
        reason = f"no run of the baseline has it: {held}, and nothing else could be judged"
        new = replace(result, verdict=Verdict.NEW, reason=reason)
        return Found(new)
    if not wanted.compared:
        what = "within its bounds" if _bounded(wanted) else "for information, without a limit"
        passed = replace(result, verdict=Verdict.PASS, reason=f"{what}{_change(result)}")
        return Found(passed, compared)
    if against is Against.NOTHING_YET:
        held = "its bounds held" if _bounded(wanted) else "it has no bounds"
        reason = f"not judged: there is no baseline yet; {held}"
        return Found(replace(result, verdict=Verdict.UNJUDGED, reason=reason))
    if against is Against.NOTHING_ALIKE:
        reason = apart or "not compared: see what keeps the runs from it"
        return Found(replace(result, reason=reason))
    if compared is None:
        return Found(replace(result, reason=f"the baseline's {_not_finite(theirs)}"))
    return _against_limits(wanted, result, compared, sides)


def settle(found: Found, p_adjusted: float | None, *, alpha: float, tested: int) -> MetricResult:
    """The verdict, now that all p-values are known.

    Args:
        p_adjusted: after Holm's correction; None where the metric has no part in it.
        tested: how many metrics have.
    """
    result, compared = replace(found.result, p_adjusted=p_adjusted), found.comparison
    p_value = result.p_value if p_adjusted is None else p_adjusted
    if found.open and compared is not None and p_value is not None:
        over = f" over {tested} metrics" if p_adjusted is not None and tested > 1 else ""
        reason = f"{result.reason}; p = {p_value:.2g}{over} by {_ARTICLE[result.test]}"
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
    return replace(result, reason="; ".join([result.reason, *found.asides]))


_ARTICLE = {
    Test.WELCH: f"{Test.WELCH}",
    Test.PAIRED: f"the {Test.PAIRED}",
    Test.PREDICTION: f"the {Test.PREDICTION}",
}


def _advice(seeds: int | None) -> str:
    if seeds is None:
        return f"not even {statistics.MAX_SEEDS} runs on each side would settle it"
    return f"if it is real, about {seeds} runs on each side would settle it"


# -- tolerance -------------------------------------------------------------------------------------


def _against_limits(
    wanted: MetricPolicy,
    result: MetricResult,
    compared: Comparison,
    sides: tuple[Losses, Losses],
) -> Found:
    """Hold the loss against `max_drop` and `max_drop_rel`."""
    asides = _asides(wanted, result, compared)
    if wanted.test == "paired" and not compared.matched:
        reason = (
            f"test = 'paired' needs the same values of {wanted.paired_by} on both sides, each "
            "once: run the same seeds, or take test = 'auto'"
        )
        return Found(replace(result, reason=reason), compared, asides=asides)
    base, noise = abs(sides[1].mean), max(side.rounding for side in sides)
    limits = []
    if wanted.max_drop is not None:
        limits.append((f"max_drop = {wanted.max_drop:.12g}", wanted.max_drop))
    if wanted.max_drop_rel is not None and base > sides[1].rounding:
        limit = wanted.max_drop_rel * base
        limits.append((f"max_drop_rel = {wanted.max_drop_rel:.12g}, here {limit:.6g}", limit))
    elif wanted.max_drop_rel is not None:
        asides = (*asides, "the baseline is 0, of which max_drop_rel is no part")
        if not limits and compared.loss > noise:
            reason = f"worse by {compared.loss:.6g} than 0: add max_drop, an absolute limit"
            return Found(
                replace(result, verdict=Verdict.FAIL, reason=reason), compared, asides=asides
            )
    past = [name for name, limit in limits if compared.loss > limit * (1 + _SLACK) + noise]
    if not past:
        reason = f"within tolerance{_change(result)}"
        return Found(replace(result, verdict=Verdict.PASS, reason=reason), compared, asides=asides)
    reason = f"{_change(result).removeprefix(': ')}, past {' and '.join(past)}"
    # Not inconclusive, which may pass: one seed alone would get every change through.
    verdict = Verdict.CANNOT_COMPARE if compared.too_few else Verdict.FAIL
    return Found(
        replace(result, verdict=verdict, reason=reason),
        compared,
        open=compared.p_value is not None,
        asides=asides,
    )


def _asides(wanted: MetricPolicy, result: MetricResult, compared: Comparison) -> tuple[str, ...]:
    """What a reader must know of how a metric was compared."""
    found = []
    if compared.test is Test.EXACT:
        found.append("there is no spread to test against: the values were compared as they are")
    elif compared.too_few:
        found.append(
            f"test = {wanted.test!r} needs {compared.too_few} runs on each side, but there are "
            f"{result.candidate.n} and {result.baseline.n}: run more, or take test = 'auto'"
        )
    elif wanted.test == "none":
        found.append("tolerance only, as test = 'none' asks")
    elif compared.test is Test.TOLERANCE and wanted.test == "auto":
        found.append(
            f"tolerance only, as it is {result.candidate.n} against {result.baseline.n} runs: "
            f"{statistics.MIN_RUNS} on each side, or {statistics.MIN_SPREAD_RUNS} on one, permit a "
            "test"
        )
    if wanted.paired_by is not None and wanted.test == "auto" and not compared.matched:
        found.append(f"{UNPAIRED} the values of {wanted.paired_by} are not the same, each once")
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


def _missing(wanted: MetricPolicy, ours: Sample) -> str:
    if not ours.missing:
        return ""
    where = f" at step {wanted.at.removeprefix('step=')}" if wanted.at.startswith("step=") else ""
    return (
        f"{len(ours.missing)} of {ours.n + len(ours.missing)} candidate runs have no value of it"
        f"{where}: {_ids(ours.missing)}"
    )


def _not_finite(sample: Sample) -> str:
    """What is wrong with the values, and where; empty where all are finite."""
    wrong = {key: v for key, v in sample.values.items() if not abs(v) < LARGEST}
    if not wrong:
        return ""
    kinds = sorted({"NaN" if math.isnan(v) else "-inf" if v < 0 else "inf" for v in wrong.values()})
    return f"value is {' or '.join(kinds)} in {len(wrong)} of {sample.n} runs: {_ids([*wrong])}"


def _ids(run_ids: Sequence[str]) -> str:
    more = f" and {len(run_ids) - _MAX_IDS} more" if len(run_ids) > _MAX_IDS else ""
    return ", ".join(run_ids[:_MAX_IDS]) + more


def _bounded(wanted: MetricPolicy) -> bool:
    return wanted.min is not None or wanted.max is not None


def _outside(wanted: MetricPolicy, ours: Sample) -> str:
    """Which bound the candidate's mean is beyond."""
    mean = statistics.mean_of([*ours.values.values()])
    of = f"mean {mean:.6g} of {ours.n} runs" if ours.n > 1 else f"{mean:.6g}"
    if wanted.min is not None and mean < wanted.min - _SLACK * abs(wanted.min):
        return f"{of} is below min = {wanted.min:.12g}"
    if wanted.max is not None and mean > wanted.max + _SLACK * abs(wanted.max):
        return f"{of} is above max = {wanted.max:.12g}"
    return ""


def _losses(wanted: MetricPolicy, sample: Sample, runs: Sequence[GateRun]) -> Losses:
    pairs = None
    if wanted.paired_by is not None:
        by_run = {run.run_id: fields_of(run).get(wanted.paired_by) for run in runs}
        known = [by_run[key] for key in sample.values]
        pairs = [value for value in known if value is not None]
        pairs = pairs if len(pairs) == len(known) else None
    return statistics.losses([*sample.values.values()], wanted.direction, wanted.target, pairs)


# -- the change ------------------------------------------------------------------------------------


def _with_effect(
    result: MetricResult, wanted: MetricPolicy, compared: Comparison, theirs: Losses, alpha: float
) -> MetricResult:
    loss, margin = compared.loss, compared.margin
    change = 0.0 - loss if wanted.direction == "higher" else loss
    base = abs(theirs.mean)
    return replace(
        result,
        test=compared.test if wanted.compared else result.test,
        change=change,
        change_rel=change / base if base > theirs.rounding else None,
        worse_by=loss,
        interval=None if margin is None else (change - margin, change + margin),
        confidence=None if margin is None else 1 - alpha,
        p_value=compared.p_value if wanted.compared else None,
        allowed=_allowed(wanted, theirs),
    )


def _allowed(wanted: MetricPolicy, theirs: Losses) -> tuple[float | None, float | None]:
    """The least and the most that all limits allow."""
    drops = [] if wanted.max_drop is None else [wanted.max_drop]
    if wanted.max_drop_rel is not None and abs(theirs.mean) > theirs.rounding:
        drops.append(wanted.max_drop_rel * abs(theirs.mean))
    lows, highs = [wanted.min], [wanted.max]
    if drops:
        worst = theirs.mean + min(drops)
        if wanted.direction == "higher":
            lows.append(-worst)
        elif wanted.direction == "lower":
            highs.append(worst)
        elif wanted.target is not None:
            lows.append(wanted.target - worst)
            highs.append(wanted.target + worst)
    return (
        max((low for low in lows if low is not None), default=None),
        min((high for high in highs if high is not None), default=None),
    )


def _change(result: MetricResult) -> str:
    """`: worse by 0.03 (3.7%)`, or nothing where nothing was compared."""
    if result.worse_by is None:
        return ""
    if result.worse_by == 0:
        return ": no change"
    word = "worse" if result.worse_by > 0 else "better"
    part = "" if result.change_rel is None else f" ({abs(result.change_rel):.2%})"
    return f": {word} by {abs(result.worse_by):.6g}{part}"
