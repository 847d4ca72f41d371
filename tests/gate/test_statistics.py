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
    Correction,
    Losses,
    RequestedTest,
    batches_conflict,
    compare,
    corrected,
    power,
    seeds_needed,
    significance,
    to_losses,
)
from orbiter_mlflow.gate.statistics.advice import Plan
from orbiter_mlflow.gate.statistics.significance import Both, Evidence, Student

ALPHA = 0.05
HIGH = [0.84, 0.81, 0.83, 0.86, 0.82]
LOW = [0.80, 0.83, 0.79, 0.82]

VALUES = st.lists(st.integers(-1000, 1000).map(lambda n: n / 8), min_size=1, max_size=7)
LEVELS = st.sampled_from([0.5, 0.2, 0.1, 0.05, 0.05 / 3, 0.0025])


def lower(values: list[float], pairs: str | None = None, batches: str = "") -> Losses:
    return to_losses(values, "lower", pairs=pairs, batches=batches)


def compared(
    candidate: list[float], baseline: list[float], requested: RequestedTest = "auto"
) -> Comparison:
    return compare(lower(candidate), lower(baseline), alpha=ALPHA, requested=requested)


def evidence_of(found: Comparison) -> Evidence:
    assert found.evidence is not None
    return found.evidence


# -- the figures -----------------------------------------------------------------------------------


def test_welch_is_scipys() -> None:
    found = compared(HIGH, LOW, "welch")
    expected = stats.ttest_ind(HIGH, LOW, equal_var=False, alternative="greater")
    evidence = evidence_of(found)
    assert found.test is Test.WELCH
    assert evidence.p_value == pytest.approx(expected.pvalue, rel=1e-9)
    for level in (0.05, 0.0025):
        low = expected.confidence_interval(1 - level).low
        assert evidence.at_least(level) == pytest.approx(low, rel=1e-9)


def test_paired_is_scipys() -> None:
    first, second = [0.5, 0.7, 0.6, 0.9], [0.45, 0.5, 0.62, 0.7]
    shuffled = lower([second[2], *second[:2], second[3]], "cabd")
    found = compare(lower(first, "abcd"), shuffled, alpha=ALPHA, requested="paired")
    expected = stats.ttest_rel(first, second, alternative="greater")
    assert (found.test, found.matched) == (Test.PAIRED, True)
    assert evidence_of(found).p_value == pytest.approx(expected.pvalue, rel=1e-9)
    low = expected.confidence_interval(1 - ALPHA).low
    assert evidence_of(found).at_least(ALPHA) == pytest.approx(low, rel=1e-9)


@pytest.mark.parametrize("candidate", [[7.0], [6.0, 8.0]], ids=["one", "two"])
def test_the_prediction_interval_by_hand(candidate: list[float]) -> None:
    # Baseline 1, 2, 3, 4, 5: mean 3, s = sqrt(10 / 4) = 1.5811. The loss is 7 - 3 = 4. With one
    # candidate t = 4 / (s * sqrt(1 + 1/5)) = 2.3094, with two 4 / (s * sqrt(1/2 + 1/5)) = 3.0237.
    # Of Student's t with 4 degrees of freedom, 2.1318 cuts off 5% (any table).
    error = math.sqrt(2.5) * math.sqrt(1 / len(candidate) + 1 / 5)
    found = compared(candidate, [1.0, 2.0, 3.0, 4.0, 5.0])
    evidence = evidence_of(found)
    assert (found.test, found.loss) == (Test.PREDICTION, 4)
    assert evidence.at_least(0.05) == pytest.approx(4 - 2.1318 * error, abs=1e-3)
    assert evidence.p_value == pytest.approx(stats.t.sf(4 / error, 4))
    assert evidence.p_value == pytest.approx({1: 0.0410, 2: 0.0195}[len(candidate)], abs=1e-4)


def test_pairs_get_two_looks_of_which_one_is_enough() -> None:
    first, second = [0.5, 0.7, 0.6, 0.9], [0.45, 0.5, 0.62, 0.7]
    found = compare(lower(first, "abcd"), lower(second, "abcd"), alpha=ALPHA)
    looks = significance.paired(first, second), significance.prediction(first, second)
    assert found.test is Test.COMBINED
    smaller = min(float(look.p_value) for look in looks)
    assert evidence_of(found).p_value == pytest.approx(2 * smaller)
    larger = max(float(look.at_least(ALPHA / 2)) for look in looks)
    assert evidence_of(found).at_least(ALPHA) == pytest.approx(larger)


