"""What decides on a metric: collapsed seeds, bounds, chance, tests on request, batches, notes."""

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orbiter_mlflow.gate.judge import judge
from orbiter_mlflow.gate.model import (
    BaselineSource,
    Direction,
    GateReport,
    GateRun,
    MetricResult,
    Outcome,
    Test,
    Verdict,
)
from orbiter_mlflow.gate.policy import Policy, load_policy

SOURCE = BaselineSource("made up for the test")
STEADY = [0.949, 0.950, 0.951]
WIDE = [0.80, 0.81, 0.82]
AROUND = [0.801, 0.811, 0.822]
"""No better nor worse than `WIDE`, and no value occurs twice."""


def a_run(run_id: str, value: float, seed: int | None = None, **fields: Any) -> GateRun:
    params = {} if seed is None else {"extra.seed": str(seed)}
    return GateRun(run_id, f"run {run_id}", "FINISHED", params, {}, {"m": value}, **fields)


def side(name: str, values: Sequence[float], **fields: Any) -> list[GateRun]:
    return [a_run(f"{name}{seed}", value, seed, **fields) for seed, value in enumerate(values)]


def batches(*values: Sequence[float]) -> list[GateRun]:
    return [
        a_run(f"b{batch}{n}", value, n, batch=f"release {batch}")
        for batch, found in enumerate(values)
        for n, value in enumerate(found)
    ]


def judged(
    candidate: Sequence[float | GateRun],
    baseline: Sequence[float | GateRun],
    *,
    direction: Direction = "higher",
    **limits: Any,
) -> GateReport:
    limits = {"max_drop": 0.01} | limits
    ours, theirs = (
        [
            one if isinstance(one, GateRun) else a_run(f"{name}{n}", one, n)
            for n, one in enumerate(v)
        ]
        for name, v in (("c", candidate), ("b", baseline))
    )
    return judge(Policy.for_one("m", direction=direction, **limits), ours, theirs, source=SOURCE)


def only(report: GateReport) -> MetricResult:
    (found,) = report.metrics
    return found


def several(tmp_path: Path, count: int, gate: str = "", **limits: Any) -> Policy:
    """A policy for the metrics m0, m1, ..."""
    lines = "\n".join(f"{key} = {value!r}" for key, value in ({"max_drop": 0.0} | limits).items())
    tables = [f'[metrics."m{n}"]\ndirection = "lower"\n{lines}\n' for n in range(count)]
    path = tmp_path / "gate.toml"
    head = f"[gate]\nschema = 1\n{gate}\n[baseline]\nfilter = 'f'\nmin_runs = 1\n"
    path.write_text(head + "".join(tables))
    return load_policy(path)


def runs_of(name: str, *metrics: Sequence[float]) -> list[GateRun]:
    """Runs with the metrics m0, m1, ..."""
    return [
        replace(a_run(f"{name}{n}", 0), metrics={f"m{k}": v[n] for k, v in enumerate(metrics)})
        for n in range(len(metrics[0]))
    ]


# -- the worst run ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "candidate", [[0.2], [0.95, 0.2], [0.95, 0.951, 0.2], [*STEADY, 0.95, 0.2]]
)
@pytest.mark.parametrize("paired_by", [None, "params.extra.seed"])
def test_a_collapsed_seed_fails_however_many_seeds_there_are(
    candidate: list[float], paired_by: str | None
) -> None:
    if paired_by is not None:
        candidate = [*STEADY[len(candidate) :], *candidate]
    baseline = (STEADY * 2)[: max(3, len(candidate))]
    report = judged(candidate, baseline, paired_by=paired_by)
    found = only(report)
    assert report.outcome is Outcome.REGRESSION
    assert found.worst is not None
    assert (found.worst.value, found.worst.run_id) == (0.2, f"c{len(candidate) - 1}")
    assert found.worst.label == f"seed {len(candidate) - 1}"
    assert found.worst.worse_by == pytest.approx(0.75, abs=1e-3)
    assert found.worst.spreads == pytest.approx(750, rel=0.2)


def test_a_wider_candidate_is_said_where_it_is_past_tolerance() -> None:
    found = only(judged([0.95, 0.951, 0.2], STEADY))
    assert "the candidate's runs spread 433 times as wide as the baseline's" in found.reason
    assert "times as wide" not in only(judged([0.949, 0.92, 0.951], STEADY, max_drop=0.5)).reason


