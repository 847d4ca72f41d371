"""The gate's decision: compare candidate and baseline by a policy, and return the report.

Pure, and fails closed: what cannot be compared never passes, and every run or metric that is left
out is reported.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date

from orbiter_mlflow.gate.approvals import apply_approvals, approvals_of
from orbiter_mlflow.gate.attempts import incompleteness, missing_seeds, newest_attempts
from orbiter_mlflow.gate.comparability import compare_data, compare_fields, mixed_params, shown_ids
from orbiter_mlflow.gate.drift import find_drift
from orbiter_mlflow.gate.evaluations import uneven
from orbiter_mlflow.gate.examples.judge import ExampleTables, judge_examples
from orbiter_mlflow.gate.examples.model import ExamplesResult
from orbiter_mlflow.gate.lineage import BaselineAge, PastBlessing
from orbiter_mlflow.gate.model import (
    BaselineSource,
    DriftResult,
    GateReport,
    GateRun,
    LeftOut,
    MetricResult,
    Outcome,
    Verdict,
    counted,
)
from orbiter_mlflow.gate.policy import MetricPolicy, Policy, expand
from orbiter_mlflow.gate.remarks import metric_notes
from orbiter_mlflow.gate.statistics import corrected
from orbiter_mlflow.gate.verdict import BaselineStatus, assess, decide

__all__ = ["IS_CANDIDATE", "judge", "usable_runs"]

IS_CANDIDATE = "it is a candidate itself"
"""Why a run of the baseline is left out."""


def judge(
    policy: Policy,
    candidate: Sequence[GateRun],
    baseline: Sequence[GateRun],
    *,
    source: BaselineSource,
    today: date = date.max,
    left_out: Sequence[LeftOut] = (),
    problems: Sequence[str] = (),
    bootstrap: bool = False,
    links: Mapping[str, str] | None = None,
    tables: Mapping[str, ExampleTables] | None = None,
    past: Sequence[PastBlessing] = (),
    age: BaselineAge | None = None,
) -> GateReport:
    """Judge whether the candidate is worse than the baseline.

    Args:
        candidate: runs of one config, which differ in their seeds; of several attempts of a seed
            the newest counts.
        baseline: runs to compare with; unusable ones are left out, and reported.
        source: where the baseline comes from, for the report.
        today: the present day in UTC, which ends approvals; by default none counts.
        left_out: runs of the baseline that were left out before.
        problems: other reasons why the two cannot be compared; bounds are still checked.
        bootstrap: if the baseline has too few runs, let the bounds alone decide.
        links: pages of the MLflow UI, for the report.
        tables: of each comparison example by example: its name in the policy -> the tables.
        past: the last blessings, the newest first; that of the baseline is among them.
        age: of the baseline.

    Raises:
        PolicyError: a pattern of the policy matches no metric of any run.
    """
    named = list({run.run_id: run for run in candidate}.values())
    judged, earlier = newest_attempts(policy, named, "candidate")
    usable, unusable = usable_runs(policy, named, baseline)
    enough = len(usable) >= policy.baseline.needed
    compared = usable if enough or not bootstrap else []
    fields = compare_fields(policy, judged, compared)
    whole = [run for run in named if not incompleteness(run)]
    incomplete = _incomplete(judged)
    all_problems = [
        *incomplete,
        *problems,
        *(() if incomplete else _too_few(policy, judged)),
        *mixed_params(policy, whole, "candidate"),
        *mixed_params(policy, compared, "baseline"),
        *fields.problems,
    ]
    if not enough and not bootstrap and not problems:
        all_problems.append(_too_small(policy, len(usable)))
    if incomplete:
        status = BaselineStatus.CANDIDATE_INCOMPLETE
    elif all_problems:
        status = BaselineStatus.NOT_COMPARABLE
    else:
        status = BaselineStatus.USABLE if enough else BaselineStatus.NOT_YET
    results = _metrics(policy, judged, usable, status, bootstrap=bootstrap)
    metrics = apply_approvals(policy, results, today)
    compared_examples = judge_examples(
        policy.examples,
        tables or {},
        alpha=policy.gate.alpha,
        correction=policy.gate.correction,
        quiet=policy.gate.on_inconclusive == "warn",
        status=status,
    )
    examples = apply_approvals(policy, compared_examples, today)
    all_left_out = {run.run_id: run for run in (*earlier, *left_out, *unusable)}
    notes = [*fields.notes, *_dirty(judged)]
    if bootstrap and not problems:
        unjudged = any(one.verdict is Verdict.UNJUDGED for one in metrics)
        notes[:0] = [_bootstrap_note(policy, len(usable), unjudged=unjudged)]
    if len(named) < len(candidate):
        notes.append(f"{len(candidate) - len(named)} candidate runs were named more than once")
    notes += metric_notes(metrics, {run.run_id: run.name for run in usable})
    notes += uneven(metrics, judged, usable)
    history = _history(past, metrics)
    drift: list[DriftResult] = []
    if policy.baseline.drift and status is BaselineStatus.USABLE:
        expected = expand(policy, [one.metric for one in metrics])
        alpha, correction = policy.gate.alpha, policy.gate.correction
        found, missing = find_drift(expected, metrics, history, alpha=alpha, correction=correction)
        drift = apply_approvals(policy, found, today)
        notes += missing
    return GateReport(
        outcome=_outcome(policy, [*metrics, *examples, *drift], all_problems),
        metrics=tuple(metrics),
        candidate=tuple(judged),
        baseline=tuple(usable),
        source=source,
        policy=policy.path,
        policy_digest=policy.digest,
        alpha=policy.gate.alpha,
        problems=tuple(all_problems),
        notes=tuple(notes),
        left_out=tuple(all_left_out.values()),
        differences=fields.differences,
        links=links,
        bootstrap=bootstrap and not enough and not problems,
        correction=policy.gate.correction,
        approvals=approvals_of(policy, [*metrics, *examples, *drift], today),
        examples=tuple(examples),
        drift=tuple(drift),
        history=history,
        age=age,
    )


def _history(
    past: Sequence[PastBlessing], metrics: Sequence[MetricResult]
) -> tuple[PastBlessing, ...]:
    """The blessings with the metrics that are judged, the oldest first."""
    judged = [one.metric for one in metrics]
    return tuple(
        replace(one, metrics={key: one.metrics[key] for key in judged if key in one.metrics})
        for one in reversed(past)
    )


def usable_runs(
    policy: Policy, candidate: Sequence[GateRun], baseline: Sequence[GateRun]
) -> tuple[list[GateRun], list[LeftOut]]:
    """The runs of the baseline that count, each seed of a batch once, and those that do not."""
    usable: dict[str, GateRun] = {}
    unusable = []
    candidates = {run.run_id for run in candidate}
    for run in baseline:
        reason = IS_CANDIDATE if run.run_id in candidates else incompleteness(run)
        if reason:
            unusable.append(LeftOut(run.run_id, run.name, reason))
        else:
            usable[run.run_id] = run
    newest, earlier = newest_attempts(policy, [*usable.values()], "baseline")
    return newest, [*unusable, *earlier]


def _incomplete(candidate: Sequence[GateRun]) -> list[str]:
    if not candidate:
        return ["there is no candidate run"]
    return [
        f"candidate {run.name or run.run_id} is incomplete: {reason}{_way_out(run)}"
        for run in candidate
        if (reason := incompleteness(run))
    ]


def _way_out(run: GateRun) -> str:
    """What to do about a candidate whose status keeps it from being judged."""
    if run.status == "FINISHED" or run.undelivered:
        return ""  # what is undelivered says itself what to do
    if run.status in ("RUNNING", "SCHEDULED"):
        return ": wait until it has ended; if it died, run its seed again and delete this run"
    return ": run its seed again, delete the run, or use a filter that excludes it"


def _metrics(
    policy: Policy,
    candidate: Sequence[GateRun],
    baseline: Sequence[GateRun],
    status: BaselineStatus,
    *,
    bootstrap: bool,
) -> list[MetricResult]:
    keys = {key for run in (*candidate, *baseline) for key in run.metrics}
    alpha = policy.gate.alpha
    assessments = []
    for metric, expected in expand(policy, keys).items():
        few = _too_few_values(policy, metric, baseline)
        assessments.append(
            assess(
                metric,
                expected,
                candidate,
                baseline,
                alpha=alpha,
                status=BaselineStatus.NOT_YET
                if few and bootstrap and status is BaselineStatus.USABLE
                else status,
                obstacle=few
                or _unmatched(metric, expected, candidate, baseline)
                or compare_data(policy, metric, candidate, baseline),
            )
        )
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


def _too_few_values(policy: Policy, metric: str, baseline: Sequence[GateRun]) -> str:
    """Why the baseline is none for this metric: some runs have it, but fewer than it needs."""
    found, needed = sum(metric in run.metrics for run in baseline), policy.baseline.needed
    if not 0 < found < needed:
        return ""
    return (
        f"only {counted(found, 'run')} of the baseline has it, but it takes {needed}: bless runs "
        "that have it, or lower baseline.min_runs"
    )


def _unmatched(
    metric: str,
    expected: MetricPolicy,
    candidate: Sequence[GateRun],
    baseline: Sequence[GateRun],
) -> str:
    """Why a metric that pairs runs cannot be compared: seeds are missing from the candidate."""
    if expected.paired_by is None:
        return ""
    return missing_seeds(expected.paired_by, metric, candidate, baseline)


def _outcome(
    policy: Policy,
    results: Sequence[MetricResult | ExamplesResult | DriftResult],
    problems: Sequence[str],
) -> Outcome:
    """The worst verdict that counts; `info` never does, and `warn` never fails a build."""
    failing = {one.verdict for one in results if one.severity == "fail"}
    if Verdict.FAIL in failing:
        return Outcome.REGRESSION
    if problems or Verdict.CANNOT_COMPARE in failing:
        return Outcome.CANNOT_COMPARE
    if Verdict.INCONCLUSIVE in failing and policy.gate.on_inconclusive == "fail":
        return Outcome.INCONCLUSIVE
    counted = (one for one in results if one.severity != "info")
    if any(one.verdict is not Verdict.PASS for one in counted):
        return Outcome.WARN
    return Outcome.PASS


# -- sentences for the report ----------------------------------------------------------------------


def _too_few(policy: Policy, candidate: Sequence[GateRun]) -> list[str]:
    needed = policy.candidate_runs
    if len(candidate) >= needed:
        return []
    found = f"the candidate has {counted(len(candidate), 'run')}, but needs {needed}"
    way_out = "run more seeds, or set gate.candidate_runs in the policy"
    return [f"{found} (attempts of one seed count once): {way_out}"]


def _dirty(candidate: Sequence[GateRun]) -> list[str]:
    dirty = [run.run_id for run in candidate if run.dirty]
    if not dirty:
        return []
    some = f"{len(dirty)} of {counted(len(candidate), 'candidate run')}"
    return [f"{some} had uncommitted changes, so the commit is not their code: {shown_ids(dirty)}"]


def _too_small(policy: Policy, usable: int) -> str:
    needed = policy.baseline.needed
    found = f"only {counted(usable, 'usable run')}" if usable else "no usable run"
    way_out = "bless more runs" if needed > 1 else "name another run"
    if policy.baseline.filter is not None:
        way_out = (
            f"bless {needed} runs or more in one call, lower baseline.min_runs, compare with "
            "several blessings as one (baseline.pool)"
        )
    return (
        f"the baseline has {found}, but needs {counted(needed, 'run')}: {way_out}, "
        "or let the bounds alone decide for now (--bootstrap)"
    )


def _bootstrap_note(policy: Policy, usable: int, *, unjudged: bool) -> str:
    needed = policy.baseline.needed
    if usable >= needed and unjudged:
        return (
            "NOT ALL JUDGED AGAINST A BASELINE: it has too few values of some metrics, and with "
            "--bootstrap only bounds can fail those; remove it as soon as there is a baseline"
        )
    if usable >= needed:
        return "the baseline is complete and everything was judged: remove --bootstrap"
    return (
        f"NOT JUDGED AGAINST A BASELINE: it has {counted(usable, 'run')} of {needed}, and with "
        "--bootstrap only bounds can fail; remove it as soon as there is a baseline"
    )
