"""Attempts of a seed, missing seeds, and runs of several configs on one side."""

from dataclasses import replace

import pytest

from gate_seeds import judged, seeds
from orbiter_mlflow.gate.model import GateReport, GateRun, Outcome, Test, Verdict
from orbiter_mlflow.gate.policy import Policy, parse_policy

HEAD = (
    "[gate]\nschema = 1\n{gate}\n[baseline]\nfilter = 'f'\n{baseline}\n[comparable]\n{comparable}\n"
)
METRIC = '[metrics.m]\ndirection = "higher"\nmax_drop = 0.01\n'
BASELINE = {0: 0.70, 1: 0.80, 2: 0.90}


def policy(metric: str = "", gate: str = "", baseline: str = "", comparable: str = "") -> Policy:
    head = HEAD.format(gate=gate, baseline=baseline, comparable=comparable)
    return parse_policy(f"{head}{METRIC}{metric}".encode(), "gate.toml")


BY_SEED = 'paired_by = "params.seed"'


def reasons(report: GateReport) -> dict[str, str]:
    return {run.run_id: run.reason for run in report.left_out}


OLD = seeds("old", BASELINE, commit="c0")
WORSE = {0: 0.66, 1: 0.765, 2: 0.862}


@pytest.mark.parametrize("metric", [BY_SEED, ""], ids=["paired", "by recorded seed"])
def test_logging_the_same_values_again_changes_no_verdict(metric: str) -> None:
    first = seeds("first", WORSE, start=1)
    again = seeds("again", WORSE, start=2)
    once = judged(first, OLD, policy(metric))
    twice = judged([*first, *again], OLD, policy(metric))
    assert once.metrics[0].verdict is (Verdict.FAIL if metric else Verdict.PASS)
    assert once.metrics[0].test is (Test.COMBINED if metric else Test.PREDICTION)
    for one in (once.metrics[0], twice.metrics[0]):
        assert (one.verdict, one.p_value) == (once.metrics[0].verdict, once.metrics[0].p_value)
    assert twice.outcome is once.outcome
    assert [run.run_id for run in twice.candidate] == ["again0", "again1", "again2"]
    assert reasons(twice) == {f"first{n}": f"an earlier attempt of seed {n}" for n in range(3)}
    assert {run.side for run in twice.left_out} == {"candidate"}


def test_the_newest_attempt_counts_even_if_it_is_worse() -> None:
    report = judged(
        [*seeds("late", WORSE, start=2), *seeds("early", BASELINE, start=1)], OLD, policy(BY_SEED)
    )
    assert report.outcome is Outcome.REGRESSION


@pytest.mark.parametrize("order", [1, -1])
def test_of_attempts_that_start_at_once_the_choice_does_not_depend_on_their_order(
    order: int,
) -> None:
    both = [*seeds("x", WORSE), *seeds("y", BASELINE)]
    report = judged(both[::order], OLD, policy(BY_SEED))
    assert {run.run_id for run in report.candidate} == {"y0", "y1", "y2"}


@pytest.mark.parametrize("status", ["KILLED", "RUNNING", "FAILED"])
@pytest.mark.parametrize("start", [1, 3], ids=["earlier", "later"])
def test_an_attempt_that_is_not_whole_does_not_block_a_whole_one(status: str, start: int) -> None:
    cancelled = seeds("cancelled", {1: 0.0}, start=start, status=status)
    report = judged([*cancelled, *seeds("c", BASELINE, start=2)], OLD, policy(BY_SEED))
    assert report.outcome is Outcome.PASS
    reason = f"another attempt of seed 1 counts: it is {status}, not FINISHED"
    assert reasons(report) == {"cancelled1": reason}


def test_a_seed_without_a_whole_attempt_names_the_way_out() -> None:
    runs = seeds("c", BASELINE, status="KILLED")[:1] + seeds("c", BASELINE)[1:]
    report = judged(runs, OLD, policy(BY_SEED))
    assert report.outcome is Outcome.CANNOT_COMPARE
    assert report.problems == (
        (
            "candidate c 0 is incomplete: it is KILLED, not FINISHED: run its seed again, delete "
            "the run, or use a filter that excludes it"
        ),
    )


