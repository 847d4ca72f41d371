"""The statistics of the gate: scipy's figures, the choice of the test, and invariances."""

import math
from itertools import permutations
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from orbiter_mlflow.gate.model import Test
from orbiter_mlflow.gate.statistics import (
    MAX_VALUE,
    Comparison,
    Losses,
    RequestedTest,
    compare,
    holm,
    paired,
    power,
    prediction,
    seeds_needed,
    to_losses,
    welch,
)

ALPHA = 0.05
HIGH = [0.84, 0.81, 0.83, 0.86, 0.82]
LOW = [0.80, 0.83, 0.79, 0.82]

VALUES = st.lists(st.integers(-1000, 1000).map(lambda n: n / 8), min_size=1, max_size=7)


def lower(values: list[float], pairs: str | None = None) -> Losses:
    return to_losses(values, "lower", pairs=pairs)


def compared(
    candidate: list[float], baseline: list[float], requested: RequestedTest = "auto"
) -> Comparison:
    return compare(lower(candidate), lower(baseline), alpha=ALPHA, requested=requested)


# -- the figures -----------------------------------------------------------------------------------


def test_welch_is_scipys() -> None:
    found = compared(HIGH, LOW)
    one_sided = stats.ttest_ind(HIGH, LOW, equal_var=False, alternative="greater")
    low, high = stats.ttest_ind(HIGH, LOW, equal_var=False).confidence_interval(1 - ALPHA)
    assert found.test is Test.WELCH
    assert found.p_value == pytest.approx(one_sided.pvalue, rel=1e-9)
    assert found.margin is not None
    interval = (found.loss - found.margin, found.loss + found.margin)
    assert interval == pytest.approx((low, high), rel=1e-9)
    assert found.spread == pytest.approx((np.std(HIGH, ddof=1), np.std(LOW, ddof=1)))


def test_paired_is_scipys() -> None:
    first, second = [0.5, 0.7, 0.6, 0.9], [0.45, 0.5, 0.62, 0.7]
    found = compare(
        lower(first, "abcd"), lower([second[2], *second[:2], second[3]], "cabd"), alpha=ALPHA
    )
    one_sided = stats.ttest_rel(first, second, alternative="greater")
    low, high = stats.ttest_rel(first, second).confidence_interval(1 - ALPHA)
    assert found.test is Test.PAIRED
    assert found.matched
    assert found.p_value == pytest.approx(one_sided.pvalue, rel=1e-9)
    assert found.margin is not None
    interval = (found.loss - found.margin, found.loss + found.margin)
    assert interval == pytest.approx((low, high), rel=1e-9)


@pytest.mark.parametrize("candidate", [[7.0], [6.0, 8.0]], ids=["one", "two"])
def test_the_prediction_interval_by_hand(candidate: list[float]) -> None:
    # Baseline 1, 2, 3, 4, 5: mean 3, s = sqrt(10 / 4) = 1.5811. The loss is 7 - 3 = 4. With one
    # candidate t = 4 / (s * sqrt(1 + 1/5)) = 2.3094, with two 4 / (s * sqrt(1/2 + 1/5)) = 3.0237.
    # Of Student's t with 4 degrees of freedom, 2.7764 cuts off 2.5% (any table).
    error = math.sqrt(2.5) * math.sqrt(1 / len(candidate) + 1 / 5)
    found = compared(candidate, [1.0, 2.0, 3.0, 4.0, 5.0])
    assert found.test is Test.PREDICTION
    assert found.loss == 4
    assert found.margin == pytest.approx(2.7764 * error, rel=1e-4)
    assert found.p_value == pytest.approx(stats.t.sf(4 / error, 4))
    assert found.p_value == pytest.approx({1: 0.0410, 2: 0.0195}[len(candidate)], abs=1e-4)


def test_the_spread_is_that_of_the_side_with_more_runs() -> None:
    few, many = [7.0], [1.0, 2.0, 3.0, 4.0, 5.0]
    there, back = compared(few, many), compared(many, few)
    assert back.test is Test.PREDICTION
    assert (back.loss, back.margin) == (-there.loss, there.margin)
    assert there.p_value is not None
    assert back.p_value == pytest.approx(1 - there.p_value)


def test_many_at_once_are_the_same_as_one_by_one() -> None:
    generator = np.random.default_rng(1)
    for m, n, test in ((3, 4, welch), (4, 4, paired), (2, 6, prediction)):
        first, second = generator.normal(size=(5, m)), generator.normal(size=(5, n))
        p_values, margins = test(first, second, alpha=ALPHA)
        for row in range(5):
            p_value, margin = test(first[row], second[row], alpha=ALPHA)
            assert (p_value, margin) == pytest.approx((p_values[row], margins[row]))


def test_holm_by_hand() -> None:
    # In order 0.005 * 4 = 0.02, 0.01 * 3 = 0.03, 0.03 * 2 = 0.06, 0.04 * 1 = 0.04: less than the
    # one before, so 0.06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([0.04]) == [0.04]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_never_lowers_a_p_value_and_keeps_their_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(p <= found <= 1 for p, found in zip(p_values, adjusted, strict=True))
    ranked = [found for _, found in sorted(zip(p_values, adjusted, strict=True))]
    assert ranked == sorted(ranked)


