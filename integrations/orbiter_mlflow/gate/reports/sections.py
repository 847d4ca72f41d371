"""The further parts of a report, after its table of metrics, in a form that each format renders.

A part is a title with lines of text, or with a table. Texts are raw; each format escapes them.
"""

from orbiter_mlflow.gate.model import GateReport, Side, Verdict, counted
from orbiter_mlflow.gate.reports import examples, figures, wording
from orbiter_mlflow.gate.reports.section import Section
from orbiter_mlflow.text.shortening import shortened

__all__ = ["Section", "sections"]


def sections(report: GateReport) -> list[Section]:
    """The parts that have something to say, in the order in which they are shown."""
    found = [
        _worst_runs(report),
        *examples.parts(report),
        _drift(report),
        _differences(report),
        _approvals(report),
        _policy_change(report),
        _left_out(report, "candidate"),
        _left_out(report, "baseline"),
        Section("Notes", report.notes, folded=True),
    ]
    return [section for section in found if section.lines or section.rows]


def _worst_runs(report: GateReport) -> Section:
    return Section(
        "The candidate's worst runs",
        columns=("metric", "run", "value", "worse by", "baseline standard deviations"),
        rows=tuple(
            (
                metric.metric,
                f"{shortened(worst.label, wording.LONGEST_VALUE)} ({worst.run_id[:8]})",
                figures.number(worst.value),
                figures.number(worst.worse_by, 4),
                figures.number(worst.spreads, 3),
            )
            for metric, worst in wording.worst_runs(report)
        ),
    )


def _drift(report: GateReport) -> Section:
    declining = sum(one.verdict is Verdict.FAIL for one in report.drift)
    found = f"{declining} of {counted(len(report.drift), 'metric')}"
    return Section(
        f"Slow decline over the last blessings: {found}",
        columns=("metric", "verdict", "trend"),
        rows=tuple(
            (one.metric, wording.drift_verdict(one), one.reason)
            for one in sorted(report.drift, key=lambda one: one.verdict is not Verdict.FAIL)
        ),
        folded=not declining,
    )


def _differences(report: GateReport) -> Section:
    return Section(
        "Fields that must be equal, and differ",
        columns=("field", "candidate", "baseline"),
        rows=tuple(
            (
                difference.field,
                wording.field_values(difference.candidate),
                wording.field_values(difference.baseline),
            )
            for difference in report.differences
        ),
    )


def _left_out(report: GateReport, side: Side) -> Section:
    runs = [run for run in report.left_out if run.side == side]
    return Section(
        f"Left out of the {side}: {counted(len(runs), 'run')}",
        tuple(wording.left_out(runs)),
        folded=True,
    )


def _approvals(report: GateReport) -> Section:
    return Section(
        "Accepted regressions",
        columns=("metric", "status", "until", "by", "reason"),
        rows=tuple(
            (one.metric, _APPROVAL_STATUS[one.status], one.until, one.by, one.reason)
            for one in report.approvals
        ),
    )


_APPROVAL_STATUS = {
    "used": "accepted",
    "unused": "unused: the metric did not fail",
    "overruled": "not in force: the policy at the git ref decides",
    "expired": "EXPIRED: it no longer counts",
}


def _policy_change(report: GateReport) -> Section:
    change = report.policy_change
    if change is None:
        return Section("")
    decides = "the policy here decides alone" if change.accepted else "the stricter verdict counts"
    return Section(
        f"Policy changed since {change.ref} ({decides})",
        change.diff,
        folded=True,
    )
