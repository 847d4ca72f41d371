"""How many evaluations are behind a metric's best value: the best of more is better by chance."""

from collections.abc import Sequence
from statistics import fmean

from orbiter_mlflow.gate.model import GateRun, MetricResult

__all__ = ["uneven"]

FACTOR = 1.5
"""A side with this many times the evaluations of the other has an advantage that is reported. The
best of 15 values is expected 0.2 standard deviations above the best of 10."""


def uneven(
    metrics: Sequence[MetricResult], candidate: Sequence[GateRun], baseline: Sequence[GateRun]
) -> list[str]:
    """A note for each metric whose best value is of many more evaluations on one side."""
    return [
        note
        for one in metrics
        if one.at == "best" and (note := _note(one.metric, candidate, baseline))
    ]


def _note(metric: str, candidate: Sequence[GateRun], baseline: Sequence[GateRun]) -> str:
    ours, theirs = _per_run(metric, candidate), _per_run(metric, baseline)
    if not ours or not theirs or max(ours, theirs) < FACTOR * min(ours, theirs):
        return ""
    more = "candidate" if ours > theirs else "baseline"
    return (
        f"{metric} is the best of {ours:.6g} evaluations a run in the candidate, and of "
        f"{theirs:.6g} in the baseline: chance favours the {more}, so evaluate equally often, or "
        'set at = "last"'
    )


def _per_run(metric: str, runs: Sequence[GateRun]) -> float:
    """Evaluations a run, on average; 0 if none is known."""
    known = [run.evaluations[metric] for run in runs if metric in run.evaluations]
    return fmean(known) if known else 0.0