def test_the_permutation_test_is_scipys() -> None:
    def difference(one: np.ndarray, other: np.ndarray, axis: int) -> np.ndarray:
        return np.asarray(one.mean(axis=axis) - other.mean(axis=axis))

    for first, second in ((HIGH, LOW), ([3.0, 9.0, 4.0], [1.0, 2.0, 5.0, 3.5])):
        found = compared(first, second, "permutation")
        expected = stats.permutation_test(
            (first, second), difference, alternative="greater", n_resamples=np.inf
        )
        assert found.test is Test.PERMUTATION
        assert evidence_of(found).p_value == pytest.approx(expected.pvalue)


def test_many_orders_are_drawn_at_random_but_always_the_same() -> None:
    generator = np.random.default_rng(3)
    first, second = (generator.normal(size=20).tolist() for _ in range(2))
    found = compared([v + 0.5 for v in first], second, "permutation")
    again = compared([v + 0.5 for v in reversed(first)], second, "permutation")
    by_t = stats.ttest_ind([v + 0.5 for v in first], second, alternative="greater").pvalue
    assert evidence_of(found) == evidence_of(again)
    assert evidence_of(found).p_value == pytest.approx(by_t, abs=0.01)


def test_a_permutation_test_that_cannot_reach_alpha_is_refused_with_the_numbers() -> None:
    found = compared([9.0, 9.1, 9.2], [1.0, 1.1], "permutation")
    assert (found.test, found.evidence) == (Test.TOLERANCE, None)
    assert found.refused == (
        "test = 'permutation' cannot tell 3 from 2 runs: they divide in 10 ways, so p is at least "
        "0.1, and it takes 0.05: add runs (3 on each side are enough), or set test = 'auto'"
    )
    reached = compared([9.0, 9.1, 9.2], [1.0, 1.1, 1.3], "permutation")
    assert evidence_of(reached).p_value == 0.05
    assert evidence_of(reached).at_least(0.05) > 0


def test_batches_of_the_candidates_size_are_a_prediction_of_their_means() -> None:
    batches = [[1.0, 1.4, 1.2], [1.7, 2.1, 1.9], [0.9, 1.4, 1.6], [1.1, 1.2, 1.3]]
    candidate = [2.4, 2.6, 2.9]
    found = significance.batched(candidate, batches)
    means = [sum(batch) / 3 for batch in batches]
    by_means = significance.prediction([sum(candidate) / 3], means)
    assert found.p_value == pytest.approx(by_means.p_value)
    flat = [value for batch in batches for value in batch]
    side = compare(lower(candidate), lower(flat, batches="aaabbbcccddd"), alpha=ALPHA)
    assert side.test is Test.BATCHES
    assert evidence_of(side).p_value == pytest.approx(by_means.p_value)


def test_batches_that_do_not_differ_are_one_sample() -> None:
    batches = [[1.0, 1.4, 1.2], [1.1, 1.5, 1.1]]
    found = significance.batched([2.0, 2.2], batches)
    pooled = significance.prediction([2.0, 2.2], [*batches[0], *batches[1]])
    assert (found.error, found.freedom) == (pytest.approx(pooled.error), 5)
    generator = np.random.default_rng(4)
    many = [generator.normal(size=(6, 3)) + generator.normal(size=(6, 1)) for _ in range(3)]
    every = significance.batched(np.zeros((6, 2)), many)
    for row in range(6):
        one = significance.batched(np.zeros(2), [batch[row] for batch in many])
        assert one.p_value == pytest.approx(every.p_value[row])


def test_batches_of_one_run_each_are_a_prediction_of_one_more_batch() -> None:
    batches = [1.0, 1.5, 0.9, 1.1, 1.4]
    found = significance.batched([2.0, 2.2, 2.4], [[value] for value in batches])
    by_one = significance.prediction([2.2], batches)
    assert (found.p_value, found.freedom) == (pytest.approx(by_one.p_value), 4)