def test_runs_without_a_known_seed_are_never_merged() -> None:
    runs = [replace(run, params={"lr": "0.1"}) for run in seeds("c", BASELINE)]
    report = judged(runs, OLD, policy())
    assert (len(report.candidate), report.left_out) == (3, ())


def test_without_pairs_another_commit_is_no_attempt_of_the_same_run() -> None:
    runs = seeds("a", BASELINE, commit="c1") + seeds("b", BASELINE, commit="c2")
    assert len(judged(runs, OLD, policy()).candidate) == 6
    assert len(judged(runs, OLD, policy(BY_SEED)).candidate) == 3


def test_a_folder_for_outputs_makes_no_other_run() -> None:
    runs = [
        *seeds("a", BASELINE, start=1, params={"extra.output_dir": "/tmp/1"}),
        *seeds("b", BASELINE, start=2, params={"extra.output_dir": "/tmp/2"}),
    ]
    report = judged(runs, OLD, policy())
    assert [run.run_id for run in report.candidate] == ["b0", "b1", "b2"]


def test_attempts_in_the_baseline_count_once_in_each_batch() -> None:
    old = [
        *seeds("a", BASELINE, start=1, batch="x"),
        *seeds("b", BASELINE, start=2, batch="x"),
        *seeds("c", BASELINE, start=3, batch="y"),
    ]
    report = judged(seeds("new", BASELINE), old, policy(BY_SEED))
    assert [run.run_id for run in report.baseline] == ["b0", "b1", "b2", "c0", "c1", "c2"]
    assert {run.side for run in report.left_out} == {"baseline"}


# -- how many candidates, and which ----------------------------------------------------------------


@pytest.mark.parametrize(
    "candidate",
    [
        seeds("c", {0: 0.9}),
        [run for n in range(3) for run in seeds(f"c{n}", {0: 0.9}, start=n)],
    ],
    ids=["the best seed alone", "the same seed thrice"],
)
def test_fewer_seeds_than_the_baseline_needs_cannot_be_compared(candidate: list[GateRun]) -> None:
    report = judged(candidate, OLD, policy())
    assert (report.outcome, report.outcome.exit_code) == (Outcome.CANNOT_COMPARE, 3)
    assert report.problems == (
        (
            "the candidate has 1 run, but needs 3 (attempts of one seed count once): run more "
            "seeds, or set gate.candidate_runs in the policy"
        ),
    )
    one = policy(gate="candidate_runs = 1")
    assert judged(candidate, OLD, one).outcome is Outcome.PASS


def test_the_number_of_candidates_is_that_of_the_baseline_unless_the_policy_says_so() -> None:
    assert policy().candidate_runs == 3
    assert policy(baseline="min_runs = 5").candidate_runs == 5
    assert policy(gate="candidate_runs = 2").candidate_runs == 2
    assert Policy.for_one("m", direction="higher", min=0).candidate_runs == 1


def test_bounds_hold_for_too_few_candidates() -> None:
    report = judged(seeds("c", {0: 0.1}), OLD, policy("min = 0.5"))
    assert report.outcome is Outcome.REGRESSION


def test_the_seeds_of_the_newest_batch_are_those_that_must_be_there() -> None:
    old = [
        *seeds("a", {0: 0.7, 1: 0.8, 2: 0.9, 3: 0.8}, start=1, batch="x"),
        *seeds("b", BASELINE, start=2, batch="y"),
    ]
    assert judged(seeds("c", BASELINE), old, policy(BY_SEED)).outcome is Outcome.PASS
    report = judged(seeds("c", {0: 0.7, 1: 0.8, 3: 0.9}), old, policy(BY_SEED))
    assert "no candidate run has params.seed = 2, which" in report.metrics[0].reason


# -- one config a side -----------------------------------------------------------------------------


