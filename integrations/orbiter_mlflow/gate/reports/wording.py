"""The words and the order that all reports for people share; each format decides how it looks.

All texts here are raw: names, params and reasons come from outside, and each format escapes them.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import copysign, inf, isnan

from orbiter_mlflow.gate.examples.model import ExamplesResult
from orbiter_mlflow.gate.lineage import BaselineAge
from orbiter_mlflow.gate.model import (
    Correction,
    DriftResult,
    GateReport,
    GateRun,
    LeftOut,
    MetricResult,
    Outcome,
    Sample,
    Severity,
    Verdict,
    WorstRun,
    counted,
)
from orbiter_mlflow.gate.reports import figures
from orbiter_mlflow.text.shortening import shortened

UNJUDGED = (
    "UNJUDGED: there is no baseline to judge by yet. Nothing was compared; only bounds, which need "
    "no baseline, were checked."
)
LONGEST_VALUE = 200
"""Characters of a param that are shown."""
_NOTABLE_SPREADS = 3.0
_RUNS_NAMED = 5
_GROUPS_SHOWN = 10

_WORDS = {
    Verdict.PASS: "pass",
    Verdict.FAIL: "FAIL",
    Verdict.INCONCLUSIVE: "inconclusive",
    Verdict.CANNOT_COMPARE: "cannot compare",
    Verdict.NEW: "new",
    Verdict.UNJUDGED: "unjudged",
    Verdict.ACCEPTED: "accepted",
}
_CORRECTIONS: dict[Correction, str] = {
    "holm": "over all metrics (Holm's correction)",
    "fdr": "as the share of false alarms among failures (Benjamini and Hochberg's correction)",
}
_ALARMS = [Verdict.FAIL, Verdict.CANNOT_COMPARE, Verdict.INCONCLUSIVE]
_CALM = [Verdict.ACCEPTED, Verdict.UNJUDGED, Verdict.NEW, Verdict.PASS]
_SEVERITIES = ["fail", "warn", "info"]


_Judged = MetricResult | ExamplesResult


@dataclass(frozen=True, slots=True)
class Row:
    """One metric as a row of the table; each tuple holds the lines of a cell."""

    metric: str
    direction: str
    verdict: str
    baseline: str
    candidate: str
    change: tuple[str, ...]
    """The change, and its confidence bound if there is one."""
    p: str
    test: str
    limits: tuple[str, ...]


# -- the headline ----------------------------------------------------------------------------------


def headline(report: GateReport) -> str:
    """The outcome in one line, with the worst metric.

    `REGRESSION: eval/accuracy is worse by 0.03 (3.7%), past max_drop = 0.01; 1 of 4 metrics`.
    """
    return f"{report.outcome.name.replace('_', ' ')}: {_outcome_words(report)}"


def _outcome_words(report: GateReport) -> str:
    judged = _judged(report)
    counts = Counter(one.verdict for one in judged if one.severity == "fail")
    every, noun = len(judged), _noun(report)
    match report.outcome:
        case Outcome.REGRESSION if not counts[Verdict.FAIL]:
            declining = [
                one for one in report.drift if (one.verdict, one.severity) == (Verdict.FAIL, "fail")
            ]
            worst = max(declining, key=lambda one: one.decline)
            which = f"{len(declining)} of {counted(len(report.metrics), 'metric')}"
            slow = f"has declined by {figures.number(worst.decline)} over {worst.points} points"
            return f"{worst.metric} {slow}, past what the policy tolerates; {which}"
        case Outcome.REGRESSION:
            return f"{_worst(judged)}; {counts[Verdict.FAIL]} of {counted(every, noun)}"
        case Outcome.INCONCLUSIVE:
            few = "but the runs are too few to tell it from chance"
            count = counts[Verdict.INCONCLUSIVE]
            return f"{_worst(judged)}, {few}; {count} of {counted(every, noun)}"
        case Outcome.CANNOT_COMPARE:
            if report.problems:
                found = counted(len(report.problems), "problem")
                return f"the candidate was not compared with the baseline: {found}"
            if report.differences:
                found = counted(len(report.differences), "field")
                return f"the candidate differs from the baseline in {found} that must be equal"
            count = counts[Verdict.CANNOT_COMPARE]
            return f"{count} of {counted(every, noun)} cannot be compared with the baseline"
        case _:
            return _passed(report)


def _passed(report: GateReport) -> str:
    judged, noun = _judged(report), _noun(report)
    every = len(judged)
    passed = sum(one.verdict is Verdict.PASS for one in judged)
    if every and passed == every and not is_unjudged(report):
        chance = ", or within chance of them" if any(one.by_chance for one in judged) else ""
        which = f"the {noun} is" if every == 1 else f"all {every} {noun}s are"
        return f"{which} within the limits{chance}"
    others = Counter(verdict_words(one) for one in sorted(judged, key=_rank))
    del others[_WORDS[Verdict.PASS]]
    rest = ", ".join(f"{count} {words}" for words, count in others.items())
    if is_unjudged(report):
        return f"there is no baseline yet; of {counted(every, noun)}: {rest or 'none judged'}"
    return f"{passed} of {counted(every, noun)} passed" + (f", {rest}" if rest else "")


def _judged(report: GateReport) -> list[_Judged]:
    return [*report.metrics, *report.examples]


def _noun(report: GateReport) -> str:
    return "check" if report.examples else "metric"


def _worst(judged: list[_Judged]) -> str:
    """The worst of them, and the first part of its reason: by how much it is worse."""
    one = min(judged, key=_rank)
    name = one.metric if isinstance(one, MetricResult) else one.name
    reason = shortened(one.reason.partition("; ")[0], LONGEST_VALUE)
    verb = " is" if reason.startswith("worse by ") else ":"
    return f"{name}{verb} {reason}"


def is_unjudged(report: GateReport) -> bool:
    """Whether there was no baseline, and `--bootstrap` allowed that."""
    return report.bootstrap or any(metric.verdict is Verdict.UNJUDGED for metric in report.metrics)


def warnings(report: GateReport) -> list[str]:
    """Warnings to show before any figure."""
    found = [UNJUDGED] if is_unjudged(report) else []
    if report.source.changed:
        found.append(f"Different from the git ref: {report.source.changed}")
    return [*found, *(() if report.age is None else report.age.warnings)]


# -- the table -------------------------------------------------------------------------------------


def worst_first(metrics: Iterable[MetricResult]) -> list[MetricResult]:
    """Metrics that fail the build first, then warnings, each by its relative loss; else in the
    policy's order."""
    return sorted(metrics, key=_rank)


