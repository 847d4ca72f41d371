"""Judge a change by its policy and by the one at a git ref, so that it cannot loosen its limits.

Unless a person has accepted the new policy, the stricter result of both counts.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from orbiter_mlflow.errors import CannotCompareError, FilterError, PolicyError
from orbiter_mlflow.gate.git import GitRef
from orbiter_mlflow.gate.model import GateReport, PolicyChange
from orbiter_mlflow.gate.policy import Policy, parse_policy
from orbiter_mlflow.gate.stricter import policy_diff, stricter, with_problem

__all__ = ["judge_with_policy_at_ref"]


def judge_with_policy_at_ref(
    ref: GitRef,
    policy: Policy,
    path: Path | None,
    *,
    accepted: bool,
    judge_by: Callable[[Policy], GateReport],
) -> GateReport:
    """Judge by the policy here and, if it differs, by the one at the ref.

    Args:
        policy: the policy here.
        path: its file; None for a policy made in code, which no ref has.
        accepted: whether the policy here decides alone; the report shows the difference.
        judge_by: judges the candidate by a policy, with that policy's baseline.

    Raises:
        PolicyError: the policy here does not fit the runs.
        FilterError: MLflow does not understand a filter of the policy here.
    """
    report = judge_by(policy)
    if path is None:
        return report
    try:
        there = ref.read_file(path)
    except CannotCompareError as error:
        return _with_change(report, str(error)) if accepted else with_problem(report, str(error))
    if there is None:
        return _with_change(
            report, f"the policy {path} is not at {ref.shown}: the one here decides alone"
        )
    diff = policy_diff(there.decode(errors="replace"), policy.text, ref.shown)
    if not diff:
        return report
    differs = f"the policy {path} differs from the one at {ref.shown}"
    change = PolicyChange(ref.shown, accepted, diff)
    if accepted:
        text = f"{differs}: the one here decides alone (--accept-policy-change)"
        return _with_change(report, text, change)
    report = _with_change(report, f"{differs}: the stricter of both decides", change)
    try:
        by_other = judge_by(parse_policy(there, f"{path} at {ref.shown}"))
    except (PolicyError, FilterError) as error:
        way_out = "if a reviewer accepts the new policy, pass --accept-policy-change"
        return with_problem(report, f"the policy at {ref.shown} cannot judge: {error}; {way_out}")
    return stricter(report, by_other, ref.shown)


def _with_change(report: GateReport, text: str, change: PolicyChange | None = None) -> GateReport:
    changed = "; ".join(filter(None, (report.source.changed, text)))
    source = replace(report.source, changed=changed)
    return replace(report, source=source, policy_change=change)
