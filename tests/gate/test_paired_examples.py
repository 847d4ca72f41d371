"""Comparing example by example: the tests against scipy and enumeration, and the verdicts."""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import pytest
from scipy import stats

from gate_reports import PASS as PASSING_REPORT
from orbiter_mlflow.errors import CannotCompareError
from orbiter_mlflow.gate.approvals import apply_approvals, approvals_of
from orbiter_mlflow.gate.examples import paired_test
from orbiter_mlflow.gate.examples.judge import ExampleTables, judge_examples
from orbiter_mlflow.gate.examples.model import ExamplesResult
from orbiter_mlflow.gate.examples.paired_test import mcnemar, sign_flip
from orbiter_mlflow.gate.examples.table import ExampleTable, parse_table
from orbiter_mlflow.gate.model import Outcome, Verdict
from orbiter_mlflow.gate.policy import ExamplesPolicy, Policy
from orbiter_mlflow.gate.reports.formats import FORMATS, render
from orbiter_mlflow.gate.stricter import stricter
from orbiter_mlflow.gate.verdict import BaselineStatus

# -- the tests themselves --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("broken", "fixed"), [(0, 0), (0, 5), (1, 0), (5, 0), (41, 18), (600, 500)]
)
def test_mcnemar_is_the_binomial_test_of_the_changed_examples(broken: int, fixed: int) -> None:
    expected = 1.0
    if broken + fixed:
        binomial = stats.binomtest(broken, broken + fixed, 0.5, alternative="greater")
        expected = binomial.pvalue
        share = binomial.proportion_ci(0.95, method="exact").low
        bound = (2 * share - 1) * (broken + fixed) / 2000
        assert mcnemar(broken, fixed, 2000).at_least(0.05) == pytest.approx(bound, abs=1e-9)
    assert mcnemar(broken, fixed, 2000).p_value == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n", [2, 7, 11])
def test_few_examples_are_judged_by_every_flip_of_their_signs(n: int, seed: int) -> None:
    losses = np.random.default_rng(seed).normal(0.3, 1, n).round(1)
    flips = np.array([*itertools.product((1, -1), repeat=n)])
    expected = np.mean(flips @ losses >= losses.sum() - 1e-9)
    assert sign_flip(losses).p_value == pytest.approx(expected, abs=1e-9)
    by_scipy = stats.permutation_test(
        (losses,),
        lambda x, axis: x.mean(axis=axis),
        permutation_type="samples",
        alternative="greater",
        vectorized=True,
    )
    assert sign_flip(losses).p_value == pytest.approx(by_scipy.pvalue, abs=1e-9)


def test_flips_of_zeros_and_ones_are_mcnemars_test() -> None:
    losses = np.array([1.0] * 40 + [-1.0] * 25 + [0.0] * 300)
    assert sign_flip(losses).p_value == pytest.approx(mcnemar(40, 25, 365).p_value, abs=0.005)


_DRAWS = np.random.default_rng(1)
SHAPES = {
    "normal": _DRAWS.normal(0.05, 1, 600),
    "one far example": np.append(_DRAWS.normal(0.05, 0.1, 600), 30),
    "thirds": _DRAWS.integers(-3, 4, 600) / 3 + (_DRAWS.random(600) < 0.05),
    "lognormal": _DRAWS.lognormal(0, 2, 400) - _DRAWS.lognormal(0, 2, 400),
}


@pytest.mark.parametrize("case", SHAPES)
def test_many_examples_agree_with_random_flips_of_another_hand(case: str) -> None:
    losses = SHAPES[case]
    generator = np.random.default_rng(2)
    means = [
        (generator.choice((-1, 1), (1000, len(losses))) @ losses) / len(losses) for _ in range(40)
    ]
    expected = np.mean(np.concatenate(means) >= losses.mean() - 1e-12)
    error = 4 * np.sqrt(max(expected * (1 - expected), 1e-4) * (1 / 40_000 + 1 / 9_999)) + 1e-3
    assert sign_flip(losses).p_value == pytest.approx(expected, abs=error)


