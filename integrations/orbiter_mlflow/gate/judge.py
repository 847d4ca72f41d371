"""What the gate decides: candidate and baseline in, the report out.

Pure. It fails closed: what cannot be compared is never a pass, and no run or metric is passed over
without a word.
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
    Test,
    Verdict,
)
from orbiter_mlflow.gate.policy import Policy, expand
from orbiter_mlflow.gate.statistics import holm
from orbiter_mlflow.gate.verdict import UNPAIRED, Against, look, settle

__all__ = ["judge"]

_ITSELF = "it is a candidate itself"


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
    """Whether the candidate is worse than the baseline.

    Args:
        candidate: runs of one and the same thing, with other seeds at most.
        baseline: runs to compare with; those that are no use are left out, and counted.
        source: where they come from, for the report.
        left_out: more runs of the baseline that were left out before.
        problems: what else keeps the two from being compared; the bounds hold all the same.
        bootstrap: where there are too few runs for a baseline, let the bounds alone decide.
        links: for the report.

    Raises:
        PolicyError: a pattern of the policy matches no metric of any run.
    """
    judged = list({run.run_id: run for run in candidate}.values())
    usable, unusable = _usable(judged, baseline)
    enough = len(usable) >= policy.baseline.needed
    alike = compare_fields(policy, judged, usable if enough or not bootstrap else ())
    unfinished = _unfinished(judged)
    found = [*unfinished, *problems, *alike.problems]
    if not enough and not bootstrap and not problems:
        found.append(_too_small(policy, len(usable)))
    if unfinished:
        against = Against.UNFINISHED
    elif found:
        against = Against.NOTHING_ALIKE
    else:
        against = Against.BASELINE if enough else Against.NOTHING_YET
    metrics = _metrics(policy, judged, usable, against)
    all_left_out = tuple({run.run_id: run for run in (*left_out, *unusable)}.values())
    notes = [
        *([_bootstrap_note(policy, len(usable))] if bootstrap and not problems else ()),
        *alike.notes,
    ]
    if len(judged) < len(candidate):
        notes.append(f"{len(candidate) - len(judged)} candidate runs were given more than once")
    # What passes shows no reason, but who asked for pairs takes the test for one of pairs.
    notes += [
        f"{one.metric} is {one.reason[one.reason.index(UNPAIRED) :]}"
        for one in metrics
        if one.verdict is Verdict.PASS and one.test is Test.WELCH and UNPAIRED in one.reason
    ]
    return GateReport(
        outcome=_outcome(policy, metrics, found),
        metrics=tuple(metrics),
        candidate=tuple(judged),
        baseline=tuple(usable),
        source=source,
        policy=policy.path,
        policy_digest=policy.digest,
        alpha=policy.gate.alpha,
        problems=tuple(found),
        notes=tuple(notes),
        left_out=all_left_out,
        differences=alike.differences,
        links=links,
        bootstrap=bootstrap and not enough and not problems,
    )


def _usable(
    candidate: Sequence[GateRun], baseline: Sequence[GateRun]
) -> tuple[list[GateRun], list[LeftOut]]:
    """The runs of the baseline that count, each once, and the others."""
    usable: dict[str, GateRun] = {}
    unusable = []
    candidates = {run.run_id for run in candidate}
    for run in baseline:
        reason = _ITSELF if run.run_id in candidates else _not_whole(run)
        if reason:
            unusable.append(LeftOut(run.run_id, run.name, reason))
        else:
            usable[run.run_id] = run
    return list(usable.values()), unusable


def _not_whole(run: GateRun) -> str:
    """Why not all of a run is there; empty where it is."""
    if run.status != "FINISHED":
        return f"it is {run.status}, not FINISHED"
    return run.undelivered


def _unfinished(candidate: Sequence[GateRun]) -> list[str]:
    if not candidate:
        return ["there is no candidate run"]
    return [
        f"candidate {run.name or run.run_id} is not whole: {reason}"
        for run in candidate
        if (reason := _not_whole(run))
    ]


def _metrics(
    policy: Policy, candidate: Sequence[GateRun], baseline: Sequence[GateRun], against: Against
) -> list[MetricResult]:
    keys = {key for run in (*candidate, *baseline) for key in run.metrics}
    alpha = policy.gate.alpha
    found = [
        look(
            metric,
            wanted,
            candidate,
            baseline,
            alpha=alpha,
            against=against,
            apart=compare_data(policy, metric, candidate, baseline),
        )
        for metric, wanted in expand(policy, keys).items()
    ]
    adjusted = iter(holm([one.result.p_value or 0.0 for one in found if one.tested]))
    tested = sum(one.tested for one in found)
    return [
        settle(one, next(adjusted) if one.tested else None, alpha=alpha, tested=tested)
        for one in found
    ]


def _outcome(policy: Policy, metrics: Sequence[MetricResult], problems: Sequence[str]) -> Outcome:
    """The worst of what counts; `info` never does, and `warn` never stops a build."""
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


# -- for the reader --------------------------------------------------------------------------------


def _too_small(policy: Policy, usable: int) -> str:
    needed = policy.baseline.needed
    found = "no run that can be compared with" if not usable else f"{_runs(usable)} only"
    way_out = "bless some" if needed > 1 else "name another"
    return (
        f"the baseline has {found}, and needs {_runs(needed)}: {way_out}, "
        "or let the bounds alone decide for now (--bootstrap)"
    )


def _bootstrap_note(policy: Policy, usable: int) -> str:
    needed = policy.baseline.needed
    if usable >= needed:
        return "the baseline is there: all was judged, and --bootstrap can go"
    return (
        f"NOT JUDGED AGAINST A BASELINE: it has {_runs(usable)} of {needed}, and --bootstrap was "
        "given, so only bounds could fail; leave it out as soon as there is a baseline"
    )


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"