# -- which test ------------------------------------------------------------------------------------


@pytest.mark.parametrize("m", range(1, 7))
@pytest.mark.parametrize("n", range(1, 7))
def test_the_test_that_the_number_of_runs_permits(m: int, n: int) -> None:
    few, many = min(m, n), max(m, n)
    if few >= 3:
        expected = Test.WELCH
    elif many >= 5:
        expected = Test.PREDICTION
    else:
        expected = Test.TOLERANCE
    found = compared([0.1 * i + 1 for i in range(m)], [0.1 * i for i in range(n)])
    assert found.test is expected
    has_test = expected is not Test.TOLERANCE
    assert (found.p_value is not None, found.margin is not None) == (has_test, has_test)
    assert compared([1.0] * m, [float(i) for i in range(n)], "none").test is Test.TOLERANCE


def test_pairs_are_taken_where_they_match() -> None:
    first, second = [1.0, 2.0, 4.0], [1.0, 1.5, 2.0]

    def test_of(one: str | None, other: str | None, requested: RequestedTest = "auto") -> Test:
        found = compare(lower(first, one), lower(second, other), alpha=ALPHA, requested=requested)
        return found.test

    assert test_of("abc", "bca") is Test.PAIRED
    assert test_of("abc", "abd") is Test.WELCH
    assert test_of("aab", "aab") is Test.WELCH  # twice: nothing says which belongs to which
    assert test_of("abc", None) is Test.WELCH
    assert test_of("abc", "abd", "paired") is Test.TOLERANCE
    assert test_of("abc", "abc", "welch") is Test.WELCH
    assert test_of("abc", "abc", "none") is Test.TOLERANCE


def test_two_pairs_are_too_few_unless_requested() -> None:
    sides = lower([1.0, 2.0], "ab"), lower([1.0, 1.5], "ab")
    assert compare(*sides, alpha=ALPHA).test is Test.TOLERANCE
    assert compare(*sides, alpha=ALPHA, requested="paired").test is Test.PAIRED


def test_a_requested_test_is_used_or_none() -> None:
    assert compared([1.0, 2.0], [1.0, 1.5], "welch").test is Test.WELCH
    found = compared([1.0], [1.0, 1.5, 2.0, 2.5, 3.0], "welch")
    assert (found.test, found.runs_required, found.p_value) == (Test.TOLERANCE, 2, None)
    alone = compare(lower([1.0], "a"), lower([2.0], "a"), alpha=ALPHA, requested="paired")
    assert (alone.test, alone.runs_required, alone.matched) == (Test.TOLERANCE, 2, True)


def test_without_a_spread_the_values_are_compared_exactly() -> None:
    for m, n in ((2, 2), (3, 3), (2, 5), (1, 5)):
        found = compared([1.0] * m, [0.5] * n)
        assert (found.test, found.loss, found.p_value) == (Test.EXACT, 0.5, None)
        assert found.margin is None
    assert compared([1.0, 2.0], [0.5] * 5).test is Test.EXACT  # nothing to predict by
    assert compared([1.0], [0.5]).test is Test.TOLERANCE  # one run says nothing of a spread
    assert compared([1.0], [0.5] * 4).test is Test.TOLERANCE
    gaps = compare(lower([1.5, 2.5, 4.5], "abc"), lower([1.0, 2.0, 4.0], "abc"), alpha=ALPHA)
    assert (gaps.test, gaps.loss) == (Test.EXACT, 0.5)


def test_one_side_without_a_spread_is_tested() -> None:
    found = compared([1.0, 1.0, 1.0], [0.7, 0.8, 0.9])  # scipy warns of it
    # s = 0.1, so the error is 0.1 / sqrt(3) = 0.05774, t = 0.2 / 0.05774 = 3.464, 2 degrees.
    assert found.test is Test.WELCH
    assert found.p_value == pytest.approx(stats.t.sf(3.4641, 2), rel=1e-4)


def test_rounding_is_not_a_spread() -> None:
    rounded = [0.1 + 0.2, 0.3, 0.3]
    assert len(set(rounded)) == 2
    assert compared(rounded, [0.25] * 3).test is Test.EXACT
    near = to_losses([1.1, 0.7 + 0.4, 1.1], "target", 1.0)  # 0.1 and a bit, each
    assert compare(near, near, alpha=ALPHA).test is Test.EXACT


@pytest.mark.parametrize("factor", [1e-300, 1e-150, 1e75, 1e149])
def test_no_value_is_too_small_nor_too_large_up_to_the_limit(factor: float) -> None:
    here = compared(HIGH, LOW)
    there = compared([v * factor for v in HIGH], [v * factor for v in LOW])
    assert there.test is Test.WELCH
    assert there.p_value == pytest.approx(here.p_value)
    assert there.margin is not None
    assert here.margin is not None
    assert there.margin / factor == pytest.approx(here.margin)