@pytest.mark.parametrize("level", [0.01, 0.05, 0.3])
@pytest.mark.parametrize("shift", [-0.1, 0.0, 0.02, 0.1, 0.3])
@pytest.mark.parametrize("n", [8, 200, 3000])
def test_the_bound_is_above_zero_exactly_if_the_p_value_is_below_the_level(
    n: int, shift: float, level: float
) -> None:
    losses = np.random.default_rng(n).normal(shift, 1, n)
    for test in (
        sign_flip(losses),
        mcnemar(int((losses > 0).sum()), int((losses < 0).sum()), n),
    ):
        assert (test.at_least(level) > 0) is (test.p_value <= level)


def test_the_bound_is_that_of_the_t_test_where_there_are_many_examples() -> None:
    losses = np.random.default_rng(3).normal(0.1, 1, 5000)
    expected = stats.ttest_1samp(losses, 0, alternative="greater").confidence_interval(0.95).low
    assert sign_flip(losses).at_least(0.05) == pytest.approx(expected, abs=1e-4)


def test_the_unit_of_the_scores_does_not_matter() -> None:
    losses = np.random.default_rng(4).normal(0.1, 1, 300)
    small, large = sign_flip(losses * 1e-140), sign_flip(losses * 1e140)
    assert small.p_value == pytest.approx(large.p_value)
    assert small.at_least(0.05) == pytest.approx(large.at_least(0.05) * 1e-280)


def test_a_random_test_gives_the_same_answer_each_time() -> None:
    losses = np.append(np.random.default_rng(5).normal(0.1, 1, 100), 20)
    assert sign_flip(losses).p_value == sign_flip(losses).p_value


def test_no_change_is_no_loss() -> None:
    for n in (1, 16, 17, 5000):
        test = sign_flip(np.zeros(n))
        assert test.p_value == 1
        assert test.at_least(0.05) <= 0
    assert mcnemar(0, 0, 10).p_value == 1


# -- tables ----------------------------------------------------------------------------------------


def content(columns: Sequence[str], *rows: Sequence[Any]) -> bytes:
    return json.dumps({"columns": columns, "data": rows}).encode()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (b"no", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "is not a table with `columns` and `data`"),
        (b'{"columns": ["id"], "data": [[1, 2]]}', "is not a table"),
        (b'{"columns": ["id", "id"], "data": [[1, 2]]}', "is not a table"),
        (content(["id", "ok"]), "has no rows"),
        (content(["id", "okay"], ["a", 1]), "has no column 'ok'; did you mean 'okay'?"),
        (content(["key", "ok"], ["a", 1]), "has no column 'id'; its columns are 'key', 'ok'"),
        (content(["id", "ok"], ["a", None]), "has null as 'ok' in row 1 (example \"a\")"),
        (content(["id", "ok"], ["a", "yes"]), "has \"yes\" as 'ok' in row 1"),
        (content(["id", "ok"], ["a", 1], ["b", float("nan")]), "has NaN as 'ok' in row 2"),
        (b'{"columns": ["id", "ok"], "data": [["a", 1e999]]}', "has infinity as 'ok'"),
        (content(["id", "ok"], ["a", 10**400]), "as 'ok' in row 1"),
        (content(["id", "ok"], ["a", 1], ["a", 0]), "in row 1 and in row 2: each example"),
        (content(["id", "ok"], [1, 1], ["1", 0]), "in row 1 and in row 2: each example"),
        (content(["id", "ok"], [None, 1]), "has null as 'id' in row 1"),
        (content(["id", "ok"], [True, 1]), "has true as 'id' in row 1"),
        (content(["id", "ok"], [[1], 1]), "has [1] as 'id' in row 1"),
        (content(["id", "ok"], ["", 1]), "has \"\" as 'id' in row 1"),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_a_table_that_cannot_be_used_is_refused_with_row_column_and_value(
    given: bytes, told: str
) -> None:
    with pytest.raises(CannotCompareError) as caught:
        parse_table(given, id_column="id", score="ok", slices=())
    assert told in str(caught.value)


