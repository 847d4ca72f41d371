"""Approvals: apply the policy's `[[accept]]` to the verdicts of a day. Pure."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from typing import TypeVar

from orbiter_mlflow.gate.comparability import unusable_values
from orbiter_mlflow.gate.examples.model import ExamplesResult
from orbiter_mlflow.gate.model import Approval, DriftResult, MetricResult, Verdict
from orbiter_mlflow.gate.policy import Acceptance, Policy

__all__ = ["apply_approvals", "approvals_of", "result_name"]


_Result = TypeVar("_Result", MetricResult, ExamplesResult, DriftResult)


def apply_approvals(policy: Policy, results: Sequence[_Result], today: date) -> list[_Result]:
    """Turn regressions that are accepted today into the verdict `accepted`.

    Covers a value beyond a bound or past tolerance, also one that is inconclusive if the policy
    makes that a failure; never a metric that is missing, not finite or cannot be compared.

    Args:
        results: of metrics, their drift, or comparisons example by example, accepted by name.
        today: the present day in UTC; an approval counts until the end of its last day.
    """
    covered = {Verdict.FAIL}
    if policy.gate.on_inconclusive == "fail":
        covered.add(Verdict.INCONCLUSIVE)
    in_force = _in_force(policy.accept, today)
    found = []
    for result in results:
        accepted = in_force.get(result_name(result))
        if accepted is None or result.verdict not in covered or _unmeasured(result):
            found.append(result)
            continue
        reason = (
            f"{result.reason}; accepted until {accepted.until} by {accepted.by}: {accepted.reason}"
        )
        found.append(replace(result, verdict=Verdict.ACCEPTED, reason=reason))
    return found


def approvals_of(
    policy: Policy, results: Sequence[MetricResult | ExamplesResult | DriftResult], today: date
) -> tuple[Approval, ...]:
    """All approvals of the policy, with what became of each."""
    used = {result_name(one) for one in results if one.verdict is Verdict.ACCEPTED}
    in_force = _in_force(policy.accept, today)
    approvals = []
    for one in policy.accept:
        approval = Approval(one.metric, one.until.isoformat(), one.reason, one.by, "unused")
        if one.until < today:
            approval = replace(approval, status="expired")
        elif one is in_force[one.metric] and one.metric in used:
            approval = replace(approval, status="used")
        approvals.append(approval)
    return tuple(approvals)


def result_name(result: MetricResult | ExamplesResult | DriftResult) -> str:
    """The metric, or the name of a comparison example by example."""
    return result.name if isinstance(result, ExamplesResult) else result.metric


def _in_force(accept: Sequence[Acceptance], today: date) -> dict[str, Acceptance]:
    """Metric -> the approval that counts today, the one that lasts longest."""
    lasting = sorted((one for one in accept if one.until >= today), key=lambda one: one.until)
    return {one.metric: one for one in lasting}


def _unmeasured(result: MetricResult | ExamplesResult | DriftResult) -> bool:
    """Whether a metric has failed without a value that could be accepted."""
    if not isinstance(result, MetricResult):
        return False  # without tables or a trend nothing fails
    return bool(result.candidate.missing or unusable_values(result.candidate))