def test_many_at_once_are_the_same_as_one_by_one() -> None:
    generator = np.random.default_rng(1)
    for m, n, test in (
        (3, 4, significance.welch),
        (4, 4, significance.paired),
        (2, 6, significance.prediction),
    ):
        first, second = generator.normal(size=(5, m)), generator.normal(size=(5, n))
        every = test(first, second)
        for row in range(5):
            one = test(first[row], second[row])
            assert one.p_value == pytest.approx(every.p_value[row])
            assert one.at_least(0.05) == pytest.approx(every.at_least(0.05)[row])


def test_non_inferiority_needs_all_its_looks() -> None:
    found = compared(HIGH, LOW, "non_inferiority")
    looks = significance.prediction(HIGH, LOW), significance.welch(HIGH, LOW)
    assert found.test is Test.NON_INFERIORITY
    assert found.evidence is None
    assert found.no_worse is not None
    largest = max(float(look.at_most(ALPHA)) for look in looks)
    assert found.no_worse.at_most(ALPHA) == pytest.approx(largest)
    assert found.no_worse.p_no_worse(largest) == pytest.approx(ALPHA)
    paired = compare(
        lower(LOW, "abcd"), lower(LOW[::-1], "abcd"), alpha=ALPHA, requested="non_inferiority"
    )
    expected = Both((significance.paired(LOW, LOW[::-1]),))
    assert paired.no_worse is not None
    assert paired.no_worse.at_most(ALPHA) == pytest.approx(expected.at_most(ALPHA))


# -- bounds and decisions --------------------------------------------------------------------------

TESTS: list[RequestedTest] = ["auto", "prediction", "welch", "paired", "permutation"]


@settings(max_examples=150, deadline=None)
@given(VALUES, VALUES, st.sampled_from(TESTS), LEVELS, st.booleans())
def test_a_bound_is_above_zero_exactly_if_the_test_rejects(
    candidate: list[float],
    baseline: list[float],
    requested: RequestedTest,
    level: float,
    batches: bool,
) -> None:
    sides = [lower(side, "abcdefg"[: len(side)]) for side in (candidate, baseline)]
    if batches:
        sides[1] = lower(baseline, batches="aabbccd"[: len(baseline)])
    found = compare(*sides, alpha=0.5, requested=requested)
    if found.evidence is not None:
        p_value, bound = float(found.evidence.p_value), float(found.evidence.at_least(level))
        near = abs(p_value - level) < 1e-9 * level
        assert near or (p_value <= level) == (bound > 0)


@given(st.floats(-10, 10), st.floats(0.01, 5), st.integers(1, 30), LEVELS, st.floats(0.1, 5))
def test_an_upper_bound_is_below_the_limit_exactly_if_that_is_shown(
    loss: float, error: float, freedom: int, level: float, limit: float
) -> None:
    looks = Both((Student(loss, error, freedom), Student(loss, error * 2, freedom)))
    p_value, bound = looks.p_no_worse(limit), looks.at_most(level)
    assert abs(p_value - level) < 1e-9 or (p_value <= level) == (bound <= limit)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.sampled_from(["holm", "fdr"]))
def test_a_corrected_p_value_reaches_alpha_exactly_if_its_own_reaches_its_level(
    p_values: list[float], method: Correction
) -> None:
    for p_value, found in zip(p_values, corrected(p_values, ALPHA, method), strict=True):
        near = abs(p_value - found.level) < 1e-12
        assert near or (found.p_value <= ALPHA) == (p_value <= found.level)
        assert p_value <= found.p_value <= 1
        assert ALPHA / len(p_values) <= found.level * (1 + 1e-12)
        assert found.level <= ALPHA


def test_holm_by_hand() -> None:
    # In order 0.005 * 4 = 0.02, 0.01 * 3 = 0.03, 0.03 * 2 = 0.06, 0.04 * 1 = 0.04: less than the
    # one before, so 0.06. It stops at the third, and holds the fourth against the same level.
    found = corrected([0.01, 0.04, 0.03, 0.005], ALPHA, "holm")
    assert [one.p_value for one in found] == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert [one.level for one in found] == pytest.approx([0.05 / 3, 0.05 / 2, 0.05 / 2, 0.05 / 4])
    assert [one.p_value for one in corrected([0.5, 0.6], ALPHA, "holm")] == [1.0, 1.0]
    (alone,) = corrected([0.04], ALPHA, "holm")
    assert (alone.p_value, alone.level) == (0.04, ALPHA)
    assert corrected([], ALPHA, "holm") == corrected([], ALPHA, "fdr") == []