def test_several_configs_on_a_side_are_not_seeds_of_one() -> None:
    slow = seeds("slow", {3: 0.8, 4: 0.8}, params={"lr": "0.5"})
    report = judged([*seeds("c", BASELINE), *slow], OLD, policy())
    assert report.outcome is Outcome.CANNOT_COMPARE
    assert report.problems == (
        (
            "the candidate's runs are not seeds of one config, they differ in params.lr (0.1 | "
            "0.5): judge one config at a time, or add the params to comparable.vary_within"
        ),
    )
    allowed = policy(comparable='vary_within = ["params.l*"]')
    assert judged([*seeds("c", BASELINE), *slow], OLD, allowed).outcome is not (
        Outcome.CANNOT_COMPARE
    )
    report = judged(seeds("c", BASELINE), [*OLD, *slow], policy())
    assert "the baseline's runs are not seeds of one config" in report.problems[0]


def test_an_earlier_attempt_with_another_config_is_not_left_out_silently() -> None:
    report = judged(
        [
            *seeds("a", BASELINE, start=1, params={"lr": "0.5"}),
            *seeds("b", BASELINE, start=2),
        ],
        OLD,
        policy(BY_SEED),
    )
    assert "they differ in params.lr (0.1 | 0.5)" in report.problems[0]


def test_batches_of_the_baseline_may_have_other_configs() -> None:
    old = [
        *seeds("a", BASELINE, batch="x", params={"lr": "0.5"}),
        *seeds("b", BASELINE, batch="y"),
    ]
    assert judged(seeds("c", BASELINE), old, policy()).outcome is Outcome.PASS


def test_seeds_and_output_folders_may_vary_within_a_side() -> None:
    runs = [
        replace(run, params={**run.params, "data_seed": run.run_id, "output_dir": run.run_id})
        for run in seeds("c", BASELINE)
    ]
    assert judged(runs, OLD, policy()).problems == ()


# -- a metric that few runs of the baseline have ---------------------------------------------------


def test_a_metric_that_too_few_baseline_runs_have_cannot_be_compared() -> None:
    old = [OLD[0], *(replace(run, metrics={"other": 1.0}) for run in OLD[1:])]
    report = judged(seeds("c", BASELINE), old, policy("min = 0.5"))
    assert (report.outcome, report.metrics[0].verdict) == (
        Outcome.CANNOT_COMPARE,
        Verdict.CANNOT_COMPARE,
    )
    assert report.metrics[0].reason == (
        "only 1 run of the baseline has it, but it takes 3: bless runs that have it, or lower "
        "baseline.min_runs"
    )
    assert judged(seeds("c", {0: 0.1, 1: 0.1, 2: 0.2}), old, policy("min = 0.5")).outcome is (
        Outcome.REGRESSION
    )


def test_with_bootstrap_such_a_metric_is_unjudged() -> None:
    old = [OLD[0], *(replace(run, metrics={"other": 1.0}) for run in OLD[1:])]
    report = judged(seeds("c", BASELINE), old, policy(), bootstrap=True)
    assert (report.outcome, report.metrics[0].verdict) == (Outcome.WARN, Verdict.UNJUDGED)
    assert "only 1 run of the baseline has it" in report.metrics[0].reason
    assert report.notes[0].startswith("NOT ALL JUDGED AGAINST A BASELINE: ")


def test_a_metric_that_no_baseline_run_has_stays_new() -> None:
    old = [replace(run, metrics={"other": 1.0}) for run in OLD]
    assert judged(seeds("c", BASELINE), old, policy()).metrics[0].verdict is Verdict.NEW


# -- uncommitted changes ---------------------------------------------------------------------------


def test_uncommitted_changes_of_the_candidate_are_noted() -> None:
    runs = [replace(run, dirty=run.run_id == "c1") for run in seeds("c", BASELINE)]
    assert judged(runs, OLD, policy()).notes == (
        "1 of 3 candidate runs had uncommitted changes, so the commit is not their code: c1",
    )