def _rank(metric: _Judged) -> tuple[int, int, float]:
    if metric.verdict in _ALARMS:
        return _SEVERITIES.index(metric.severity), _ALARMS.index(metric.verdict), -_loss(metric)
    return len(_SEVERITIES), _CALM.index(metric.verdict), 0.0


def _loss(one: _Judged) -> float:
    """The loss as a fraction of the baseline; infinite where there is no number, the worst case."""
    if isinstance(one, ExamplesResult):
        scores = one.scores
        return inf if scores is None else scores.worse_by / (abs(scores.baseline) or 1.0)
    if one.worse_by is None or isnan(one.worse_by):
        return inf
    if one.change_rel is None or not figures.is_finite(one.change_rel):
        return one.worse_by
    return copysign(one.change_rel, one.worse_by)


def verdict_words(metric: MetricResult | ExamplesResult) -> str:
    """`FAIL`, or `FAIL (only warns)` if the policy says so."""
    return _verdict_words(metric.verdict, metric.severity)


def _verdict_words(verdict: Verdict, severity: Severity) -> str:
    words = _WORDS[verdict]
    if verdict is Verdict.PASS or severity == "fail":
        return words
    return f"{words} ({'only warns' if severity == 'warn' else 'for information'})"


def direction_words(metric: MetricResult) -> str:
    """`higher is better`, and the point of the run that counts unless it is the last."""
    if metric.direction == "target":
        words = f"closer to {figures.number(metric.target)} is better"
    else:
        words = f"{metric.direction} is better"
    return words if metric.at == "last" else f"{words}, at {metric.at}"