def test_the_false_discovery_rate_is_scipys() -> None:
    p_values = [0.01, 0.04, 0.03, 0.005, 0.9]
    found = corrected(p_values, ALPHA, "fdr")
    expected = stats.false_discovery_control(p_values)
    assert [one.p_value for one in found] == pytest.approx(expected)
    # 0.04 is the largest that fails.
    assert [one.level for one in found] == pytest.approx([4 * ALPHA / 5] * 5)


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_keeps_the_order_of_p_values(p_values: list[float]) -> None:
    adjusted = [one.p_value for one in corrected(p_values, ALPHA, "holm")]
    ranked = [found for _, found in sorted(zip(p_values, adjusted, strict=True))]
    assert ranked == sorted(ranked)


# -- which test ------------------------------------------------------------------------------------


@pytest.mark.parametrize("m", range(1, 7))
@pytest.mark.parametrize("n", range(1, 7))
def test_the_test_that_the_number_of_runs_permits(m: int, n: int) -> None:
    expected = Test.PREDICTION if n >= 3 else Test.TOLERANCE
    found = compared([0.1 * i + 1 for i in range(m)], [0.1 * i for i in range(n)])
    assert found.test is expected
    assert (found.evidence is not None) == (expected is not Test.TOLERANCE)
    assert compared([1.0] * m, [float(i) for i in range(n)], "none").test is Test.TOLERANCE


@pytest.mark.parametrize("m", [1, 2, 3, 5])
@pytest.mark.parametrize("n", [3, 5, 10])
def test_a_collapsed_seed_is_never_excused_by_the_spread_it_makes(m: int, n: int) -> None:
    baseline = [0.05 + 0.001 * (i % 3) for i in range(n)]
    candidate = [*[0.049, 0.0505, 0.051, 0.05, 0.0515][: m - 1], 0.8]
    seeds = "abcdefghij"
    for pairs in (None, seeds):
        sides = [
            lower(side, None if pairs is None else pairs[: len(side)])
            for side in (candidate, baseline)
        ]
        found = compare(*sides, alpha=ALPHA)
        assert evidence_of(found).p_value < 0.001
    if m >= 3:
        assert evidence_of(compared(candidate, baseline, "welch")).p_value > 0.1


def test_more_seeds_of_the_candidate_never_weaken_the_test() -> None:
    p_values = [evidence_of(compared([1.0] * m, [0.7, 0.8, 0.9])).p_value for m in range(1, 8)]
    assert p_values == sorted(p_values, reverse=True)


def test_pairs_are_taken_where_they_match() -> None:
    first, second = [1.0, 2.0, 4.0], [1.0, 1.5, 2.0]

    def test_of(one: str | None, other: str | None, requested: RequestedTest = "auto") -> Test:
        found = compare(lower(first, one), lower(second, other), alpha=ALPHA, requested=requested)
        return found.test

    assert test_of("abc", "bca") is Test.COMBINED
    assert test_of("abc", "abd") is Test.PREDICTION
    assert test_of("aab", "aab") is Test.PREDICTION  # nothing says which belongs to which
    assert test_of("abc", None) is Test.PREDICTION
    assert test_of("abc", "abc", "paired") is Test.PAIRED
    assert test_of("abc", "abd", "paired") is Test.TOLERANCE
    assert test_of("abc", "abc", "prediction") is Test.PREDICTION
    assert test_of("abc", "abc", "welch") is Test.WELCH
    assert test_of("abc", "abc", "none") is Test.TOLERANCE


def test_seeds_of_several_batches_are_not_paired() -> None:
    baseline = lower([1.0, 1.5, 2.0, 1.2], "abcd", "xxyy")
    found = compare(lower([1.0, 2.0, 4.0, 1.0], "abcd"), baseline, alpha=ALPHA)
    assert (found.test, found.matched) == (Test.BATCHES, False)


def test_two_pairs_are_too_few_unless_requested() -> None:
    sides = lower([1.0, 2.0], "ab"), lower([1.0, 1.5], "ab")
    assert compare(*sides, alpha=ALPHA).test is Test.TOLERANCE
    assert compare(*sides, alpha=ALPHA, requested="paired").test is Test.PAIRED