def test_a_candidate_far_off_the_scale_is_worse() -> None:
    found = compared([1e149, 1.1e149, 0.9e149], LOW)
    assert found.p_value is not None
    assert found.p_value < 0.01
    assert compared([1e149], [*LOW, 0.8]).loss == 1e149
    assert compared([MAX_VALUE] * 3, LOW).loss == MAX_VALUE
    assert compared([MAX_VALUE] * 2, [-MAX_VALUE] * 2).loss == 2 * MAX_VALUE


# -- losses ----------------------------------------------------------------------------------------


def test_losses_by_direction() -> None:
    assert to_losses([1.0, 2.0], "higher").values == (-1.0, -2.0)
    assert to_losses([1.0, 2.0], "lower").values == (1.0, 2.0)
    assert to_losses([1.0, 2.0], "target", 1.5).values == (0.5, 0.5)


@settings(max_examples=50, deadline=None)
@given(VALUES, VALUES)
def test_the_direction_mirrors(candidate: list[float], baseline: list[float]) -> None:
    here = compare(to_losses(candidate, "lower"), to_losses(baseline, "lower"), alpha=ALPHA)
    mirrored = [-v for v in candidate], [-v for v in baseline]
    there = compare(*(to_losses(side, "higher") for side in mirrored), alpha=ALPHA)
    assert here == there


@settings(max_examples=50, deadline=None)
@given(VALUES, VALUES, st.floats(1e-6, 1e6))
def test_the_unit_does_not_matter(
    candidate: list[float], baseline: list[float], factor: float
) -> None:
    here = compared(candidate, baseline)
    there = compared([v * factor for v in candidate], [v * factor for v in baseline])
    assert here.test is there.test
    assert there.loss == pytest.approx(here.loss * factor, rel=1e-9, abs=1e-9 * factor)
    if here.p_value is not None:
        assert there.p_value == pytest.approx(here.p_value, rel=1e-6)


@settings(max_examples=50, deadline=None)
@given(VALUES, VALUES, st.randoms(use_true_random=False))
def test_the_order_of_runs_does_not_matter(
    candidate: list[float], baseline: list[float], random: Random
) -> None:
    here = compared(candidate, baseline)
    random.shuffle(candidate)
    random.shuffle(baseline)
    assert compared(candidate, baseline) == here


def test_the_order_of_pairs_does_not_matter() -> None:
    pairs = list(zip("abc", [1.0, 2.5, 4.0], strict=True))
    baseline = lower([1.0, 1.5, 2.0], "abc")
    found = {
        compare(lower([v for _, v in order], "".join(k for k, _ in order)), baseline, alpha=ALPHA)
        for order in permutations(pairs)
    }
    assert len(found) == 1


# -- how many seeds --------------------------------------------------------------------------------


def test_power_is_that_of_the_noncentral_t() -> None:
    # Cohen (1988), one-sided at 0.05: an effect of 0.8 spreads with 20 on each side is seen in 80%.
    assert power(0.8, math.sqrt(2 / 20), 38, 0.05) == pytest.approx(0.80, abs=0.01)
    assert power(1e9, 1.0, 4, 0.05) == 1.0
    assert power(1e-9, 1.0, 4, 0.05) == pytest.approx(0.05, abs=1e-6)


@pytest.mark.parametrize(
    ("effect", "seeds"),
    # n on each side for one spread, one-sided 5%, 80%: Cohen's table 2.4.1 has 20, 50, 310.
    [(0.8, 20), (0.5, 50), (0.2, 310), (0.1, None), (10.0, 3)],
)
def test_how_many_seeds_would_settle_it(effect: float, seeds: int | None) -> None:
    found = seeds_needed(Comparison(Test.WELCH, effect, spread=(1.0, 1.0)), 0.05)
    assert found == pytest.approx(seeds, abs=1)


def test_less_variance_needs_fewer_seeds() -> None:
    def needed(one: float, other: float, *, level: float = 0.05) -> int:
        found = seeds_needed(Comparison(Test.WELCH, 1.0, spread=(one, other)), level)
        assert found is not None
        return found

    assert needed(1.0, 0.5) < needed(1.0, 1.0) < needed(2.0, 1.0) < needed(2.0, 1.0, level=0.01)
    assert needed(0.0, 1.0) < needed(1.0, 1.0)


def test_without_a_loss_or_a_spread_there_is_no_advice() -> None:
    assert seeds_needed(Comparison(Test.WELCH, 0.0, spread=(1.0, 1.0)), 0.05) is None
    assert seeds_needed(Comparison(Test.WELCH, -1.0, spread=(1.0, 1.0)), 0.05) is None
    assert seeds_needed(Comparison(Test.TOLERANCE, 1.0), 0.05) is None
    assert seeds_needed(Comparison(Test.WELCH, 1.0, spread=(0.0, 0.0)), 0.05) is None


@pytest.mark.parametrize(("loss", "seeds"), [(1e-160, None), (1e160, 3), (1e-300, None)])
def test_extreme_ratios_of_spread_and_loss_get_advice(loss: float, seeds: int | None) -> None:
    assert seeds_needed(Comparison(Test.WELCH, loss, spread=(1.0, 0.5)), 0.05) == seeds
