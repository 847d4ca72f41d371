"""Slow decline: the trend over the last blessings, its verdict, and what it must not flag."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from orbiter_mlflow.gate.drift import LEVEL, find_drift, trend
from orbiter_mlflow.gate.judge import judge
from orbiter_mlflow.gate.lineage import PastBlessing, Summary
from orbiter_mlflow.gate.model import (
    BaselineSource,
    DriftResult,
    GateReport,
    GateRun,
    Outcome,
    Verdict,
)
from orbiter_mlflow.gate.policy import Policy
from orbiter_mlflow.gate.reports import terminal, wording

METRIC = "eval/accuracy"


def policy(**more: Any) -> Policy:
    metric = {"direction": "higher", "max_drop": 0.02} | more
    return Policy.model_validate(
        {
            "gate": {"schema": 1},
            "baseline": {"filter": "x", "min_runs": 1, "drift": True},
            "metrics": {METRIC: metric},
        }
    )


def blessing(name: object, mean: float, **more: Any) -> PastBlessing:
    return PastBlessing(f"release {name}", {METRIC: Summary(3, mean, 0.004)}, **more)


def runs(name: str, mean: float) -> list[GateRun]:
    return [
        GateRun(f"{name}{n}", "", "FINISHED", {}, {}, {METRIC: mean + (n - 1) * 0.004})
        for n in range(3)
    ]


def judged(means: Sequence[float], now: float, asked: Policy | None = None) -> GateReport:
    """The report after blessings with these means, the oldest first."""
    past = [blessing(n, mean) for n, mean in enumerate(means)]
    return judge(
        asked or policy(),
        runs("new", now),
        runs("old", means[-1]),
        source=BaselineSource("a filter"),
        past=past[::-1],
    )


def only(report: GateReport) -> DriftResult:
    (found,) = report.drift
    return found


STEPS = (0.90, 0.894, 0.889, 0.882, 0.877, 0.87)
"""Each step is within max_drop = 0.02, their sum is not."""


# -- the test --------------------------------------------------------------------------------------


def test_the_slope_and_its_p_value_are_those_of_a_linear_regression() -> None:
    losses = [0.3, 0.1, 0.5, 0.4, 0.9, 0.7]
    expected = stats.linregress(range(6), losses, alternative="greater")
    found = trend(losses, [3] * 6)
    assert found.slope == pytest.approx(expected.slope)
    assert found.p_value == pytest.approx(expected.pvalue)
    assert found.decline == pytest.approx(5 * expected.slope)


def test_blessings_of_more_runs_count_more() -> None:
    losses, weights = [0.3, 0.1, 0.5, 0.4, 2.0], [3, 3, 3, 3, 1]
    slope, _ = np.polyfit(range(5), losses, 1, w=np.sqrt(weights))
    assert trend(losses, weights).slope == pytest.approx(slope)


def test_a_perfect_line_needs_no_test_and_no_change_is_no_decline() -> None:
    assert trend([1.0, 2.0, 3.0, 4.0], [1] * 4, 1e-12).p_value is None
    flat = trend([0.5] * 5, [1] * 5, 1e-12)
    assert (flat.slope, flat.decline, flat.p_value) == (0.0, 0.0, None)
    assert trend([1e-200, 3e-200, 2e-200, 4e-200], [1] * 4).p_value == pytest.approx(
        trend([1.0, 3.0, 2.0, 4.0], [1] * 4).p_value
    )


def test_false_alarms_within_twenty_releases_are_about_alpha() -> None:
    random = np.random.default_rng(7)
    alarms = 0
    for _ in range(200):
        means = random.normal(size=(24, 3)).mean(axis=1)
        alarms += any(
            (p := trend([*means[max(0, n - 10) : n + 1]], [3.0] * min(n + 1, 11)).p_value)
            is not None
            and p <= LEVEL * 0.05
            for n in range(4, 24)
        )
    assert alarms / 200 < 0.12  # 6.9% in the simulation of the documentation


# -- the verdict -----------------------------------------------------------------------------------


def test_a_decline_in_small_steps_fails_although_each_step_is_tolerated() -> None:
    report = judged(STEPS, 0.866)
    assert [one.verdict for one in report.metrics] == [Verdict.PASS]
    assert only(report).verdict is Verdict.FAIL
    assert (report.outcome, report.outcome.exit_code) == (Outcome.REGRESSION, 1)
    assert only(report).decline == pytest.approx(0.0349, abs=1e-3)
    assert only(report).points == 7
    assert wording.headline(report) == (
        "REGRESSION: eval/accuracy has declined by 0.034714 over 7 points, past what the policy "
        "tolerates; 1 of 1 metric"
    )
    shown = " ".join(terminal.render(report, width=200).split())
    assert "Slow decline over the last blessings: 1 of 1 metric" in shown
    assert "over 6 blessings and the candidate" in shown


def test_a_decline_that_warns_or_informs_does_not_fail_the_build() -> None:
    assert judged(STEPS, 0.866, policy(severity="warn")).outcome is Outcome.WARN
    report = judged(STEPS, 0.866, policy(severity="info"))
    assert (report.outcome, only(report).verdict) == (Outcome.PASS, Verdict.FAIL)


def test_without_drift_in_the_policy_there_is_none() -> None:
    asked = policy()
    quiet = asked.model_copy(
        update={"baseline": asked.baseline.model_copy(update={"drift": False})}
    )
    report = judged(STEPS, 0.866, quiet)
    assert (report.outcome, report.drift, len(report.history)) == (Outcome.PASS, (), 6)


@pytest.mark.parametrize(
    ("means", "now"),
    [
        ((0.86, 0.867, 0.871, 0.88, 0.886), 0.89),  # it gets better
        ((0.9, 0.899, 0.898, 0.897, 0.896), 0.895),  # a decline within tolerance
        ((0.90, 0.87, 0.895, 0.865, 0.893), 0.876),  # chance
    ],
)
def test_what_is_no_decline_past_tolerance_passes(means: tuple[float, ...], now: float) -> None:
    assert only(judged(means, now)).verdict is Verdict.PASS


def test_a_lower_loss_and_a_target_have_their_own_direction() -> None:
    rising = [1 - mean for mean in STEPS]
    assert only(judged(rising, 0.134, policy(direction="lower"))).verdict is Verdict.FAIL
    assert only(judged(rising, 0.134)).verdict is Verdict.PASS
    away = policy(direction="target", target=0.9)
    assert only(judged(STEPS, 0.866, away)).verdict is Verdict.FAIL


def test_with_fewer_than_four_blessings_there_is_a_note_and_no_verdict() -> None:
    report = judged(STEPS[:3], 0.88)
    assert (report.drift, report.outcome) == ((), Outcome.PASS)
    assert report.notes[-1].startswith("drift of the metrics is not judged yet: it takes 4 bless")


def test_a_loss_that_a_person_accepted_begins_a_new_trend() -> None:
    means = (0.95, 0.95, 0.95, 0.90, 0.901, 0.899, 0.9)
    past = [blessing(n, mean) for n, mean in enumerate(means)]
    accepted = [replace(one, lowered=(METRIC,)) if n == 3 else one for n, one in enumerate(past)]
    other_data = [
        replace(one, differs=("datasets.eval",)) if n < 3 else one for n, one in enumerate(past)
    ]
    asked = policy()
    report = judged(means, 0.9)
    points = []
    for history in (past, accepted, other_data):
        found, notes = find_drift(
            asked.metrics, report.metrics, history, alpha=0.05, correction="holm"
        )
        assert not notes
        points.append([(one.points, one.verdict) for one in found])
    assert points == [[(8, Verdict.FAIL)], [(5, Verdict.PASS)], [(5, Verdict.PASS)]]


def test_trends_of_several_metrics_share_alpha() -> None:
    means = (0.900, 0.8885, 0.894, 0.88, 0.884, 0.877)
    alone = only(judged(means, 0.871))
    assert alone.verdict is Verdict.FAIL
    assert alone.p_value is not None
    assert LEVEL * 0.05 / 20 < alone.p_value <= LEVEL * 0.05
    keys = [METRIC, *(f"m{n}" for n in range(19))]
    many = Policy.model_validate(
        {
            "gate": {"schema": 1},
            "baseline": {"filter": "x", "min_runs": 1, "drift": True},
            "metrics": {key: {"direction": "higher", "max_drop": 0.02} for key in keys},
        }
    )
    calm = [0.9, 0.901, 0.899, 0.9, 0.902, 0.898]

    def with_all(run: GateRun) -> GateRun:
        return replace(run, metrics={**dict.fromkeys(keys, 0.9), **run.metrics})

    past = [
        PastBlessing(
            str(n), dict.fromkeys(keys, Summary(3, rest, 0.01)) | {METRIC: Summary(3, mean, 0.01)}
        )
        for n, (mean, rest) in enumerate(zip(means, calm, strict=True))
    ]
    report = judge(
        many,
        [with_all(run) for run in runs("new", 0.871)],
        [with_all(run) for run in runs("old", 0.877)],
        source=BaselineSource("a filter"),
        past=past[::-1],
    )
    first = report.drift[0]
    assert first.p_value == pytest.approx(alone.p_value)
    assert first.p_adjusted == pytest.approx(20 * alone.p_value)
    assert first.verdict is Verdict.PASS
    assert "which may be chance" in first.reason


def test_a_candidate_without_a_usable_value_has_no_trend() -> None:
    report = judged(STEPS, math.nan)
    assert report.drift == ()
    assert report.outcome is Outcome.REGRESSION