def test_a_requested_test_is_used_or_refused() -> None:
    assert compared([1.0, 2.0], [1.0, 1.5], "welch").test is Test.WELCH
    found = compared([1.0], [1.0, 1.5, 2.0, 2.5, 3.0], "welch")
    assert (found.test, found.evidence) == (Test.TOLERANCE, None)
    assert "needs 2 runs on each side, but there are 1 and 5" in found.refused
    alone = compare(lower([1.0], "a"), lower([2.0], "a"), alpha=ALPHA, requested="paired")
    assert (alone.test, alone.matched) == (Test.TOLERANCE, True)
    assert alone.refused
    for requested in ("prediction", "non_inferiority"):
        few = compared([1.0] * 5, [1.0, 2.0], requested)
        assert "needs 3 runs of the baseline, but there are 2" in few.refused


@pytest.mark.parametrize("requested", ["welch", "paired", "permutation"])
def test_a_test_of_one_sample_is_refused_for_several_batches(requested: RequestedTest) -> None:
    side = lower([1.0, 2.0, 1.5, 1.7], batches="aabb")
    baseline = Losses(side.values, side.rounding, None, side.batches)
    found = compare(lower([1.0, 2.0]), baseline, alpha=ALPHA, requested=requested)
    assert found.test is Test.TOLERANCE
    assert requested == "paired" or "one sample, but it has 2 batches" in found.refused


def test_without_a_spread_the_values_are_compared_exactly() -> None:
    for m, n in ((2, 2), (3, 3), (2, 5), (1, 5), (1, 3)):
        found = compared([1.0] * m, [0.5] * n)
        assert (found.test, found.loss, found.evidence) == (Test.EXACT, 0.5, None)
    assert compared([1.0, 2.0], [0.5] * 5).test is Test.EXACT  # nothing to predict by
    assert compared([1.0], [0.5]).test is Test.TOLERANCE  # one run says nothing of a spread
    assert compared([1.0], [0.5] * 2).test is Test.TOLERANCE
    gaps = compare(lower([1.5, 2.5, 4.5], "abc"), lower([1.0, 2.0, 4.0], "abc"), alpha=ALPHA)
    assert (gaps.test, gaps.loss) == (Test.EXACT, 0.5)


def test_a_candidate_without_a_spread_is_tested() -> None:
    # s = 0.1, so the error is 0.1 * sqrt(2 / 3) = 0.08165, t = 0.2 / 0.08165 = 2.4495, 2 degrees.
    found = compared([1.0, 1.0, 1.0], [0.7, 0.8, 0.9])
    assert found.test is Test.PREDICTION
    assert evidence_of(found).p_value == pytest.approx(stats.t.sf(2.4495, 2), rel=1e-4)
    # By Welch the error is 0.1 / sqrt(3) = 0.05774, t = 3.464, 2 degrees.
    found = compared([1.0, 1.0, 1.0], [0.7, 0.8, 0.9], "welch")
    assert evidence_of(found).p_value == pytest.approx(stats.t.sf(3.4641, 2), rel=1e-4)


def test_rounding_is_not_a_spread() -> None:
    rounded = [0.1 + 0.2, 0.3, 0.3]
    assert len(set(rounded)) == 2
    assert compared(rounded, [0.25] * 3).test is Test.EXACT
    assert compared([0.25] * 3, rounded).test is Test.EXACT
    near = to_losses([1.1, 0.7 + 0.4, 1.1], "target", 1.0)  # 0.1 and a bit, each
    assert compare(near, near, alpha=ALPHA).test is Test.EXACT


@pytest.mark.parametrize("factor", [1e-300, 1e-150, 1e75, 1e149])
@pytest.mark.parametrize("requested", ["auto", "welch"])
def test_no_value_is_too_small_nor_too_large_up_to_the_limit(
    factor: float, requested: RequestedTest
) -> None:
    here = evidence_of(compared(HIGH, LOW, requested))
    there = evidence_of(compared([v * factor for v in HIGH], [v * factor for v in LOW], requested))
    assert there.p_value == pytest.approx(here.p_value)
    assert there.at_least(ALPHA) / factor == pytest.approx(here.at_least(ALPHA))


