"""Verdicts: edge cases by name, the outcome over all metrics, and invariances."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orbiter_mlflow.errors import PolicyError
from orbiter_mlflow.gate.judge import judge
from orbiter_mlflow.gate.model import (
    BaselineSource,
    Direction,
    FieldDifference,
    GateReport,
    GateRun,
    LeftOut,
    MetricResult,
    Outcome,
    Test,
    Verdict,
)
from orbiter_mlflow.gate.policy import Policy, load_policy

SOURCE = BaselineSource("made up for the test")
NAN, INF = math.nan, math.inf
FIVE = [0.80, 0.81, 0.82, 0.80, 0.81]
THREE = [0.80, 0.81, 0.82]


def run(run_id: str, metrics: Mapping[str, float] | float | None, **fields: Any) -> GateRun:
    """A run with these metrics; a number is that of the metric `m`."""
    if not isinstance(metrics, Mapping):
        metrics = {} if metrics is None else {"m": metrics}
    kept: dict[str, Any] = {"status": "FINISHED", "params": {}, "datasets": {}, **fields}
    return GateRun(run_id=run_id, name=f"run {run_id}", metrics=metrics, **kept)


def runs(side: str, values: Sequence[float | None], **fields: Any) -> list[GateRun]:
    return [run(f"{side}{n}", value, **fields) for n, value in enumerate(values)]


def seeded(side: str, values: Mapping[int, float]) -> list[GateRun]:
    return [
        run(f"{side}{seed}", value, params={"extra.seed": str(seed)})
        for seed, value in values.items()
    ]


def for_one(direction: Direction = "higher", **limits: Any) -> Policy:
    return Policy.for_one("m", direction=direction, **limits)


def judged(
    candidate: Sequence[GateRun | float | None],
    baseline: Sequence[GateRun | float | None],
    policy: Policy | None = None,
    **more: Any,
) -> GateReport:
    sides = [
        [one if isinstance(one, GateRun) else run(f"{name}{n}", one) for n, one in enumerate(side)]
        for name, side in (("c", candidate), ("b", baseline))
    ]
    return judge(policy or for_one(max_drop=0.01), *sides, source=SOURCE, **more)


def only(report: GateReport) -> MetricResult:
    assert len(report.metrics) == 1
    return report.metrics[0]


def verdict(*args: Any, **more: Any) -> Verdict:
    return only(judged(*args, **more)).verdict


# -- the edge cases --------------------------------------------------------------------------------


def test_missing_from_the_candidate_fails() -> None:
    report = judged([None], FIVE)
    assert report.outcome is Outcome.REGRESSION
    assert only(report).verdict is Verdict.FAIL
    assert only(report).reason == "1 of 1 candidate runs have no value of it: c0"


def test_missing_from_some_seeds_of_the_candidate_fails() -> None:
    found = only(judged([0.9, None, 0.9], FIVE))
    assert found.verdict is Verdict.FAIL
    assert found.reason == "1 of 3 candidate runs have no value of it: c1"
    assert (found.candidate.n, found.candidate.missing) == (2, ("c1",))


def test_missing_at_the_step_of_the_policy_fails() -> None:
    found = only(judged([None], FIVE, for_one(max_drop=0.01, at="step=100")))
    assert found.reason == "1 of 1 candidate runs have no value of it at step 100: c0"
    assert found.at == "step=100"


def test_missing_everywhere_fails() -> None:
    assert verdict([None], [None]) is Verdict.FAIL


def test_missing_from_the_baseline_is_new_and_only_bounds_count() -> None:
    report = judged([0.9], [None, None], for_one(max_drop=0.01, min=0.8))
    assert report.outcome is Outcome.WARN
    assert only(report).verdict is Verdict.NEW
    assert only(report).test is Test.BOUNDS
    assert only(report).reason == (
        "no run of the baseline has it: it is within its bounds, and nothing else could be judged"
    )
    assert verdict([0.7], [None], for_one(max_drop=0.01, min=0.8)) is Verdict.FAIL
    assert "it has no bounds" in only(judged([0.7], [None])).reason


def test_missing_from_some_baseline_runs_is_reported() -> None:
    found = only(judged([0.81] * 3, [*THREE, None, None]))
    assert found.verdict is Verdict.PASS
    assert (found.baseline.n, found.baseline.missing) == (3, ("b3", "b4"))
    assert found.reason.endswith("; 2 of 5 baseline runs lack it and do not count")


@pytest.mark.parametrize("value", [NAN, INF, -INF, 1.797e308, -1.797e308])
@pytest.mark.parametrize("direction", ["higher", "lower"])
def test_a_candidate_that_is_not_finite_fails(value: float, direction: Direction) -> None:
    report = judged([0.9, value], FIVE, for_one(direction, max_drop=100.0))
    assert report.outcome is Outcome.REGRESSION
    kind = "NaN" if math.isnan(value) else "inf" if value > 0 else "-inf"
    assert only(report).reason == f"value is {kind} in 1 of 2 runs: c1"


def test_a_candidate_that_is_not_finite_fails_with_bounds_alone() -> None:
    assert verdict([NAN], FIVE, for_one(min=0.0)) is Verdict.FAIL
    assert verdict([-INF], FIVE, for_one(max=0.0)) is Verdict.FAIL


@pytest.mark.parametrize("value", [NAN, INF, -INF, 1.797e308, -1.797e308])
def test_a_baseline_that_is_not_finite_cannot_be_compared(value: float) -> None:
    report = judged([0.9], [*THREE, value])
    assert report.outcome is Outcome.CANNOT_COMPARE
    assert only(report).verdict is Verdict.CANNOT_COMPARE
    assert only(report).reason.startswith("the baseline's value is ")
    assert only(report).reason.endswith(" in 1 of 4 runs: b3")
    assert verdict([0.9], [NAN], for_one(max_drop=0.01, min=1.0)) is Verdict.FAIL
    assert verdict([0.9], [NAN], for_one(min=0.5)) is Verdict.PASS


@pytest.mark.parametrize("value", [1.1e150, -1e300])
def test_a_value_too_large_for_the_statistics_is_refused(value: float) -> None:
    fault = "value is beyond 1e+150, too large for the statistics, in 1 of"
    found = only(judged([0.9, value], FIVE, for_one(max_drop=100.0)))
    assert (found.verdict, found.reason) == (Verdict.FAIL, f"{fault} 2 runs: c1")
    found = only(judged([0.9], [*THREE, value]))
    reason = f"the baseline's {fault} 4 runs: b3"
    assert (found.verdict, found.reason) == (Verdict.CANNOT_COMPARE, reason)


RELATIVE = for_one("lower", max_drop_rel=0.1)


def test_zero_to_zero_passes() -> None:
    assert verdict([0.0], [0.0], RELATIVE) is Verdict.PASS
    assert verdict([0.0] * 3, [0.0] * 5, RELATIVE) is Verdict.PASS


def test_worse_than_zero_with_a_relative_limit_alone_fails() -> None:
    for candidate, baseline in (([0.5], [0.0]), ([1.0, 0.0, 0.0], [0.0] * 5)):
        found = only(judged(candidate, baseline, RELATIVE))
        assert found.verdict is Verdict.FAIL
        assert "than 0: add max_drop, an absolute limit" in found.reason
        assert found.change_rel is None


def test_worse_than_zero_with_an_absolute_limit_is_held_against_that() -> None:
    both = for_one("lower", max_drop_rel=0.1, max_drop=1.0)
    found = only(judged([0.5], [0.0], both))
    assert found.verdict is Verdict.PASS
    assert "max_drop_rel has no meaning for a baseline of 0" in found.reason
    assert verdict([1.5], [0.0], both) is Verdict.FAIL


def test_better_than_zero_passes() -> None:
    assert verdict([-0.5], [0.0], RELATIVE) is Verdict.PASS


def test_a_negative_baseline_counts_by_its_size() -> None:
    by_half = for_one("higher", max_drop_rel=0.5)
    found = only(judged([-14.0], [-10.0], by_half))
    assert (found.verdict, found.change, found.change_rel) == (Verdict.PASS, -4.0, -0.4)
    assert verdict([-16.0], [-10.0], by_half) is Verdict.FAIL
    assert verdict([10.0], [-10.0], by_half) is Verdict.PASS


@pytest.mark.parametrize("status", ["RUNNING", "FAILED", "KILLED", "SCHEDULED"])
def test_a_candidate_that_is_not_finished_cannot_be_compared(status: str) -> None:
    report = judged([0.9, run("x", 0.9, status=status)], FIVE)
    assert report.outcome is Outcome.CANNOT_COMPARE
    (problem,) = report.problems
    assert problem.startswith(f"candidate run x is incomplete: it is {status}, not FINISHED: ")
    assert "run its seed again" in problem
    assert only(report).verdict is Verdict.CANNOT_COMPARE


def test_an_incomplete_candidate_cannot_be_compared() -> None:
    waiting = run("x", 0.1, undelivered="part of it waits on this machine")
    report = judged([waiting], FIVE, for_one(max_drop=0.01, min=0.5))
    assert report.outcome is Outcome.CANNOT_COMPARE
    assert report.problems == ("candidate run x is incomplete: part of it waits on this machine",)
    assert only(report).reason == "not judged: the candidate is incomplete"


def test_an_unfinished_candidate_may_still_log_a_missing_metric() -> None:
    assert verdict([run("x", None, status="RUNNING")], FIVE) is Verdict.CANNOT_COMPARE


def test_no_candidate_cannot_be_compared() -> None:
    report = judged([], FIVE)
    assert report.outcome is Outcome.CANNOT_COMPARE
    assert report.problems == ("there is no candidate run",)


def test_baseline_runs_that_are_not_whole_are_left_out_and_counted() -> None:
    bad = [
        run("f", 0.1, status="FAILED"),
        run("k", 0.1, status="FAILED"),
        run("u", 0.1, undelivered="part of it waits"),
    ]
    report = judged([0.81] * 3, [*THREE, *bad])
    assert report.outcome is Outcome.PASS
    assert [one.run_id for one in report.baseline] == ["b0", "b1", "b2"]
    assert report.left_out == (
        LeftOut("f", "run f", "it is FAILED, not FINISHED"),
        LeftOut("k", "run k", "it is FAILED, not FINISHED"),
        LeftOut("u", "run u", "part of it waits"),
    )
    assert report.notes == (), "each report lists them by itself"


def test_the_candidate_is_never_part_of_its_baseline() -> None:
    candidate = run("c0", 0.5)
    report = judged([candidate], [candidate, *THREE])
    assert report.outcome is Outcome.REGRESSION
    assert only(report).baseline.n == 3
    assert report.left_out == (LeftOut("c0", "run c0", "it is a candidate itself"),)


def test_runs_that_were_left_out_before_are_counted_too() -> None:
    before = [LeftOut("x", "x", "it is KILLED, not FINISHED"), LeftOut("f", "f", "known before")]
    report = judged([0.81], [*THREE, run("f", 1, status="FAILED")], left_out=before)
    assert [one.run_id for one in report.left_out] == ["x", "f"]


def test_a_run_that_is_named_twice_counts_once() -> None:
    one, other = run("c", 0.81), run("b", 0.81)
    report = judged([one, one], [other, other])
    assert (only(report).candidate.n, only(report).baseline.n) == (1, 1)
    assert report.notes == ("1 candidate runs were named more than once",)


# -- bounds and tolerance --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("direction", "candidate", "baseline"),
    [
        ("higher", 0.79, 0.80),
        ("lower", 0.81, 0.80),
        ("higher", 1e6 - 0.01, 1e6),
        ("higher", -0.01, 0.0),
    ],
)
def test_a_loss_of_just_the_tolerance_passes(
    direction: Direction, candidate: float, baseline: float
) -> None:
    assert verdict([candidate], [baseline], for_one(direction, max_drop=0.01)) is Verdict.PASS
    further = candidate + (-1e-5 if direction == "higher" else 1e-5)
    assert verdict([further], [baseline], for_one(direction, max_drop=0.01)) is Verdict.FAIL


def test_no_loss_at_all_is_allowed_but_rounding() -> None:
    none = for_one("lower", max_drop=0.0)
    assert verdict([0.1 + 0.2], [0.3], none) is Verdict.PASS
    assert verdict([0.3001], [0.3], none) is Verdict.FAIL


def test_past_any_one_limit_is_past_tolerance() -> None:
    both = for_one(max_drop=0.1, max_drop_rel=0.01)
    found = only(judged([0.75], [0.8], both))
    assert found.verdict is Verdict.FAIL
    assert "past max_drop_rel = 0.01, here 0.008" in found.reason
    assert "max_drop = " not in found.reason
    found = only(judged([0.65], [0.8], both))
    assert "past max_drop = 0.1 and max_drop_rel = 0.01, here 0.008" in found.reason


@pytest.mark.parametrize(
    ("direction", "limits", "allowed"),
    [
        ("higher", {"max_drop": 1.0, "max_drop_rel": 0.25}, (9.0, None)),
        ("higher", {"max_drop": 4.0, "max_drop_rel": 0.25, "min": 1.0, "max": 20.0}, (7.5, 20.0)),
        ("lower", {"max_drop": 1.0, "min": 0.0}, (0.0, 11.0)),
        ("higher", {"min": 9.5, "max_drop": 1.0}, (9.5, None)),
        ("target", {"target": 8.0, "max_drop": 1.0}, (5.0, 11.0)),
    ],
)
def test_the_allowed_range_is_given_as_numbers(
    direction: Direction, limits: dict[str, float], allowed: tuple[float | None, float | None]
) -> None:
    assert only(judged([10.0], [10.0], for_one(direction, **limits))).allowed == allowed


def test_bounds_are_held_against_the_mean() -> None:
    bounds = for_one(min=0.8, max=0.9)
    assert verdict([0.7, 0.9], FIVE, bounds) is Verdict.PASS
    assert verdict([0.8], FIVE, bounds) is Verdict.PASS
    assert verdict([0.1 + 0.7], FIVE, bounds) is Verdict.PASS  # 0.7999999999999999
    below, above = only(judged([0.7, 0.8], FIVE, bounds)), only(judged([0.91], FIVE, bounds))
    assert below.reason.startswith("mean 0.75 of 2 runs is below min = 0.8")
    assert above.reason.startswith("0.91 is above max = 0.9")
    assert (below.verdict, above.verdict) == (Verdict.FAIL, Verdict.FAIL)


def test_the_effect_is_shown_with_bounds_alone() -> None:
    found = only(judged([0.85, 0.86, 0.87], THREE, for_one(min=0.8)))
    assert (found.verdict, found.test, found.p_value) == (Verdict.PASS, Test.BOUNDS, None)
    assert found.change == pytest.approx(0.05)
    assert found.bound is None, "no test decides"
    assert found.reason.startswith("within its bounds: better by 0.05")


def test_information_never_fails_a_build() -> None:
    info = for_one(severity="info")
    found = only(judged([0.7] * 3, THREE, info))
    assert found.verdict is Verdict.PASS
    assert found.reason.startswith("for information, without a limit: worse by 0.11")
    strict = for_one(severity="info", max_drop=0.0, min=0.9)
    for candidate in ([0.5], [NAN], [None]):
        report = judged(candidate, THREE, strict)
        assert (only(report).verdict, report.outcome) == (Verdict.FAIL, Outcome.PASS)


def test_a_warning_never_stops_a_build() -> None:
    warn = for_one(severity="warn", max_drop=0.01)
    for candidate, baseline in (([0.5], FIVE), ([None], FIVE), ([0.8], [NAN]), ([0.8], [None])):
        assert judged(candidate, baseline, warn).outcome is Outcome.WARN


def test_the_distance_to_a_target_is_the_loss() -> None:
    near = for_one("target", target=1.0, max_drop=0.1)
    assert verdict([0.95], [1.1], near) is Verdict.PASS
    found = only(judged([0.5], [1.1], near))
    assert found.verdict is Verdict.FAIL
    assert found.change == pytest.approx(0.4)
    assert found.target == 1.0
    # Means of the values would be 1 and 1: it is the distances that grew.
    assert verdict([0.5, 1.5], [0.9, 1.1], near) is Verdict.FAIL


# -- statistics ------------------------------------------------------------------------------------


def test_one_against_one_is_tolerance_only_and_says_so() -> None:
    found = only(judged([0.70], [0.80]))
    assert (found.verdict, found.test) == (Verdict.FAIL, Test.TOLERANCE)
    assert (found.p_value, found.bound) == (None, None)
    assert found.reason == (
        "worse by 0.1 (12.50%), past max_drop = 0.01; tolerance only, because 1 baseline runs are "
        "too few for a test: it takes 3"
    )
    assert "tolerance only" in only(judged([0.80], [0.80])).reason


def test_one_against_five_is_a_prediction_interval() -> None:
    # Baseline 0.80, 0.81, 0.82, 0.80, 0.81: mean 0.808, s = 0.0083666; t(4) cuts off 5% at 2.1318.
    # One-sided, a run is worse than chance below 0.808 - 2.1318 * s * sqrt(1.2) = 0.78846.
    found = only(judged([0.788], FIVE))
    assert (found.verdict, found.test) == (Verdict.FAIL, Test.PREDICTION)
    assert found.p_value == pytest.approx(0.0475, abs=1e-3)
    assert found.change == pytest.approx(-0.02)
    assert found.change_rel == pytest.approx(-0.02 / 0.808)
    assert found.bound is not None
    assert (found.bound.kind, found.bound.confidence) == ("at least", 0.95)
    assert found.bound.value == pytest.approx(0.02 - (0.808 - 0.78846), abs=1e-5)
    assert verdict([0.789], FIVE) is Verdict.INCONCLUSIVE
    assert only(judged([0.789, 0.789], FIVE)).test is Test.PREDICTION


def test_three_against_three_by_welch() -> None:
    # Variances 0.0001 each: t = 0.05 / sqrt(0.0002 / 3) = 6.124, 4 degrees of freedom, of which
    # 2.1318 cuts off 5%.
    found = only(judged([0.75, 0.76, 0.77], THREE, for_one(max_drop=0.01, test="welch")))
    assert (found.verdict, found.test) == (Verdict.FAIL, Test.WELCH)
    assert found.p_value == pytest.approx(0.0018, abs=1e-4)
    assert found.bound is not None
    assert found.bound.value == pytest.approx(0.05 - 2.1318 * math.sqrt(0.0002 / 3), abs=1e-5)
    assert "p = 0.0018 by Welch's t-test" in found.reason


BY_SEED = for_one(max_drop=0.01, paired_by="params.extra.seed")
SEEDS = {1: 0.70, 2: 0.80, 3: 0.90}


def test_the_same_seeds_are_paired() -> None:
    # Differences 0.02, 0.03, 0.04: t = 0.03 / (0.01 / sqrt(3)) = 5.196, 2 degrees of freedom, and
    # p = 0.0175, doubled as it is one of two looks. The spread of the seeds hides it from the
    # other.
    worse = {3: 0.86, 1: 0.68, 2: 0.77}
    found = only(judged(seeded("c", worse), seeded("b", SEEDS), BY_SEED))
    assert (found.verdict, found.test) == (Verdict.FAIL, Test.COMBINED)
    assert found.p_value == pytest.approx(0.0351, abs=1e-4)
    alone = for_one(max_drop=0.01, paired_by="params.extra.seed", test="paired")
    found = only(judged(seeded("c", worse), seeded("b", SEEDS), alone))
    assert found.test is Test.PAIRED
    assert found.p_value == pytest.approx(0.0175, abs=1e-4)
    unpaired = only(judged(seeded("c", worse), seeded("b", SEEDS)))
    assert (unpaired.verdict, unpaired.test) == (Verdict.PASS, Test.PREDICTION)
    assert unpaired.by_chance


def test_further_seeds_are_not_paired_and_the_reason_says_so() -> None:
    candidate = seeded("c", {1: 0.6, 2: 0.7, 3: 0.8, 4: 0.8})
    found = only(judged(candidate, seeded("b", SEEDS), BY_SEED))
    assert found.test is Test.PREDICTION
    assert "not paired: the values of params.extra.seed differ between the sides" in found.reason
    forced = for_one(max_drop=0.01, paired_by="params.extra.seed", test="paired")
    report = judged(candidate, seeded("b", SEEDS), forced)
    assert report.outcome is Outcome.CANNOT_COMPARE
    assert only(report).verdict is Verdict.CANNOT_COMPARE
    assert "needs the same values of params.extra.seed on both sides" in only(report).reason


@pytest.mark.parametrize(
    ("candidate", "lacking"),
    [
        (seeded("c", {1: 0.9, 2: 0.9, 4: 0.9}), "3"),
        (seeded("c", {2: 0.9}), "1, 3"),
        (runs("c", [0.9, 0.9, 0.9]), "1, 2, 3"),
        (runs("c", [0.9, 0.9, 0.9], params={"extra.seed": "1"}), "2, 3"),
    ],
    ids=["another", "the best alone", "no seed known", "the same thrice"],
)
def test_seeds_that_the_candidate_lacks_cannot_be_compared(
    candidate: list[GateRun], lacking: str
) -> None:
    report = judged(candidate, seeded("b", SEEDS), BY_SEED)
    assert report.outcome is Outcome.CANNOT_COMPARE
    assert only(report).reason == (
        f"not compared: no candidate run has params.extra.seed = {lacking}, which the baseline "
        "has: run the missing seeds too, or bless a baseline without them"
    )


def test_a_seed_without_the_metric_is_not_paired() -> None:
    baseline = [*seeded("b", SEEDS), run("b4", None, params={"extra.seed": "4"})]
    candidate = seeded("c", SEEDS)
    assert only(judged(candidate, baseline, BY_SEED)).test is Test.EXACT  # paired, no difference


def test_constant_on_both_sides_is_exact() -> None:
    found = only(judged([0.75] * 3, [0.80] * 3))
    assert (found.verdict, found.test) == (Verdict.FAIL, Test.EXACT)
    assert (found.p_value, found.p_adjusted, found.bound) == (None, None, None)
    assert "there is no spread to test" in found.reason
    assert verdict([0.80] * 3, [0.80] * 3) is Verdict.PASS


def test_test_none_runs_no_test() -> None:
    found = only(judged([0.70, 0.80, 0.81], THREE, for_one(max_drop=0.01, test="none")))
    assert (found.verdict, found.test, found.p_value) == (Verdict.FAIL, Test.TOLERANCE, None)
    assert found.reason.endswith("; tolerance only, because test = 'none'")


def test_a_requested_test_with_too_few_runs_is_not_replaced() -> None:
    welch = for_one(max_drop=0.01, test="welch")
    report = judged([0.70], FIVE, welch)
    assert only(report).verdict is Verdict.CANNOT_COMPARE
    assert only(report).reason.endswith(
        "; test = 'welch' needs 2 runs on each side, but there are 1 and 5: add runs, or set "
        "test = 'auto'"
    )
    assert report.outcome is Outcome.CANNOT_COMPARE
    assert verdict([0.81], FIVE, welch) is Verdict.PASS


def test_past_tolerance_but_not_significant_is_inconclusive() -> None:
    report = judged([0.785, 0.79, 0.82], [0.80, 0.81, 0.825])
    found = only(report)
    assert (report.outcome, found.verdict) == (Outcome.WARN, Verdict.INCONCLUSIVE)
    assert found.seeds_needed is not None
    assert 3 < found.seeds_needed < 30
    assert found.reason.endswith(
        f"which may be chance: if it is real, about {found.seeds_needed} runs on each side would "
        "settle it"
    )


def test_a_change_that_no_number_of_seeds_settles(tmp_path: Path) -> None:
    sides = several("c", m=[0.79, 0.5, 0.93]), several("b", m=[0.8, 0.6, 0.83])
    policy = from_toml(tmp_path, table("m", max_drop=0.0), "on_inconclusive = 'fail'")
    found = only(judge(policy, *sides, source=SOURCE))
    assert (found.verdict, found.seeds_needed) == (Verdict.INCONCLUSIVE, None)
    assert found.reason.endswith("not even 1000 runs on each side would settle it")


def test_significant_but_within_tolerance_passes() -> None:
    found = only(judged([0.798, 0.7981, 0.7979], [0.8, 0.8001, 0.7999]))
    assert found.p_value is not None
    assert found.p_value < 0.001
    assert found.verdict is Verdict.PASS


# -- several metrics -------------------------------------------------------------------------------


def from_toml(tmp_path: Path, metrics: str, gate: str = "", comparable: str = "") -> Policy:
    path = tmp_path / "policy.toml"
    head = f"[gate]\nschema = 1\ncandidate_runs = 1\n{gate}\n[baseline]\nfilter = 'f'\n"
    path.write_text(f"{head}[comparable]\n{comparable}\n{metrics}")
    return load_policy(path)


def table(name: str, **values: str | float) -> str:
    lines = (f"{key} = {value!r}" for key, value in {"direction": "higher", **values}.items())
    return "\n".join([f'[metrics."{name}"]', *lines, ""])


def several(side: str, **metrics: list[float]) -> list[GateRun]:
    n = len(next(iter(metrics.values())))
    return [
        run(f"{side}{i}", {key: values[i] for key, values in metrics.items()}) for i in range(n)
    ]


def test_the_metrics_share_alpha(tmp_path: Path) -> None:
    # Alone, p = 0.0475 (see above) is significant; beside three others it is one of four.
    same = [0.8, 0.81, 0.82, 0.8, 0.81]
    candidate = several("c", a=[0.788], b=[0.81], c=[0.81], w=[0.81], i=[0.788])
    baseline = several("b", a=same, b=same, c=same, w=same, i=same)
    text = "".join(
        table(name, max_drop=0.01, severity=severity)
        for name, severity in (("a", "fail"), ("b", "fail"), ("c", "fail"), ("w", "warn"))
    )
    alone = judge(
        from_toml(tmp_path, table("a", max_drop=0.01)), candidate, baseline, source=SOURCE
    )
    assert only(alone).verdict is Verdict.FAIL
    policy = from_toml(tmp_path, text + table("i", max_drop=0.01, severity="info"))
    report = judge(policy, candidate, baseline, source=SOURCE)
    found = {one.metric: one for one in report.metrics}
    assert (found["a"].verdict, report.outcome) == (Verdict.INCONCLUSIVE, Outcome.WARN)
    assert found["a"].p_value == only(alone).p_value
    assert found["a"].p_adjusted == pytest.approx(4 * 0.0475, abs=4e-3)
    assert "p = 0.19 over 4 metrics by the prediction interval" in found["a"].reason
    assert found["i"].verdict is Verdict.FAIL  # it has no part in it
    assert found["i"].p_adjusted is None


def test_the_outcome_is_the_worst_that_counts(tmp_path: Path) -> None:
    good, bad, unsure = [0.81, 0.82, 0.83], [0.5, 0.51, 0.52], [0.785, 0.795, 0.8]
    baseline = several("b", good=THREE, bad=THREE, unsure=THREE, nan=[0.8, NAN, 0.8])
    candidate = several("c", good=good, bad=bad, unsure=unsure, nan=good, new=good)

    def outcome(*names: str, gate: str = "", severity: str = "fail") -> Outcome:
        text = "".join(table(name, max_drop=0.01, severity=severity) for name in names)
        policy = from_toml(tmp_path, text, gate)
        return judge(policy, candidate, baseline, source=SOURCE).outcome

    strict = "on_inconclusive = 'fail'"
    assert outcome("good") is Outcome.PASS
    assert outcome("good", "new") is Outcome.WARN
    assert outcome("good", "unsure") is Outcome.WARN
    assert outcome("good", "unsure", gate=strict) is Outcome.INCONCLUSIVE
    assert outcome("unsure", "nan", gate=strict) is Outcome.CANNOT_COMPARE
    assert outcome("unsure", "nan", "bad", "new", gate=strict) is Outcome.REGRESSION
    assert outcome("unsure", "nan", "bad", gate=strict, severity="warn") is Outcome.WARN
    assert outcome("unsure", "nan", "bad", gate=strict, severity="info") is Outcome.PASS


def test_patterns_take_the_metrics_of_both_sides(tmp_path: Path) -> None:
    policy = from_toml(tmp_path, table("eval/*", max_drop=0.01))
    candidate = [run("c", {"eval/a": 0.8, "eval/new": 0.1, "train/a": 0.0})]
    baseline = [run(f"b{n}", {"eval/a": 0.8, "eval/gone": 0.8}) for n in range(3)]
    report = judge(policy, candidate, baseline, source=SOURCE)
    assert {one.metric: one.verdict for one in report.metrics} == {
        "eval/a": Verdict.PASS,
        "eval/gone": Verdict.FAIL,
        "eval/new": Verdict.NEW,
    }
    with pytest.raises(PolicyError, match="no run has a metric that matches"):
        judge(from_toml(tmp_path, table("x*", min=0)), candidate, baseline, source=SOURCE)


# -- what must be equal ----------------------------------------------------------------------------

LIMIT = table("m", max_drop=0.01, min=0.5)
EQUAL = 'require_equal = ["datasets.eval", "params.extra.eval_set"]\nallow_differ = ["params.lr"]'


def fields(eval_set: str = "v1", digest: str = "d1", **params: str) -> dict[str, Any]:
    return {"params": {"extra.eval_set": eval_set, **params}, "datasets": {"eval": digest}}


def test_another_dataset_cannot_be_compared(tmp_path: Path) -> None:
    policy = from_toml(tmp_path, LIMIT, comparable=EQUAL)
    report = judged([run("c", 0.9, **fields(digest="d2"))], runs("b", THREE, **fields()), policy)
    assert report.outcome is Outcome.CANNOT_COMPARE
    assert report.differences == (FieldDifference("datasets.eval", ("d2",), ("d1",)),)
    assert list(report.problems) == [
        (
            "the runs differ in datasets.eval, which must be equal: restrict the baseline to runs "
            "like the candidate, or change comparable.require_equal"
        )
    ]
    assert only(report).reason == "not compared: the problems of the whole report say why"
    assert only(report).change is None


def test_another_eval_dataset_cannot_be_compared_unless_the_policy_says_so(tmp_path: Path) -> None:
    candidate = [run("c", 0.8, **fields(digest="d2"))]
    baseline = runs("b", THREE, **fields())
    assert judged(candidate, baseline).outcome is Outcome.CANNOT_COMPARE
    without = judged([run("c", 0.8)], baseline)  # has none, where the baseline has one
    assert without.differences == (FieldDifference("datasets.eval", (None,), ("d1",)),)
    for comparable in ("require_equal = []", "allow_differ = ['datasets.eval']"):
        policy = from_toml(tmp_path, LIMIT, comparable=comparable)
        assert judged(candidate, baseline, policy).outcome is Outcome.PASS


def test_another_param_cannot_be_compared(tmp_path: Path) -> None:
    policy = from_toml(tmp_path, LIMIT, comparable=EQUAL)
    report = judged([run("c", 0.8, **fields("v2"))], runs("b", THREE, **fields(lr="1")), policy)
    assert report.differences == (FieldDifference("params.extra.eval_set", ("v2",), ("v1",)),)
    assert report.outcome is Outcome.CANNOT_COMPARE


def test_candidates_that_differ_among_themselves_cannot_be_compared(tmp_path: Path) -> None:
    policy = from_toml(tmp_path, LIMIT, comparable=EQUAL)
    candidate = [run("c", 0.8, **fields()), run("d", 0.8, **fields("v2"))]
    report = judged(candidate, runs("b", THREE, **fields()), policy)
    assert report.differences == (FieldDifference("params.extra.eval_set", ("v1", "v2"), ("v1",)),)
    assert report.outcome is Outcome.CANNOT_COMPARE


def test_a_bound_fails_even_where_nothing_can_be_compared(tmp_path: Path) -> None:
    policy = from_toml(tmp_path, LIMIT, comparable=EQUAL)
    report = judged([run("c", 0.4, **fields("v2"))], runs("b", THREE, **fields()), policy)
    assert report.outcome is Outcome.REGRESSION
    assert report.problems
    assert verdict([None], [], policy) is Verdict.FAIL
    assert verdict([NAN], [], policy) is Verdict.FAIL


def test_a_field_that_no_run_has_is_a_problem(tmp_path: Path) -> None:
    policy = from_toml(
        tmp_path, LIMIT, comparable='require_equal = ["params.evalset", "params.x*"]'
    )
    report = judged([run("c", 0.8, **fields())], runs("b", THREE, **fields()), policy)
    assert report.outcome is Outcome.CANNOT_COMPARE
    assert [problem.split(",")[0] for problem in report.problems] == [
        "no run has the field params.evalset",
        "no run has the field params.x*",
    ]


def test_patterns_of_fields_have_exceptions(tmp_path: Path) -> None:
    comparable = 'require_equal = ["params.*"]\nallow_differ = ["params.lr", "params.extra.*"]'
    policy = from_toml(tmp_path, LIMIT, comparable=comparable)
    alike = fields(size="8", lr="1"), fields("v2", size="8", lr="2")
    assert judged([run("c", 0.8, **alike[0])], runs("b", THREE, **alike[1]), policy).problems == ()
    other = fields(size="16", lr="1")
    report = judged([run("c", 0.8, **other)], runs("b", THREE, **alike[1]), policy)
    assert report.differences == (FieldDifference("params.size", ("16",), ("8",)),)
    named = 'require_equal = ["params.extra.eval_set"]\nallow_differ = ["params.extra.*"]'
    policy = from_toml(tmp_path, LIMIT, comparable=named)
    report = judged([run("c", 0.8, **alike[0])], runs("b", THREE, **alike[1]), policy)
    assert [one.field for one in report.differences] == ["params.extra.eval_set"]


def test_differing_fields_that_the_policy_does_not_name_are_noted(tmp_path: Path) -> None:
    within = f'{EQUAL}\nvary_within = ["params.size"]'
    policy = from_toml(tmp_path, LIMIT, comparable=within)
    report = judged(
        [run("c", 0.8, **fields(lr="2", size="16", seed="1"))],
        [
            run(f"b{n}", 0.8, **fields(lr="1", seed=str(n), **({"size": "8"} if n else {})))
            for n in range(3)
        ],
        policy,
    )
    assert report.outcome is Outcome.PASS
    assert list(report.notes) == [
        (
            "candidate and baseline also differ in params.size (16; 8 | missing): add each to "
            "comparable.require_equal or comparable.allow_differ"
        )
    ]
    many = {f"p{n}": "x" * 100 for n in range(20)}
    note = judged([run("c", 0.8, **fields(**many))], runs("b", THREE, **fields())).notes[0]
    assert ", and 12 more: add each" in note
    assert len(note) < 1000


def test_the_field_that_pairs_runs_may_differ() -> None:
    assert judged(seeded("c", {7: 0.8}), seeded("b", SEEDS), BY_SEED).notes == ()


def test_unmatched_pairs_are_noted_even_if_the_metric_passes() -> None:
    report = judged(seeded("c", SEEDS | {4: 0.8}), seeded("b", SEEDS), BY_SEED)
    assert (report.metrics[0].verdict, report.metrics[0].test) == (Verdict.PASS, Test.PREDICTION)
    assert any("m is not paired: the values of" in note for note in report.notes)
    again = judged(seeded("c", SEEDS), seeded("b", SEEDS), BY_SEED)
    assert not any("not paired" in note for note in again.notes)


# -- no baseline -----------------------------------------------------------------------------------


def test_bounds_hold_where_the_baseline_cannot_be_had(tmp_path: Path) -> None:
    policy = from_toml(tmp_path, LIMIT)
    source = BaselineSource("file b.json")
    for value, outcome in ((0.4, Outcome.REGRESSION), (0.9, Outcome.CANNOT_COMPARE)):
        report = judge(policy, [run("c", value)], [], source=source, problems=["no b.json"])
        assert (report.outcome, report.problems) == (outcome, ("no b.json",))


def test_no_baseline_yet_cannot_be_compared(tmp_path: Path) -> None:
    report = judged([0.9], [], from_toml(tmp_path, LIMIT))
    assert (report.outcome, report.outcome.exit_code) == (Outcome.CANNOT_COMPARE, 3)
    assert list(report.problems) == [
        (
            "the baseline has no usable run, but needs 3 runs: bless 3 runs or more in one "
            "call, lower baseline.min_runs, compare with several blessings as one "
            "(baseline.pool), or let the bounds alone decide for now (--bootstrap)"
        )
    ]
    assert only(report).verdict is Verdict.CANNOT_COMPARE


def test_too_small_a_baseline_cannot_be_compared(tmp_path: Path) -> None:
    policy = from_toml(tmp_path, LIMIT)
    bad = run("x", 0.8, status="FAILED")
    report = judged([0.9], [0.8, 0.8, bad], policy)
    assert report.outcome is Outcome.CANNOT_COMPARE
    assert report.problems[0].startswith("the baseline has only 2 usable runs, but needs 3 runs: ")
    assert judged([0.9], [0.8, 0.8, 0.8, bad], policy).outcome is Outcome.PASS
    assert judged([0.9], [0.8]).outcome is Outcome.PASS  # the one that was named


@pytest.mark.parametrize("baseline", [[], [0.8, 0.8], [run("x", 0.8, status="FAILED")] * 3])
def test_bootstrap_is_visibly_unjudged(tmp_path: Path, baseline: list[GateRun | float]) -> None:
    report = judged([0.9], baseline, from_toml(tmp_path, LIMIT), bootstrap=True)
    assert (report.outcome, report.bootstrap) == (Outcome.WARN, True)
    assert (only(report).verdict, only(report).test) == (Verdict.UNJUDGED, Test.BOUNDS)
    assert report.notes[0].startswith("NOT JUDGED AGAINST A BASELINE: ")


def test_bootstrap_still_fails_by_bounds(tmp_path: Path) -> None:
    policy = from_toml(tmp_path, LIMIT)
    for candidate in ([0.4], [NAN], [None]):
        report = judged(candidate, [], policy, bootstrap=True)
        assert report.outcome is Outcome.REGRESSION
    running = run("c", 0.9, status="RUNNING")
    assert judged([running], [], policy, bootstrap=True).outcome is Outcome.CANNOT_COMPARE


def test_bootstrap_with_a_baseline_judges_all(tmp_path: Path) -> None:
    policy = from_toml(tmp_path, LIMIT)
    report = judged([0.7] * 3, THREE, policy, bootstrap=True)
    assert (report.outcome, report.bootstrap) == (Outcome.REGRESSION, False)
    assert report.notes == (
        "the baseline is complete and everything was judged: remove --bootstrap",
    )


def test_bounds_alone_pass_with_bootstrap(tmp_path: Path) -> None:
    policy = from_toml(tmp_path, table("m", min=0.5))
    report = judged([0.9], [], policy, bootstrap=True)
    assert (report.outcome, only(report).verdict) == (Outcome.PASS, Verdict.PASS)
    assert report.notes[0].startswith("NOT JUDGED AGAINST A BASELINE: ")
    assert judged([0.9], [], policy).outcome is Outcome.CANNOT_COMPARE


# -- the report ------------------------------------------------------------------------------------


def test_the_report_names_its_policy_and_runs() -> None:
    policy = for_one(max_drop=0.01)
    links = {"Compare": "http://localhost/#/compare-runs"}
    report = judged([0.8], [0.8], policy, links=links)
    assert (report.policy, report.policy_digest) == (policy.path, policy.digest)
    assert (report.alpha, report.source, report.links) == (0.05, SOURCE, links)
    assert (len(report.candidate), len(report.baseline)) == (1, 1)


# -- what must not matter --------------------------------------------------------------------------

SIDE = st.lists(st.integers(1, 400).map(lambda n: n / 8), min_size=1, max_size=6)
MIRRORED: dict[Direction, Direction] = {"higher": "lower", "lower": "higher"}


@settings(max_examples=40, deadline=None)
@given(SIDE, SIDE, st.sampled_from(["higher", "lower"]), st.integers(0, 20))
def test_the_direction_mirrors(
    candidate: list[float], baseline: list[float], direction: Direction, drop: int
) -> None:
    limits = {"max_drop": drop / 8, "max_drop_rel": 0.3}
    here = only(judged(candidate, baseline, for_one(direction, **limits)))
    sides = [-v for v in candidate], [-v for v in baseline]
    there = only(judged(*sides, for_one(MIRRORED[direction], **limits)))
    assert (here.verdict, here.worse_by) == (there.verdict, there.worse_by)
    assert (here.p_value, here.seeds_needed) == (there.p_value, there.seeds_needed)
    assert here.reason == there.reason


@settings(max_examples=40, deadline=None)
@given(SIDE, SIDE, st.integers(-200, 200), st.integers(0, 20))
def test_the_unit_does_not_matter(
    candidate: list[float], baseline: list[float], exponent: int, drop: int
) -> None:
    factor = 2.0**exponent
    here = only(judged(candidate, baseline, for_one(max_drop=drop / 8, max_drop_rel=0.3)))
    sides = [v * factor for v in candidate], [v * factor for v in baseline]
    scaled = for_one(max_drop=drop / 8 * factor, max_drop_rel=0.3)
    there = only(judged(*sides, scaled))
    assert (here.verdict, here.p_value) == (there.verdict, there.p_value)
    assert here.change is not None
    assert there.change == here.change * factor


@settings(max_examples=40, deadline=None)
@given(SIDE, SIDE, st.randoms(use_true_random=False))
def test_the_order_of_the_runs_does_not_matter(
    candidate: list[float], baseline: list[float], random: Random
) -> None:
    sides = runs("c", candidate), runs("b", baseline)
    here = only(judged(*sides))
    for side in sides:
        random.shuffle(side)
    there = only(judged(*sides))
    plain = replace(here, candidate=there.candidate, baseline=there.baseline)
    assert plain == there


@settings(max_examples=40, deadline=None)
@given(SIDE, SIDE)
def test_a_candidate_that_is_no_worse_never_fails(
    candidate: list[float], baseline: list[float]
) -> None:
    better = [value + max(baseline) for value in candidate]
    assert verdict(better, baseline, for_one(max_drop=0.0, max_drop_rel=0.0)) is Verdict.PASS


ANY = st.lists(st.floats() | st.sampled_from([0.0, 1.0, 1e-300, 1e300]), min_size=1, max_size=6)


@settings(max_examples=100, deadline=None)
@given(ANY, ANY, st.sampled_from(["higher", "lower", "target"]))
def test_any_logged_values_are_judged(
    candidate: list[float], baseline: list[float], direction: Direction
) -> None:
    target = {"target": 1.0} if direction == "target" else {}
    policy = for_one(direction, max_drop=0.5, max_drop_rel=0.1, min=-1e9, **target)
    found = only(judged(candidate, baseline, policy))
    assert found.p_value is None or 0 <= found.p_value <= 1
    finite = [abs(value) < 1.797e308 for value in candidate]
    assert all(finite) or found.verdict is Verdict.FAIL
    assert found.worse_by is None or not math.isnan(found.worse_by)
    if found.by_chance:
        assert found.p_value is not None
        assert found.p_value > 0.2
    elif found.verdict is Verdict.PASS:
        assert found.worse_by is not None
        assert found.worse_by <= 0.5 + 1e-9 * max(map(abs, (*candidate, *baseline)))


# -- best values -----------------------------------------------------------------------------------


def test_a_best_value_of_many_more_evaluations_is_noted() -> None:
    policy = for_one(max_drop=0.01, at="best")
    often = runs("c", THREE, evaluations={"m": 20})
    seldom = runs("b", THREE, evaluations={"m": 10})
    (note,) = judged(often, seldom, policy).notes
    assert note.startswith(
        "m is the best of 20 evaluations a run in the candidate, and of 10 in the baseline: "
        "chance favours the candidate"
    )
    assert "chance favours the baseline" in judged(seldom, often, policy).notes[0]
    nearly = runs("b", THREE, evaluations={"m": 14})
    assert not judged(often, nearly, policy).notes
    assert not judged(often, THREE, policy).notes  # a file from before they were counted