def test_booleans_integers_of_pandas_and_labels_are_read() -> None:
    table = parse_table(
        content(["id", "ok", "kind"], [1.0, True, "a"], [2, 0.5, None], ["x", False, 3]),
        id_column="id",
        score="ok",
        slices=["kind", "none"],
    )
    assert table.ids == ("1", "2", "x")
    assert [*table.scores] == [1, 0.5, 0]
    assert table.labels == {"kind": ("a", "(none)", "3")}
    assert not table.binary


# -- verdicts --------------------------------------------------------------------------------------


def table(scores: Sequence[float], first: int = 0, **labels: Sequence[str]) -> ExampleTable:
    ids = tuple(f"q{first + at}" for at in range(len(scores)))
    columns = {name: tuple(column) for name, column in labels.items()}
    return ExampleTable(ids, np.array(scores, float), columns, "d1")


def scores(right: int, wrong: int) -> list[float]:
    return [1.0] * right + [0.0] * wrong


def judged(
    candidate: Mapping[str, ExampleTable | str] | ExampleTable,
    baseline: Mapping[str, ExampleTable | str] | ExampleTable,
    status: BaselineStatus = BaselineStatus.USABLE,
    *,
    quiet: bool = True,
    **policy: Any,
) -> ExamplesResult:
    expected = ExamplesPolicy.model_validate({"direction": "higher", "score": "ok"} | policy)
    sides = [
        {"r": side} if isinstance(side, ExampleTable) else side for side in (candidate, baseline)
    ]
    (found,) = judge_examples(
        {"eval/accuracy": expected},
        {"eval/accuracy": ExampleTables(sides[0], {f"b-{k}": v for k, v in sides[1].items()})},
        alpha=0.05,
        correction="holm",
        quiet=quiet,
        status=status,
    )
    return found


BEFORE = table(scores(800, 200))
BROKEN = table([0.0] * 40 + scores(760, 185) + [1.0] * 15)


def test_a_loss_that_is_significant_and_past_tolerance_fails() -> None:
    found = judged(BROKEN, BEFORE)
    assert found.verdict is Verdict.FAIL
    assert found.test == "McNemar's exact test"
    assert found.scores is not None
    assert (found.scores.broken, found.scores.fixed, found.scores.n) == (40, 15, 1000)
    assert found.scores.worse_by == pytest.approx(0.025)
    assert found.scores.p_value == pytest.approx(stats.binom.sf(39, 55, 0.5))
    assert found.bound is not None
    assert 0 < found.bound.value < 0.025
    assert "past max_drop = 0: worse by 0.025 over 1000 examples (40 broken, 15 fixed)" in (
        found.reason
    )
    assert [one.example for one in found.worst] == [f"q{at}" for at in range(10)]
    assert (found.worst[0].baseline, found.worst[0].candidate) == (1, 0)


def test_a_loss_within_tolerance_passes_however_significant() -> None:
    assert judged(BROKEN, BEFORE, max_drop=0.025).verdict is Verdict.PASS


def test_a_loss_past_tolerance_passes_if_it_is_well_within_chance() -> None:
    after = table([0.0] * 4 + scores(796, 197) + [1.0] * 3)
    found = judged(after, BEFORE)
    assert (found.verdict, found.by_chance) == (Verdict.PASS, True)
    assert "past max_drop = 0, but well within chance: worse by 0.001" in found.reason
    assert judged(after, BEFORE, quiet=False).verdict is Verdict.INCONCLUSIVE


def test_a_loss_past_tolerance_that_may_be_chance_is_inconclusive() -> None:
    found = judged(table([0.0] * 3 + scores(7, 10)), table(scores(10, 10)), max_drop=0.05)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "p = 0.12" in found.reason
    assert "evaluate on more examples" in found.reason


def test_the_direction_decides_what_is_worse() -> None:
    assert judged(BEFORE, BROKEN).verdict is Verdict.PASS
    assert judged(BEFORE, BROKEN, direction="lower").verdict is Verdict.FAIL
    assert judged(BROKEN, BEFORE, direction="lower").verdict is Verdict.PASS


