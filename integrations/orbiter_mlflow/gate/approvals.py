"""Approvals: apply the policy's `[[accept]]` to the verdicts of a day. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import date

from orbiter_mlflow.gate.comparability import unusable_values
from orbiter_mlflow.gate.model import Approval, MetricResult, Verdict
from orbiter_mlflow.gate.policy import Acceptance, Policy

__all__ = ["apply_approvals"]


def apply_approvals(
    policy: Policy, metrics: Iterable[MetricResult], today: date
) -> tuple[list[MetricResult], tuple[Approval, ...]]:
    """Turn regressions that are accepted today into the verdict `accepted`.

    Covers a value beyond a bound or past tolerance, also one that is inconclusive if the policy
    makes that a failure; never a metric that is missing, not finite or cannot be compared.

    Args:
        today: the present day in UTC; an approval counts until the end of its last day.

    Returns:
        The results, and all approvals of the policy with what became of each.
    """
    covered = {Verdict.FAIL}
    if policy.gate.on_inconclusive == "fail":
        covered.add(Verdict.INCONCLUSIVE)
    in_force = _in_force(policy.accept, today)
    found, used = [], set()
    for metric in metrics:
        accepted = in_force.get(metric.metric)
        if accepted is None or metric.verdict not in covered or _unmeasured(metric):
            found.append(metric)
            continue
        used.add(metric.metric)
        reason = (
            f"{metric.reason}; accepted until {accepted.until} by {accepted.by}: {accepted.reason}"
        )
        found.append(replace(metric, verdict=Verdict.ACCEPTED, reason=reason))
    approvals = []
    for one in policy.accept:
        approval = Approval(one.metric, one.until.isoformat(), one.reason, one.by, "unused")
        if one.until < today:
            approval = replace(approval, status="expired")
        elif one is in_force[one.metric] and one.metric in used:
            approval = replace(approval, status="used")
        approvals.append(approval)
    return found, tuple(approvals)


def _in_force(accept: Sequence[Acceptance], today: date) -> dict[str, Acceptance]:
    """Metric -> the approval that counts today, the one that lasts longest."""
    lasting = sorted((one for one in accept if one.until >= today), key=lambda one: one.until)
    return {one.metric: one for one in lasting}


def _unmeasured(metric: MetricResult) -> bool:
    return bool(metric.candidate.missing or unusable_values(metric.candidate))