def test_the_worst_run_is_named_by_its_seed_or_its_name() -> None:
    def label(run: GateRun, **limits: Any) -> str:
        worst = only(judged([run], WIDE, **limits)).worst
        assert worst is not None
        return worst.label

    run = a_run("c", 0.5, 7)
    assert label(run) == "seed 7"
    assert label(replace(run, params={"lr": "1"})) == "run c"
    assert label(replace(run, params={}, name="")) == "c"
    folds = [
        replace(one, run_id=f"{one.run_id}-{side}", params={"fold": str(n), "seed": "1"})
        for side, values in (("b", WIDE), ("c", AROUND))
        for n, one in enumerate(a_run(f"f{n}", value, n) for n, value in enumerate(values))
    ]
    low = replace(folds[5], metrics=run.metrics)
    found = only(judged([folds[3], folds[4], low], folds[:3], paired_by="params.fold")).worst
    assert found is not None
    assert found.label == "fold 2"


def test_without_a_spread_the_worst_run_has_no_number_of_spreads() -> None:
    for baseline in ([0.8], [0.8, 0.8, 0.8]):
        worst = only(judged([0.5, 0.7], baseline)).worst
        assert worst is not None
        assert (worst.value, worst.spreads) == (0.5, None)


def test_the_worst_by_a_target_is_the_farthest_from_it() -> None:
    found = only(judged([1.0, 1.4, 0.7], [0.9, 1.1, 1.0], direction="target", target=1.0))
    assert found.worst is not None
    assert (found.worst.value, found.worst.run_id) == (1.4, "c1")


# -- bounds ----------------------------------------------------------------------------------------

VALUES = st.lists(st.integers(1, 400).map(lambda n: n / 8), min_size=1, max_size=6)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=4),
    st.sampled_from(["auto", "prediction", "welch", "permutation", "non_inferiority"]),
    st.sampled_from(["holm", "fdr"]),
    st.sampled_from(["higher", "lower"]),
    st.integers(1, 80),
)
def test_a_bound_never_contradicts_its_verdict(
    values: list[tuple[list[float], list[float]]],
    test: str,
    correction: str,
    direction: str,
    tolerance: int,
) -> None:
    metrics = {
        f"m{n}": {"direction": direction, "max_drop": tolerance / 8, "test": test}
        for n in range(len(values))
    }
    policy = Policy.model_validate(
        {
            "gate": {"schema": 1, "correction": correction},
            "baseline": {"filter": "f", "min_runs": 1},
            "metrics": metrics,
        }
    )
    m, n = (min(len(pair[which]) for pair in values) for which in (0, 1))
    ours = runs_of("c", *[pair[0][:m] for pair in values])
    theirs = runs_of("b", *[pair[1][:n] for pair in values])
    for found in judge(policy, ours, theirs, source=SOURCE).metrics:
        assert found.worse_by is not None
        past = found.worse_by > tolerance / 8
        if found.bound is None:
            continue
        if found.bound.kind == "at most":
            shown = found.bound.value <= tolerance / 8
            assert found.verdict is (Verdict.PASS if shown else Verdict.FAIL)
        elif found.verdict is Verdict.FAIL:
            assert past
            assert 0 <= found.bound.value <= found.worse_by
        elif past:
            assert found.bound.value <= 0
        assert 0.95 <= found.bound.confidence < 1


def test_the_bound_is_at_the_level_after_the_correction(tmp_path: Path) -> None:
    sides = runs_of("c", [1.5, 1.6, 1.7], AROUND), runs_of("b", [1.0, 1.1, 1.2], WIDE)
    worse, same = judge(several(tmp_path, 2), *sides, source=SOURCE).metrics
    assert worse.bound is not None
    assert same.bound is not None
    assert worse.bound.confidence == pytest.approx(0.975)
    assert same.bound.confidence == pytest.approx(0.95)
    assert worse.verdict is Verdict.FAIL


# -- chance ----------------------------------------------------------------------------------------


def test_what_is_well_within_chance_passes_and_the_report_says_so() -> None:
    report = judged([0.79, 0.81, 0.82], WIDE, max_drop=0.0)
    found = only(report)
    assert (report.outcome, found.verdict, found.by_chance) == (Outcome.PASS, Verdict.PASS, True)
    assert "past max_drop = 0, but well within chance: p = 0.36" in found.reason
    (note,) = report.notes
    assert note == (
        "past tolerance, but well within chance, which passes: m; on_inconclusive = 'fail' would "
        "not let it pass"
    )


def test_what_may_be_more_than_chance_is_still_a_warning() -> None:
    found = only(judged([0.785, 0.80, 0.80], WIDE, max_drop=0.0))
    assert found.p_value is not None
    assert 0.05 < found.p_value < 0.2
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.seeds_needed is not None


def test_on_inconclusive_fail_lets_no_chance_pass(tmp_path: Path) -> None:
    sides = runs_of("c", [1.01, 1.1, 1.2]), runs_of("b", [1.0, 1.1, 1.2])
    quiet = judge(several(tmp_path, 1), *sides, source=SOURCE)
    strict = judge(several(tmp_path, 1, "on_inconclusive = 'fail'"), *sides, source=SOURCE)
    assert (quiet.outcome, strict.outcome) == (Outcome.PASS, Outcome.INCONCLUSIVE)


