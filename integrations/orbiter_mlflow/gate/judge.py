"""The gate's decision: compare candidate and baseline by a policy, and return the report.

Pure, and fails closed: what cannot be compared never passes, and every run or metric that is left
out is reported.
"""

from collections.abc import Mapping, Sequence

from orbiter_mlflow.gate.comparability import compare_data, compare_fields
from orbiter_mlflow.gate.model import (
    BaselineSource,
    GateReport,
    GateRun,
    LeftOut,
    MetricResult,
    Outcome,
    Verdict,
    counted,
)
from orbiter_mlflow.gate.policy import Policy, expand
from orbiter_mlflow.gate.remarks import metric_notes
from orbiter_mlflow.gate.statistics import corrected
from orbiter_mlflow.gate.verdict import BaselineStatus, assess, decide

__all__ = ["IS_CANDIDATE", "judge", "not_finished"]

IS_CANDIDATE = "it is a candidate itself"
"""Why a run of the baseline is left out."""


def judge(
    policy: Policy,
    candidate: Sequence[GateRun],
    baseline: Sequence[GateRun],
    *,
    source: BaselineSource,
    left_out: Sequence[LeftOut] = (),
    problems: Sequence[str] = (),
    bootstrap: bool = False,
    links: Mapping[str, str] | None = None,
) -> GateReport:
    """Judge whether the candidate is worse than the baseline.

    Args:
        candidate: runs of one config, which differ in their seeds at most.
        baseline: runs to compare with; unusable ones are left out, and reported.
        source: where the baseline comes from, for the report.
        left_out: runs of the baseline that were left out before.
        problems: other reasons why the two cannot be compared; bounds are still checked.
        bootstrap: if the baseline has too few runs, let the bounds alone decide.
        links: pages of the MLflow UI, for the report.

    Raises:
        PolicyError: a pattern of the policy matches no metric of any run.
    """
    judged = list({run.run_id: run for run in candidate}.values())
    usable, unusable = _usable(judged, baseline)
    enough = len(usable) >= policy.baseline.needed
    fields = compare_fields(policy, judged, usable if enough or not bootstrap else ())
    incomplete = _incomplete(judged)
    all_problems = [*incomplete, *problems, *fields.problems]
    if not enough and not bootstrap and not problems:
        all_problems.append(_too_small(policy, len(usable)))
    if incomplete:
        status = BaselineStatus.CANDIDATE_INCOMPLETE
    elif all_problems:
        status = BaselineStatus.NOT_COMPARABLE
    else:
        status = BaselineStatus.USABLE if enough else BaselineStatus.NOT_YET
    metrics = _metrics(policy, judged, usable, status)
    all_left_out = tuple({run.run_id: run for run in (*left_out, *unusable)}.values())
    notes = [
        *([_bootstrap_note(policy, len(usable))] if bootstrap and not problems else ()),
        *fields.notes,
    ]
    if len(judged) < len(candidate):
        notes.append(f"{len(candidate) - len(judged)} candidate runs were named more than once")
    notes += metric_notes(metrics)
    return GateReport(
        outcome=_outcome(policy, metrics, all_problems),
        metrics=tuple(metrics),
        candidate=tuple(judged),
        baseline=tuple(usable),
        source=source,
        policy=policy.path,
        policy_digest=policy.digest,
        alpha=policy.gate.alpha,
        problems=tuple(all_problems),
        notes=tuple(notes),
        left_out=all_left_out,
        differences=fields.differences,
        links=links,
        bootstrap=bootstrap and not enough and not problems,
        correction=policy.gate.correction,
    )


def _usable(
    candidate: Sequence[GateRun], baseline: Sequence[GateRun]
) -> tuple[list[GateRun], list[LeftOut]]:
    """The runs of the baseline that count, each once, and those that do not."""
    usable: dict[str, GateRun] = {}
    unusable = []
    candidates = {run.run_id for run in candidate}
    for run in baseline:
        reason = IS_CANDIDATE if run.run_id in candidates else _incompleteness(run)
        if reason:
            unusable.append(LeftOut(run.run_id, run.name, reason))
        else:
            usable[run.run_id] = run
    return list(usable.values()), unusable


def _incompleteness(run: GateRun) -> str:
    """Why a run is incomplete; empty if it is complete."""
    return not_finished(run.status) or run.undelivered


def not_finished(status: str) -> str:
    """Why a run with this status is not used; empty if it is FINISHED."""
    return "" if status == "FINISHED" else f"it is {status}, not FINISHED"


def _incomplete(candidate: Sequence[GateRun]) -> list[str]:
    if not candidate:
        return ["there is no candidate run"]
    return [
        f"candidate {run.name or run.run_id} is incomplete: {reason}"
        for run in candidate
        if (reason := _incompleteness(run))
    ]


def _metrics(
    policy: Policy,
    candidate: Sequence[GateRun],
    baseline: Sequence[GateRun],
    status: BaselineStatus,
) -> list[MetricResult]:
    keys = {key for run in (*candidate, *baseline) for key in run.metrics}
    alpha = policy.gate.alpha
    assessments = [
        assess(
            metric,
            expected,
            candidate,
            baseline,
            alpha=alpha,
            status=status,
            obstacle=compare_data(policy, metric, candidate, baseline),
        )
        for metric, expected in expand(policy, keys).items()
    ]
    tested = [one.result.p_value or 0.0 for one in assessments if one.tested]
    adjusted = iter(corrected(tested, alpha, policy.gate.correction))
    return [
        decide(
            one,
            next(adjusted) if one.tested else None,
            alpha=alpha,
            tested=len(tested),
            quiet=policy.gate.on_inconclusive == "warn",
        )
        for one in assessments
    ]


def _outcome(policy: Policy, metrics: Sequence[MetricResult], problems: Sequence[str]) -> Outcome:
    """The worst verdict that counts; `info` never does, and `warn` never fails a build."""
    failing = {one.verdict for one in metrics if one.severity == "fail"}
    if Verdict.FAIL in failing:
        return Outcome.REGRESSION
    if problems or Verdict.CANNOT_COMPARE in failing:
        return Outcome.CANNOT_COMPARE
    if Verdict.INCONCLUSIVE in failing and policy.gate.on_inconclusive == "fail":
        return Outcome.INCONCLUSIVE
    counted = (one for one in metrics if one.severity != "info")
    if any(one.verdict is not Verdict.PASS for one in counted):
        return Outcome.WARN
    return Outcome.PASS


# -- sentences for the report ----------------------------------------------------------------------


def _too_small(policy: Policy, usable: int) -> str:
    needed = policy.baseline.needed
    found = f"only {counted(usable, 'usable run')}" if usable else "no usable run"
    way_out = "bless more runs" if needed > 1 else "name another run"
    return (
        f"the baseline has {found}, but needs {counted(needed, 'run')}: {way_out}, "
        "or let the bounds alone decide for now (--bootstrap)"
    )


def _bootstrap_note(policy: Policy, usable: int) -> str:
    needed = policy.baseline.needed
    if usable >= needed:
        return "the baseline is complete and everything was judged: remove --bootstrap"
    return (
        f"NOT JUDGED AGAINST A BASELINE: it has {counted(usable, 'run')} of {needed}, and with "
        "--bootstrap only bounds can fail; remove it as soon as there is a baseline"
    )