def test_the_order_of_the_rows_does_not_matter() -> None:
    order = np.random.default_rng(0).permutation(1000)
    shuffled = ExampleTable(
        tuple(np.array(BROKEN.ids)[order]), BROKEN.scores[order], digest=BROKEN.digest
    )
    assert judged(shuffled, BEFORE) == judged(BROKEN, BEFORE)


def test_several_runs_a_side_are_averaged_example_by_example() -> None:
    found = judged({"a": BROKEN, "b": BEFORE}, {"c": BEFORE, "d": BEFORE})
    assert found.test == "sign-flip permutation test"
    assert found.scores is not None
    assert found.scores.worse_by == pytest.approx(0.0125)
    assert found.worst[0].candidate == 0.5
    assert [*found.tables] == ["a", "b", "b-c", "b-d"]


FEWER = ExampleTable(BEFORE.ids[10:], BEFORE.scores[10:])


@pytest.mark.parametrize(
    ("candidate", "baseline", "policy", "told"),
    [
        ({"r": "it has no table x"}, {"s": BEFORE}, {}, "candidate r: it has no table x"),
        ({"r": BEFORE}, {"s": "it has no table"}, {}, "no run of the baseline has a usable table"),
        ({"r": BEFORE}, {}, {}, "there is no baseline run"),
        ({"r": FEWER}, {"s": BEFORE}, {}, "only 990 of 1000 are in all of them"),
        ({"r": table([1], 5000)}, {"s": BEFORE}, {"min_overlap": 1e-6}, "only 0 of 1001"),
        ({"r": BEFORE, "t": BEFORE}, {"s": BEFORE}, {"test": "mcnemar"}, "one run a side"),
        ({"r": table([0.5])}, {"s": BEFORE}, {"test": "mcnemar"}, "needs scores of 0 and 1"),
        ({"r": BEFORE}, {"s": BEFORE}, {"slices": ["kind"]}, "no table has the column 'kind'"),
        ({str(at): BEFORE for at in range(21)}, {"s": BEFORE}, {}, "name fewer"),
        (
            {"r": table(scores(200, 0), kind=[f"{at}" for at in range(200)])},
            {"s": table(scores(200, 0))},
            {"slices": ["kind"]},
            "into 200 slices, more than 100",
        ),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_cannot_be_compared_does_not_pass(
    candidate: dict[str, ExampleTable | str],
    baseline: dict[str, ExampleTable | str],
    policy: dict[str, Any],
    told: str,
) -> None:
    found = judged(candidate, baseline, **policy)
    assert found.verdict is Verdict.CANNOT_COMPARE
    assert told in found.reason


def test_other_examples_are_allowed_by_the_policy_only_and_counted() -> None:
    found = judged(FEWER, BEFORE, min_overlap=0.99)
    assert found.verdict is Verdict.PASS
    assert found.unpaired == 10


def test_runs_of_the_baseline_without_a_table_are_left_out_and_named() -> None:
    found = judged({"r": BEFORE}, {"s": "it has no table", "t": BEFORE})
    assert found.verdict is Verdict.PASS
    assert [(run.run_id, run.reason) for run in found.left_out] == [("b-s", "it has no table")]


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (BaselineStatus.NOT_YET, Verdict.UNJUDGED),
        (BaselineStatus.NOT_COMPARABLE, Verdict.CANNOT_COMPARE),
        (BaselineStatus.CANDIDATE_INCOMPLETE, Verdict.CANNOT_COMPARE),
    ],
)
def test_without_a_usable_baseline_nothing_is_compared(
    status: BaselineStatus, verdict: Verdict
) -> None:
    found = judged(BROKEN, BEFORE, status)
    assert found.verdict is verdict
    assert found.scores is None


def test_the_p_values_of_all_comparisons_are_corrected_together() -> None:
    same = {"r": BROKEN}, {"b": BEFORE}
    expected = ExamplesPolicy(direction="higher", score="ok")
    policy = dict.fromkeys("abc", expected) | {
        "info": expected.model_copy(update={"severity": "info"})
    }
    tables = {name: ExampleTables(*same) for name in policy}
    found = judge_examples(
        policy, tables, alpha=0.05, correction="holm", quiet=True, status=BaselineStatus.USABLE
    )
    first = found[0].scores
    assert first is not None
    assert first.p_adjusted == pytest.approx(3 * first.p_value)
    assert found[0].bound is not None
    assert found[0].bound.confidence == pytest.approx(1 - 0.05 / 3)
    assert found[3].scores is not None
    assert found[3].scores.p_adjusted is None


