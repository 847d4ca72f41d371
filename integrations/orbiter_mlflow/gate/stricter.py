"""The stricter of two reports: one by the policy here, one by the policy at a git ref. Pure.

A change that loosens its own policy is judged by both, and for each metric and for the whole the
stricter result counts.
"""

from collections.abc import Sequence
from dataclasses import replace
from difflib import unified_diff
from typing import TypeVar

from orbiter_mlflow.gate.approvals import result_name
from orbiter_mlflow.gate.examples.model import ExamplesResult
from orbiter_mlflow.gate.model import DriftResult, GateReport, MetricResult, Outcome, Verdict
from orbiter_mlflow.text.shortening import shortened

__all__ = ["policy_diff", "stricter", "with_problem"]

_Result = TypeVar("_Result", MetricResult, ExamplesResult, DriftResult)

MAX_DIFF_LINES = 400
_MAX_LINE = 300

_OUTCOMES = [
    Outcome.PASS,
    Outcome.WARN,
    Outcome.INCONCLUSIVE,
    Outcome.CANNOT_COMPARE,
    Outcome.REGRESSION,
]
"""From the mildest to the strictest."""
_VERDICTS = [
    Verdict.PASS,
    Verdict.NEW,
    Verdict.UNJUDGED,
    Verdict.ACCEPTED,
    Verdict.INCONCLUSIVE,
    Verdict.CANNOT_COMPARE,
    Verdict.FAIL,
]


def stricter(here: GateReport, there: GateReport, ref: str) -> GateReport:
    """One report of two: the stricter result of all that is judged, and the stricter outcome.

    Args:
        here: by the policy here, which describes the report.
        there: by the policy at the ref; what it alone judges is added.
        ref: the ref, for people.
    """
    metrics = _merged(here.metrics, there.metrics, ref, "has this metric")
    examples = _merged(here.examples, there.examples, ref, "compares these")
    drift = _merged(here.drift, there.drift, ref, "judges drift")
    every: list[MetricResult | ExamplesResult | DriftResult] = [*metrics, *examples, *drift]
    failed = {result_name(one) for one in every if one.verdict is Verdict.FAIL}
    approvals = [
        replace(one, status="overruled")
        if one.metric in failed and one.status != "expired"
        else one
        for one in here.approvals
    ]
    problems = [one for one in there.problems if one not in here.problems]
    runs = {run.run_id: run for run in (*there.baseline, *here.baseline)}
    candidates = {run.run_id: run for run in (*there.candidate, *here.candidate)}
    left_out = {run.run_id: run for run in (*there.left_out, *here.left_out)}
    differences = {one.field: one for one in (*there.differences, *here.differences)}
    notes = [one for one in there.notes if one not in here.notes]
    if there.source.described != here.source.described:
        notes.append(
            f"the policy at {ref} compares with another baseline: {there.source.described}"
        )
    return replace(
        here,
        outcome=max(here.outcome, there.outcome, key=_OUTCOMES.index),
        metrics=metrics,
        examples=examples,
        drift=drift,
        approvals=tuple(approvals),
        candidate=tuple(candidates.values()),
        baseline=tuple(runs.values()),
        problems=(*here.problems, *(f"by the policy at {ref}: {one}" for one in problems)),
        notes=(*here.notes, *notes),
        left_out=tuple(one for run_id, one in left_out.items() if run_id not in runs),
        differences=tuple(differences.values()),
        bootstrap=here.bootstrap or there.bootstrap,
    )


def _merged(
    here: Sequence[_Result], there: Sequence[_Result], ref: str, alone: str
) -> tuple[_Result, ...]:
    """The stricter result of each, and those that only the policy at the ref has."""
    others: dict[str, _Result] = {result_name(one): one for one in there}
    found: list[_Result] = [_of_two(one, others.pop(result_name(one), None), ref) for one in here]
    found += [_by(one, f"only the policy at {ref} {alone}") for one in others.values()]
    return tuple(found)


def _of_two(here: _Result, there: _Result | None, ref: str) -> _Result:
    if there is None or _strictness(there) <= _strictness(here):
        return here
    return _by(
        there, f"the policy at {ref} decides; by the one here, the verdict is {here.verdict.value}"
    )


def _by(result: _Result, remark: str) -> _Result:
    return replace(result, reason=f"{result.reason}; {remark}")


def _strictness(result: MetricResult | ExamplesResult | DriftResult) -> tuple[int, int]:
    """What a result does to a build, and then how bad it looks."""
    rank, alarm = _VERDICTS.index(result.verdict), _VERDICTS.index(Verdict.INCONCLUSIVE)
    if result.severity == "fail" and rank >= alarm:
        return rank, rank
    return int(rank > 0 and result.severity != "info"), rank


def with_problem(report: GateReport, problem: str) -> GateReport:
    """The report with one more problem, so that it cannot pass."""
    return replace(
        report,
        outcome=max(report.outcome, Outcome.CANNOT_COMPARE, key=_OUTCOMES.index),
        problems=(*report.problems, problem),
    )


def policy_diff(there: str, here: str, ref: str) -> tuple[str, ...]:
    """How the policy differs, as the lines of a unified diff; empty if only line ends differ.

    Long lines and long diffs are cut, and say so.
    """
    compared = unified_diff(
        there.splitlines(), here.splitlines(), f"policy at {ref}", "policy here", lineterm="", n=2
    )
    lines = [shortened(line, _MAX_LINE) for line in compared]
    if len(lines) > MAX_DIFF_LINES:
        more = len(lines) - MAX_DIFF_LINES
        lines[MAX_DIFF_LINES:] = [f"... and {more} more lines"]
    return tuple(lines)
