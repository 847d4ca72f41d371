"""The size of a change: as figures of a result, in words, and its worst run."""

from collections.abc import Sequence
from dataclasses import replace

from orbiter_mlflow.gate.model import GateRun, MetricResult, WorstRun
from orbiter_mlflow.gate.policy import MetricPolicy
from orbiter_mlflow.gate.statistics import Comparison, Losses

__all__ = ["change_words", "with_effect"]


def with_effect(
    result: MetricResult,
    expected: MetricPolicy,
    compared: Comparison,
    sides: tuple[Losses, Losses],
    candidate: Sequence[GateRun],
) -> MetricResult:
    """The result with the change, the worst run and the allowed range."""
    loss, (ours, theirs) = compared.loss, sides
    change = 0.0 - loss if expected.direction == "higher" else loss
    base = abs(theirs.mean)
    p_value = compared.evidence.p_value if compared.evidence and expected.compared else None
    return replace(
        result,
        test=compared.test if expected.compared else result.test,
        change=change,
        change_rel=change / base if base > theirs.rounding else None,
        worse_by=loss,
        p_value=None if p_value is None else float(p_value),
        allowed=_allowed(expected, theirs),
        worst=_worst(result, expected, compared, ours, theirs, candidate),
    )


def _worst(
    result: MetricResult,
    expected: MetricPolicy,
    compared: Comparison,
    ours: Losses,
    theirs: Losses,
    runs: Sequence[GateRun],
) -> WorstRun:
    by_id = dict(zip(result.candidate.values, ours.values, strict=True))
    run_id = max(by_id, key=lambda one: (by_id[one], one))
    worse_by = by_id[run_id] - theirs.mean
    run = next(run for run in runs if run.run_id == run_id)
    return WorstRun(
        run_id,
        _seed(run, expected.paired_by) or run.name or run_id,
        result.candidate.values[run_id],
        worse_by,
        worse_by / compared.spread if compared.spread else None,
    )


def _seed(run: GateRun, paired_by: str | None) -> str:
    """`seed 3`; empty if the run has no param that is its seed."""
    seeds = sorted(key for key in run.params if key.rpartition(".")[2] == "seed")
    key = paired_by.removeprefix("params.") if paired_by else seeds[0] if seeds else ""
    return f"{key.rpartition('.')[2]} {run.params[key]}" if key in run.params else ""


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


def change_words(result: MetricResult) -> str:
    """`: worse by 0.03 (3.7%)`; empty if the metric was not compared."""
    if result.worse_by is None:
        return ""
    if result.worse_by == 0:
        return ": no change"
    word = "worse" if result.worse_by > 0 else "better"
    part = "" if result.change_rel is None else f" ({abs(result.change_rel):.2%})"
    return f": {word} by {abs(result.worse_by):.6g}{part}"