@pytest.mark.parametrize("count", [1, 20])
def test_a_good_build_is_quiet_in_four_cases_of_five(tmp_path: Path, count: int) -> None:
    policy, draw = several(tmp_path, count), random.Random(5)
    outcomes = []
    for _ in range(60):
        sides = [
            runs_of(name, *[[draw.gauss(0, 1) for _ in range(n)] for _ in range(count)])
            for name, n in (("c", 3), ("b", 10))
        ]
        outcomes.append(judge(policy, *sides, source=SOURCE).outcome)
    assert outcomes.count(Outcome.PASS) >= 60 * 0.7


# -- tests on request ------------------------------------------------------------------------------


def test_non_inferiority_passes_only_what_is_shown() -> None:
    steady = only(judged([0.950, 0.951, 0.949], STEADY, test="non_inferiority"))
    assert (steady.verdict, steady.test) == (Verdict.PASS, Test.NON_INFERIORITY)
    assert steady.reason.startswith("shown to be within max_drop = 0.01: no change; p = ")
    assert steady.bound is not None
    assert steady.bound.kind == "at most"
    assert 0 < steady.bound.value < 0.01
    report = judged(AROUND, WIDE, test="non_inferiority")
    unsure = only(report)
    assert (report.outcome, unsure.verdict) == (Outcome.REGRESSION, Verdict.FAIL)
    assert unsure.reason.startswith("not shown to be within max_drop = 0.01: better by 0.00133")
    assert unsure.reason.endswith(
        f"if there is no change, about {unsure.seeds_needed} runs on each side would show it"
    )
    assert unsure.seeds_needed is not None
    assert only(judged(AROUND, WIDE)).verdict is Verdict.PASS, "the usual test sees no harm"


def test_non_inferiority_never_passes_a_collapsed_seed() -> None:
    for candidate in ([0.95, 0.951, 0.2], [0.2], [1.0, 1.2, 0.65]):
        found = only(judged(candidate, STEADY, test="non_inferiority"))
        assert found.verdict is Verdict.FAIL


def test_non_inferiority_without_enough_runs_cannot_be_shown() -> None:
    report = judged([0.95] * 3, [0.95, 0.951], test="non_inferiority")
    assert report.outcome is Outcome.CANNOT_COMPARE
    assert "needs 3 runs of the baseline, but there are 2" in only(report).reason
    relative = judged(
        [0.1, 0.0, 0.1], [-0.1, 0.0, 0.1], test="non_inferiority", max_drop=None, max_drop_rel=0.1
    )
    assert only(relative).verdict is Verdict.FAIL


def test_non_inferiority_of_many_metrics_needs_no_correction(tmp_path: Path) -> None:
    metrics = [[1.0, 1.1, 1.2]] * 3
    policy = several(tmp_path, 3, test="non_inferiority", max_drop=1.0)
    report = judge(
        policy, runs_of("c", *metrics), runs_of("b", *metrics[:2], [1.0, 1.1, 1.3]), source=SOURCE
    )
    assert report.outcome is Outcome.PASS
    assert {one.p_adjusted for one in report.metrics} == {None}


def test_a_permutation_test_assumes_no_shape() -> None:
    found = only(judged([0.5, 0.6, 0.7], WIDE, test="permutation"))
    assert (found.verdict, found.test) == (Verdict.FAIL, Test.PERMUTATION)
    assert found.p_value == pytest.approx(0.05)
    assert "by the permutation test" in found.reason


def test_a_permutation_test_that_can_never_fail_is_refused() -> None:
    report = judged([0.5, 0.6], WIDE, test="permutation")
    assert report.outcome is Outcome.CANNOT_COMPARE
    assert "3 on each side are enough" in only(report).reason


def test_many_metrics_need_more_runs_for_a_permutation_test(tmp_path: Path) -> None:
    worse = [[9.0, 9.1, 9.2]] * 3
    same = [[1.0, 1.1, 1.2]] * 3
    policy = several(tmp_path, 3, test="permutation")
    report = judge(policy, runs_of("c", *worse), runs_of("b", *same), source=SOURCE)
    assert report.outcome is Outcome.CANNOT_COMPARE, "p is 0.05 at least, and it takes 0.05 / 3"
    assert "p is at least 0.05, and it takes 0.017: add runs (4 on each side" in (
        report.metrics[0].reason
    )