# -- slices ----------------------------------------------------------------------------------------

KINDS = ["math"] * 100 + ["code"] * 895 + ["tiny"] * 5
"""The 40 broken examples are all among the first 100."""


def test_slices_are_shown_worst_first_and_small_ones_counted() -> None:
    found = judged(BROKEN, table(scores(800, 200), kind=KINDS), slices=["kind"])
    assert [one.label for one in found.slices] == ["math", "code"]
    worst = found.slices[0].scores
    assert (worst.n, worst.broken, worst.fixed) == (100, 40, 0)
    assert worst.p_adjusted == pytest.approx(2 * 0.5**40)
    assert [one.failed for one in found.slices] == [True, False]
    assert found.small_slices == 1


def test_a_slice_fails_the_build_only_if_the_policy_says_so() -> None:
    fixed = table([0.0] * 40 + scores(760, 160) + [1.0] * 40, kind=KINDS)
    before = table(scores(800, 200), kind=KINDS)
    assert judged(fixed, before, slices=["kind"]).verdict is Verdict.PASS
    found = judged(fixed, before, slices=["kind"], fail_on_slices=True)
    assert found.verdict is Verdict.FAIL
    assert found.reason.startswith("the slice kind = math is past max_drop = 0: worse by 0.4")


# -- a policy that changes, and approvals ----------------------------------------------------------


def test_the_stricter_of_two_policies_counts_for_each_comparison() -> None:
    here = replace(PASSING_REPORT, examples=(judged(BROKEN, BEFORE, max_drop=0.1),))
    there = replace(PASSING_REPORT, outcome=Outcome.REGRESSION, examples=(judged(BROKEN, BEFORE),))
    for both in (stricter(here, there, "main"), stricter(PASSING_REPORT, there, "main")):
        assert both.outcome is Outcome.REGRESSION
        assert [one.verdict for one in both.examples] == [Verdict.FAIL]
        assert "the policy at main" in both.examples[0].reason
    assert stricter(there, here, "main").examples == there.examples


def test_an_accepted_loss_does_not_fail_but_a_missing_table_does() -> None:
    policy = Policy.model_validate(
        {
            "gate": {"schema": 1},
            "baseline": {"run": "x"},
            "examples": {"eval/accuracy": {"direction": "higher", "score": "ok"}},
            "accept": [
                {
                    "metric": "eval/accuracy",
                    "until": date(2030, 1, 1),
                    "reason": "faster",
                    "by": "the release team",
                }
            ],
        }
    )
    missing = judged({"r": "it has no table"}, BEFORE)
    results = [judged(BROKEN, BEFORE), missing]
    found = apply_approvals(policy, results, date(2029, 1, 1))
    approvals = approvals_of(policy, found, date(2029, 1, 1))
    assert [one.verdict for one in found] == [Verdict.ACCEPTED, Verdict.CANNOT_COMPARE]
    assert "accepted until 2030-01-01 by the release team: faster" in found[0].reason
    assert [one.status for one in approvals] == ["used"]
    found = apply_approvals(policy, results, date(2031, 1, 1))
    assert found[0].verdict is Verdict.FAIL


# -- reports ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["terminal", *(one.name for one in FORMATS)])
def test_every_format_shows_flips_slices_and_the_examples_that_got_worst(name: str) -> None:
    found = judged(BROKEN, table(scores(800, 200), kind=KINDS), slices=["kind"])
    text = render(replace(PASSING_REPORT, examples=(found,)), name)
    for shown in ("40", "15", "math", "q0", "0.775"):
        assert shown in text


def test_random_flips_stay_within_their_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paired_test, "MAX_DRAWS", 100_000)
    losses = np.append(np.random.default_rng(6).normal(0, 1, 999), 1000)
    test = sign_flip(losses)
    assert 0 < test.p_value <= 1
