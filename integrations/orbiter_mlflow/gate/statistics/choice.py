"""Choose the test that the runs permit, and compare two sides by it.

A new test is a member of `Test`, a branch in `_choose` and in `_evidence`, and a name in
`RequestedTest` if a policy may ask for it.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

from orbiter_mlflow.gate.statistics import significance
from orbiter_mlflow.gate.statistics.advice import MIN_RUNS, Plan, smallest
from orbiter_mlflow.gate.statistics.losses import Losses, deviation, matched
from orbiter_mlflow.gate.statistics.significance import Both, Either, Evidence

__all__ = ["MAX_BATCH_CHANCE", "Comparison", "RequestedTest", "Test", "batches_conflict", "compare"]

RequestedTest = Literal[
    "auto", "none", "prediction", "welch", "paired", "permutation", "non_inferiority"
]
"""A policy's choice of the test."""

MAX_BATCH_CHANCE = 0.001
"""Batches of a baseline whose means would differ as much with a smaller probability, if they had
nothing but their runs' spread, are not one baseline."""


class Test(StrEnum):
    """How the candidate was compared with the baseline."""

    __test__ = False  # pytest would take it for a class of tests

    TOLERANCE = "tolerance only"
    """Too few runs for statistics: the difference of the means was compared with the limit."""
    PREDICTION = "prediction interval"
    COMBINED = "paired and prediction"
    """The paired t-test and the prediction interval; one of them is enough to fail."""
    BATCHES = "prediction over batches"
    WELCH = "Welch's t-test"
    PAIRED = "paired t-test"
    PERMUTATION = "permutation test"
    NON_INFERIORITY = "non-inferiority test"
    EXACT = "exact"
    """There is no spread: the values were compared exactly, without a p-value."""
    BOUNDS = "bounds only"

    @property
    def with_article(self) -> str:
        """The name within a sentence: `the paired t-test`, `Welch's t-test`."""
        if self is Test.COMBINED:
            return "the paired t-test and the prediction interval"
        return self.value if self is Test.WELCH else f"the {self.value}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result of comparing two sides.

    Attributes:
        test: the test that was used.
        loss: mean loss of the candidate minus mean loss of the baseline.
        evidence: p-value and lower bound for "the candidate is worse"; None without such a test.
        no_worse: p-value and upper bound for "no worse than a limit"; None without such a test.
        plans: for each look that the test takes, how precise more seeds would make it.
        refused: why the requested test cannot be done, and what to do; else empty.
        matched: whether the runs of the two sides come in pairs.
        spread: standard deviation of the baseline's runs; None with one run, or if all are equal.
        widened: the candidate's spread in units of the baseline's; None if one is unknown.
    """

    test: Test
    loss: float
    evidence: Evidence | None = None
    no_worse: Both | None = None
    plans: tuple[Plan, ...] = ()
    refused: str = ""
    matched: bool = False
    spread: float | None = None
    widened: float | None = None


def compare(
    candidate: Losses, baseline: Losses, *, alpha: float, requested: RequestedTest = "auto"
) -> Comparison:
    """Compare two sides, each with at least one value and none beyond `MAX_VALUE`.

    | baseline | test |
    |---|---|
    | several batches, 3 runs or more | prediction over batches |
    | 3 runs or more, the candidate has the same pairs | paired and prediction |
    | 3 runs or more | prediction interval |
    | fewer | tolerance only |

    The spread is that of the baseline: a candidate is never excused by its own. If the baseline has
    none, the values are compared exactly.

    Args:
        alpha: the level that a requested permutation test must be able to reach.
        requested: any other than "auto" is that test or none.
    """
    # In units of the largest value: no square or fourth power of a small spread underflows.
    unit = max(map(abs, (*candidate.values, *baseline.values))) or 1.0
    first, second = candidate.divided(unit), baseline.divided(unit)
    paired = matched(first, second)
    test, refused = _choose(first, second, requested, paired, alpha)
    spread = None if second.n < 2 or second.constant else deviation(second.values)
    widened = deviation(first.values) / spread if spread is not None and first.n > 1 else None
    found = Comparison(
        test,
        candidate.mean - baseline.mean,
        refused=refused,
        matched=paired,
        spread=None if spread is None else spread * unit,
        widened=widened,
    )
    if test in (Test.TOLERANCE, Test.EXACT):
        return found
    plans = tuple(Plan(p.deviation * unit, p.sides) for p in _plans(test, first, second))
    if test is Test.NON_INFERIORITY:
        return replace(found, no_worse=_no_worse(first, second, paired).scaled(unit), plans=plans)
    return replace(found, evidence=_evidence(test, first, second).scaled(unit), plans=plans)


def _choose(
    candidate: Losses, baseline: Losses, requested: RequestedTest, paired: bool, alpha: float
) -> tuple[Test, str]:
    """Choose the test; the text is `Comparison.refused`."""
    if requested == "none" or (requested == "paired" and not paired):
        return Test.TOLERANCE, ""
    refused = _refused(candidate, baseline, requested, alpha)
    if refused:
        return Test.TOLERANCE, refused
    if min(candidate.n, baseline.n) >= 2 and candidate.constant and baseline.constant:
        return Test.EXACT, ""
    if paired and requested in ("auto", "paired", "non_inferiority"):
        gaps = [a - b for a, b in zip(candidate.ordered, baseline.ordered, strict=True)]
        same = max(gaps) - min(gaps) <= candidate.rounding + baseline.rounding
        if same and (requested == "paired" or baseline.n >= MIN_RUNS):
            return Test.EXACT, ""
    match requested:
        case "welch":
            return Test.WELCH, ""
        case "paired":
            return Test.PAIRED, ""
        case "permutation":
            return Test.PERMUTATION, ""
        case "non_inferiority" if not (baseline.constant and candidate.n == 1):
            return Test.NON_INFERIORITY, ""
    if baseline.n < MIN_RUNS:
        return Test.TOLERANCE, ""
    if baseline.constant:
        return Test.EXACT, ""
    if baseline.batches:
        return Test.BATCHES, ""
    return (Test.COMBINED if paired and requested == "auto" else Test.PREDICTION), ""


def _refused(candidate: Losses, baseline: Losses, requested: RequestedTest, alpha: float) -> str:
    """Why a requested test cannot be done; empty if it can."""
    name, m, n = f"test = {requested!r}", candidate.n, baseline.n
    if requested in ("welch", "paired", "permutation") and baseline.batches:
        return (
            f"{name} takes the baseline for one sample, but it has {len(baseline.by_batch)} "
            "batches: compare with one (baseline.pool = 1), or set test = 'auto'"
        )
    if requested in ("welch", "paired") and min(m, n) < 2:
        return (
            f"{name} needs 2 runs on each side, but there are {m} and {n}: add runs, or set "
            "test = 'auto'"
        )
    if requested in ("prediction", "non_inferiority") and n < MIN_RUNS:
        return (
            f"{name} needs {MIN_RUNS} runs of the baseline, but there are {n}: bless more runs, or "
            "set test = 'auto'"
        )
    if requested == "permutation" and alpha * significance.orders(m, n) < 1:
        return orders_needed(m, n, alpha)
    return ""


def orders_needed(m: int, n: int, level: float) -> str:
    """Why the permutation test cannot reach a level, and the runs that it takes."""
    needed = smallest(lambda size: level * significance.orders(size, size) >= 1, 2)
    ways = significance.orders(m, n)
    return (
        f"test = 'permutation' cannot tell {m} from {n} runs: they divide in {ways} ways, so p is "
        f"at least {1 / ways:.2g}, and it takes {level:.2g}: add runs ({needed} on each side are "
        "enough), or set test = 'auto'"
    )


def _evidence(test: Test, candidate: Losses, baseline: Losses) -> Evidence:
    ours, theirs = candidate.ordered, baseline.ordered
    match test:
        case Test.COMBINED:
            return Either(significance.paired(ours, theirs), significance.prediction(ours, theirs))
        case Test.PAIRED:
            return significance.paired(ours, theirs)
        case Test.BATCHES:
            return significance.batched(ours, baseline.by_batch)
        case Test.WELCH:
            return significance.welch(ours, theirs)
        case Test.PERMUTATION:
            return significance.permutation(sorted(ours), sorted(theirs))
        case _:
            return significance.prediction(ours, theirs)


def _no_worse(candidate: Losses, baseline: Losses, paired: bool) -> Both:
    """The looks that must all show that the candidate is no worse.

    A spread that comes out too small would show it wrongly. So where nothing is paired, both the
    baseline's spread and, if it is known, the candidate's own must show it.
    """
    ours, theirs = candidate.ordered, baseline.ordered
    if paired:
        return Both((significance.paired(ours, theirs),))
    if baseline.batches:
        return Both((significance.batched(ours, baseline.by_batch),))
    looks = [] if baseline.constant else [significance.prediction(ours, theirs)]
    if candidate.n > 1:
        looks.append(significance.welch(ours, theirs))
    return Both(tuple(looks))


def _plans(test: Test, candidate: Losses, baseline: Losses) -> tuple[Plan, ...]:
    """How precise more seeds would make each look; more seeds do not help against batches."""
    ours, theirs = candidate.ordered, baseline.ordered
    if baseline.batches or baseline.n < 2:
        return ()
    base = deviation(theirs)
    by_baseline = Plan(base * 2**0.5)
    if test in (Test.COMBINED, Test.PAIRED):
        by_pair = Plan(deviation([a - b for a, b in zip(ours, theirs, strict=True)]))
        return (by_pair, by_baseline) if test is Test.COMBINED else (by_pair,)
    if test in (Test.WELCH, Test.PERMUTATION) and candidate.n > 1 and baseline.n > 1:
        own = deviation(ours)
        total = own**2 + base**2
        return (Plan(total**0.5, total**2 / (own**4 + base**4)),)  # Welch-Satterthwaite
    return (by_baseline,)


def batches_conflict(baseline: Losses) -> bool:
    """Whether the batches differ by far more than their runs' spread: they are no one baseline.

    One-way analysis of variance at `MAX_BATCH_CHANCE`; batches of one run each have no spread of
    their own, and are never in conflict.
    """
    unit = max(map(abs, baseline.values)) or 1.0
    found = baseline.divided(unit)
    groups = found.by_batch
    k, n = len(groups), found.n
    if k < 2 or n == k or found.constant:
        return False
    grand = found.mean
    means = [sum(group) / len(group) for group in groups]
    between = sum(len(g) * (mean - grand) ** 2 for g, mean in zip(groups, means, strict=True))
    within = sum(sum((v - mean) ** 2 for v in g) for g, mean in zip(groups, means, strict=True))
    if within <= n * found.rounding**2:
        return True
    from scipy import stats  # takes a second to load, which a single batch need not wait for

    ratio = (between / (k - 1)) / (within / (n - k))
    return bool(stats.f.sf(ratio, k - 1, n - k) < MAX_BATCH_CHANCE)