def row(metric: MetricResult) -> Row:
    """The row of a metric."""
    return Row(
        metric=metric.metric,
        direction=direction_words(metric),
        verdict=verdict_words(metric),
        baseline=mean_and_n(metric.baseline),
        candidate=mean_and_n(metric.candidate),
        change=tuple(
            filter(
                None,
                (
                    figures.change(metric.change, metric.change_rel),
                    figures.bound(metric.bound),
                ),
            )
        ),
        p=figures.p_value(metric.p_value, metric.p_adjusted),
        test=metric.test.value,
        limits=metric.limits or ("no limit",),
    )


def mean_and_n(sample: Sample) -> str:
    """`0.81235 (n = 5)`, or `(n = 2 of 3)` if a run lacks the metric."""
    of = f" of {sample.n + len(sample.missing)}" if sample.missing else ""
    return f"{figures.number(figures.mean(sample))} (n = {sample.n}{of})"


# -- the rest --------------------------------------------------------------------------------------


def unsettled(report: GateReport) -> list[MetricResult]:
    """The metrics that did not pass, whose reasons are shown."""
    return [m for m in worst_first(report.metrics) if m.verdict is not Verdict.PASS]


def worst_runs(report: GateReport) -> list[tuple[MetricResult, WorstRun]]:
    """The candidate's worst run for each metric where it is notable.

    It is if there are several runs, and the metric did not pass or the run is more than 3 spreads
    of the baseline worse.
    """
    return [
        (metric, metric.worst)
        for metric in worst_first(report.metrics)
        if metric.worst is not None
        and metric.candidate.n > 1
        and (metric.verdict is not Verdict.PASS or (metric.worst.spreads or 0) > _NOTABLE_SPREADS)
    ]


def field_values(values: Sequence[str | None]) -> str:
    """The values of a field on one side."""
    return ", ".join(
        "(missing)" if value is None else shortened(value, LONGEST_VALUE) for value in values
    )


def left_out(runs: Iterable[LeftOut]) -> list[str]:
    """Runs that were left out, counted by reason, with the names of some."""
    groups: dict[str, list[LeftOut]] = {}
    for run in runs:
        groups.setdefault(run.reason, []).append(run)
    lines = []
    for reason, runs in list(groups.items())[:_GROUPS_SHOWN]:
        named = ", ".join(run_words(run) for run in runs[:_RUNS_NAMED])
        more = f" and {len(runs) - _RUNS_NAMED} more" if len(runs) > _RUNS_NAMED else ""
        lines.append(f"{reason}: {counted(len(runs), 'run')}, {named}{more}")
    if len(groups) > _GROUPS_SHOWN:
        runs_more = sum(len(runs) for runs in list(groups.values())[_GROUPS_SHOWN:])
        lines.append(f"other reasons: {counted(runs_more, 'run')}")
    return lines


def run_words(run: GateRun | LeftOut) -> str:
    """`sweep-3 (1a2b3c4d)`: the name of a run, and the start of its id."""
    name = shortened(run.name, LONGEST_VALUE)
    return f"{name} ({run.run_id[:8]})" if run.name.strip() else run.run_id


def runs_named(runs: Sequence[GateRun]) -> str:
    """The number of runs, and their names."""
    named = ", ".join(run_words(run) for run in runs[:_GROUPS_SHOWN])
    more = f" and {len(runs) - _GROUPS_SHOWN} more" if len(runs) > _GROUPS_SHOWN else ""
    return f"{counted(len(runs), 'run')}: {named}{more}" if runs else "no run"


def age(found: BaselineAge | None) -> str:
    """`; 12 days and 34 commits old`; empty if that is not known."""
    if found is None:
        return ""
    commits = "" if found.commits is None else f" and {counted(found.commits, 'commit')}"
    return f"; {counted(int(found.days), 'day')}{commits} old"


def drift_verdict(result: DriftResult) -> str:
    """`FAIL`, or `FAIL (only warns)` if the policy says so."""
    return _verdict_words(result.verdict, result.severity)


def provenance(report: GateReport) -> list[tuple[str, str]]:
    """Facts about the comparison and its policy: pairs of label and text."""
    return [
        ("Candidate", runs_named(report.candidate)),
        ("Baseline", f"{report.source.described}; {runs_named(report.baseline)}{age(report.age)}"),
        ("Policy", f"{report.policy} (SHA-256 {report.policy_digest})"),
        ("Significance", f"alpha = {report.alpha:g} {_CORRECTIONS[report.correction]}"),
    ]
