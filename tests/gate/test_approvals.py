"""Accepted regressions: what they cover, until when, and that every report shows them."""

from datetime import date

import pytest

from gate_seeds import judged, seeds
from orbiter_mlflow.gate.model import GateReport, Outcome, Verdict
from orbiter_mlflow.gate.policy import Policy, parse_policy
from orbiter_mlflow.gate.reports.formats import FORMATS, render
from orbiter_mlflow.gate.reports.terminal import render as terminal

HEAD = "[gate]\nschema = 1\n{gate}\n[baseline]\nfilter = 'f'\n"
METRICS = "[metrics.m]\ndirection = 'higher'\nmin = 0.5\nmax_drop = 0.01\n"
UNTIL = date(2026, 12, 31)
ACCEPT = """[[accept]]
metric = "m"
until = {until}
reason = "the new tokenizer costs a point"
by = "the evaluation team"
"""
OLD = seeds("b", {0: 0.80, 1: 0.81, 2: 0.82})
WORSE = seeds("c", {0: 0.70, 1: 0.71, 2: 0.72})


def policy(*until: date, gate: str = "", metrics: str = METRICS) -> Policy:
    accepted = "".join(ACCEPT.format(until=day.isoformat()) for day in until)
    return parse_policy((HEAD.format(gate=gate) + metrics + accepted).encode(), "gate.toml")


def on(today: date, by: Policy, runs: list[float] | None = None) -> GateReport:
    candidate = WORSE if runs is None else seeds("c", dict(enumerate(runs)))
    return judged(candidate, OLD, by, today=today)


def test_an_accepted_regression_warns_until_the_end_of_its_last_day() -> None:
    report = on(UNTIL, policy(UNTIL))
    assert (report.outcome, report.metrics[0].verdict) == (Outcome.WARN, Verdict.ACCEPTED)
    assert report.metrics[0].reason.endswith(
        "; accepted until 2026-12-31 by the evaluation team: the new tokenizer costs a point"
    )
    assert [one.status for one in report.approvals] == ["used"]


def test_the_day_after_it_has_expired() -> None:
    report = on(date(2027, 1, 1), policy(UNTIL))
    assert report.outcome is Outcome.REGRESSION
    assert [one.status for one in report.approvals] == ["expired"]


def test_without_a_known_day_nothing_is_accepted() -> None:
    assert judged(WORSE, OLD, policy(UNTIL)).outcome is Outcome.REGRESSION


def test_a_value_beyond_a_bound_can_be_accepted() -> None:
    report = on(UNTIL, policy(UNTIL), [0.1, 0.1, 0.1])
    assert "is below min = 0.5" in report.metrics[0].reason
    assert report.metrics[0].verdict is Verdict.ACCEPTED


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e200])
def test_a_value_that_is_not_finite_is_never_accepted(value: float) -> None:
    assert on(UNTIL, policy(UNTIL), [0.7, 0.7, value]).outcome is Outcome.REGRESSION


def test_a_missing_metric_is_never_accepted() -> None:
    runs = [*WORSE[:2], *seeds("c", {2: 0.0}, metrics={})]
    report = judged(runs, OLD, policy(UNTIL), today=UNTIL)
    assert report.outcome is Outcome.REGRESSION
    assert [one.status for one in report.approvals] == ["unused"]


def test_what_cannot_be_compared_is_never_accepted() -> None:
    report = judged(WORSE, OLD[:1], policy(UNTIL), today=UNTIL)
    assert report.outcome is Outcome.CANNOT_COMPARE
    bound = judged(seeds("c", dict.fromkeys(range(3), 0.1)), [], policy(UNTIL), today=UNTIL)
    assert (bound.metrics[0].verdict, bound.outcome) == (Verdict.ACCEPTED, Outcome.CANNOT_COMPARE)


def test_an_inconclusive_result_that_would_fail_the_build_is_accepted_too() -> None:
    shaky = [0.79, 0.79, 0.795]
    strict = "on_inconclusive = 'fail'"
    assert on(UNTIL, policy(gate=strict), shaky).outcome is Outcome.INCONCLUSIVE
    assert on(UNTIL, policy(UNTIL, gate=strict), shaky).outcome is Outcome.WARN


def test_an_approval_that_nothing_needs_is_listed_as_unused() -> None:
    report = on(UNTIL, policy(UNTIL), [0.80, 0.81, 0.82])
    assert (report.outcome, report.approvals[0].status) == (Outcome.PASS, "unused")


def test_a_renewed_approval_stands_beside_the_expired_one() -> None:
    report = on(date(2027, 1, 1), policy(UNTIL, date(2027, 2, 1)))
    assert report.outcome is Outcome.WARN
    assert [one.status for one in report.approvals] == ["expired", "used"]


def test_only_the_metric_that_it_names_is_accepted() -> None:
    other = METRICS + "[metrics.other]\ndirection = 'higher'\nmin = 1\n"
    runs = seeds("c", dict.fromkeys(range(3), 0.0), metrics={"m": 0.7, "other": 0.0})
    report = judged(runs, OLD, policy(UNTIL, metrics=other), today=UNTIL)
    assert report.outcome is Outcome.REGRESSION
    assert [one.verdict for one in report.metrics] == [Verdict.ACCEPTED, Verdict.FAIL]


def test_a_metric_of_a_pattern_can_be_accepted() -> None:
    by_pattern = METRICS.replace("metrics.m", 'metrics."*"')
    assert on(UNTIL, policy(UNTIL, metrics=by_pattern)).outcome is Outcome.WARN


@pytest.mark.parametrize("name", ["terminal", *(one.name for one in FORMATS)])
@pytest.mark.parametrize("today", [UNTIL, date(2027, 1, 1)], ids=["used", "expired"])
def test_every_report_shows_the_approval(name: str, today: date) -> None:
    report = on(today, policy(UNTIL))
    text = terminal(report, 300) if name == "terminal" else render(report, name)
    for part in ("2026-12-31", "the evaluation team", "the new tokenizer costs a point"):
        assert part in text, part
    assert ("EXPIRED" in text or '"expired"' in text) is (today > UNTIL)