def test_the_false_discovery_rate_lets_more_fail(tmp_path: Path) -> None:
    generator = random.Random(1)
    baseline = [[generator.gauss(0, 1) for _ in range(10)] for _ in range(10)]
    candidate = [[generator.gauss(2.0 if n < 5 else 0.0, 1) for _ in range(3)] for n in range(10)]
    sides = runs_of("c", *candidate), runs_of("b", *baseline)
    holm, fdr = (
        judge(several(tmp_path, 10, f"correction = '{name}'"), *sides, source=SOURCE)
        for name in ("holm", "fdr")
    )
    failed = [sum(one.verdict is Verdict.FAIL for one in r.metrics) for r in (holm, fdr)]
    assert failed[0] < failed[1]
    assert (holm.correction, fdr.correction) == ("holm", "fdr")


# -- batches ---------------------------------------------------------------------------------------


def test_releases_that_differ_are_no_one_baseline() -> None:
    releases = batches([0.698, 0.70, 0.702], [0.798, 0.80, 0.802], [0.898, 0.90, 0.902])
    report = judged([0.809, 0.81, 0.811], releases, max_drop=0.03)
    assert report.outcome is Outcome.CANNOT_COMPARE
    assert only(report).reason == (
        "the batches of the baseline differ by far more than their runs' spread: release 0 0.7 "
        "(n = 3), release 1 0.8 (n = 3), release 2 0.9 (n = 3): compare with one of them "
        "(baseline.pool = 1)"
    )
    newest = [run for run in releases if run.batch == "release 2"]
    assert judged([0.809, 0.81, 0.811], newest, max_drop=0.03).outcome is Outcome.REGRESSION
    assert judged([0.5] * 3, releases, min=0.8).outcome is Outcome.REGRESSION, "bounds hold"


def test_batches_that_agree_are_compared_with_the_spread_between_them() -> None:
    found = only(judged([0.80, 0.82, 0.81], batches(WIDE, [0.82, 0.83, 0.84])))
    assert (found.test, found.verdict) == (Test.BATCHES, Verdict.PASS)
    past = only(judged([0.77, 0.78, 0.79], batches(WIDE, [0.84, 0.85, 0.86])))
    assert past.verdict is Verdict.INCONCLUSIVE
    assert past.reason.endswith("more batches in the baseline, or only the newest, would settle it")


def test_a_test_for_one_sample_refuses_several_batches() -> None:
    report = judged([0.5, 0.6, 0.7], batches(WIDE, AROUND), test="welch")
    assert report.outcome is Outcome.CANNOT_COMPARE
    assert "takes the baseline for one sample, but it has 2 batches" in only(report).reason


# -- notes -----------------------------------------------------------------------------------------


def test_a_gain_far_beyond_the_spread_is_noted() -> None:
    (note,) = judged([0.99, 0.991, 0.992], [0.80, 0.805, 0.81, 0.80, 0.805]).notes
    assert note.startswith("m is better by 44.7 spreads of the baseline's runs: ")
    assert "a test set that leaked" in note
    assert judged([0.82, 0.825, 0.83], [0.80, 0.805, 0.81, 0.80, 0.805]).notes == ()
    assert judged([0.99] * 3, [0.80] * 3).notes == (), "the spread is unknown"


def test_a_baseline_run_that_hides_regressions_is_noted() -> None:
    baseline = [0.95, 0.951, 0.949, 0.95, 0.2]
    report = judged([0.9, 0.901, 0.899], baseline)
    (note,) = [note for note in report.notes if "far from its others" in note]
    assert only(report).verdict is Verdict.PASS
    assert note.startswith("the baseline's run run b4 is far from its others in m: it widens the")
    assert judged([0.95] * 3, [0.95, 0.951, 0.949, 0.95, 0.948]).notes == ()


def test_tolerances_alone_are_counted_where_one_of_them_fails(tmp_path: Path) -> None:
    sides = runs_of("c", [1.0], [1.0], [1.0]), runs_of("b", [1.0], [1.0], [0.9])
    report = judge(several(tmp_path, 3), *sides, source=SOURCE)
    assert report.outcome is Outcome.REGRESSION
    (note,) = [note for note in report.notes if "tolerance only" in note]
    assert note == (
        "3 metrics were judged by their tolerance only, and 1 failed: without a test nothing "
        "corrects for their number, so that a good build is the likelier to fail the more there are"
    )
    alone = runs_of("c", [1.0]), runs_of("b", [0.9])
    assert judge(several(tmp_path, 1), *alone, source=SOURCE).notes == ()


# -- more seeds ------------------------------------------------------------------------------------


def test_more_seeds_of_the_same_loss_never_weaken_the_gate() -> None:
    p_values = [only(judged([0.78] * n, WIDE)).p_value or 1.0 for n in range(1, 8)]
    assert all(more < fewer for fewer, more in pairwise(p_values))