def test_a_candidate_far_off_the_scale_is_worse() -> None:
    found = compared([1e149, 1.1e149, 0.9e149], LOW)
    assert found.test is Test.EXACT
    assert found.loss == pytest.approx(1e149)
    assert compared([1e149], [*LOW, 0.8]).loss == 1e149
    assert compared([MAX_VALUE] * 3, LOW).loss == MAX_VALUE
    assert compared([MAX_VALUE] * 2, [-MAX_VALUE] * 2).loss == 2 * MAX_VALUE


def test_a_wider_candidate_is_measured_in_spreads_of_the_baseline() -> None:
    found = compared([1.0, 2.0, 3.0], [1.0, 1.5, 2.0])
    assert found.spread == pytest.approx(0.5)
    assert found.widened == pytest.approx(2.0)
    assert compared([1.0, 2.0], [1.0] * 3).widened is None
    assert compared([1.0], [1.0, 1.5, 2.0]).widened is None


# -- batches ---------------------------------------------------------------------------------------


def test_batches_that_differ_by_far_more_than_their_spread_are_in_conflict() -> None:
    releases = [0.698, 0.700, 0.702, 0.798, 0.800, 0.802, 0.898, 0.900, 0.902]
    assert batches_conflict(lower(releases, batches="aaabbbccc"))
    assert batches_conflict(lower([1.0, 1.0, 2.0, 2.0], batches="aabb"))
    assert not batches_conflict(lower(releases))  # one batch
    assert not batches_conflict(lower(releases, batches="abcdefghi"))  # no spread of their own
    assert not batches_conflict(lower(releases, batches="abcabcabc"))
    assert not batches_conflict(lower([1.0] * 4, batches="aabb"))


def test_the_spread_between_batches_counts() -> None:
    baseline = [0.80, 0.81, 0.82, 0.83, 0.84, 0.85]
    candidate = [0.86, 0.87, 0.88]
    pooled = evidence_of(compared(candidate, baseline)).p_value
    found = compare(lower(candidate), lower(baseline, batches="aaabbb"), alpha=ALPHA)
    assert pooled < 0.01
    assert evidence_of(found).p_value > 0.05


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
    if here.evidence is not None:
        assert evidence_of(there).p_value == pytest.approx(here.evidence.p_value, rel=1e-6)


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
    plan = Plan(math.sqrt(2), 2.0)  # the errors of both sides, and their degrees of freedom
    assert seeds_needed(effect, plan, 0.05) == pytest.approx(seeds, abs=1)


def test_the_plan_of_each_test_is_that_of_its_runs() -> None:
    first, second = [1.0, 2.0, 4.0, 3.0], [1.0, 1.5, 2.0, 1.0]

    def planned(requested: RequestedTest, pairs: str | None = None) -> list[tuple[float, float]]:
        sides = lower(first, pairs), lower(second, pairs)
        found = compare(*sides, alpha=ALPHA, requested=requested)
        errors = found.evidence or Student(0.0, 0.0, 0.0)
        assert isinstance(errors, Student)
        (plan,) = found.plans
        return [(plan.deviation / 2, plan.sides * 3), (float(errors.error), float(errors.freedom))]

    for plan, used in (planned("prediction"), planned("welch"), planned("paired", "abcd")):
        assert plan == pytest.approx(used)


def test_less_variance_needs_fewer_seeds() -> None:
    def needed(deviation: float, level: float = 0.05) -> int:
        found = seeds_needed(1.0, Plan(deviation), level)
        assert found is not None
        return found

    assert needed(1.0) < needed(1.5) < needed(2.0) < needed(2.0, 0.01)


def test_without_a_loss_or_a_spread_there_is_no_advice() -> None:
    assert seeds_needed(0.0, Plan(1.0), 0.05) is None
    assert seeds_needed(-1.0, Plan(1.0), 0.05) is None
    assert seeds_needed(1.0, None, 0.05) is None
    assert seeds_needed(1.0, Plan(0.0), 0.05) is None


@pytest.mark.parametrize(("loss", "seeds"), [(1e-160, None), (1e160, 3), (1e-300, None)])
def test_extreme_ratios_of_spread_and_loss_get_advice(loss: float, seeds: int | None) -> None:
    assert seeds_needed(loss, Plan(1.0), 0.05) == seeds
