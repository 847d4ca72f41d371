"""The verdicts on examples: pair two sides by example, test, correct for the number of tests.

Pure, and fails closed: a table that is missing, or holds other examples, cannot be compared.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from orbiter_mlflow.gate.examples.model import (
    ExamplesResult,
    PairedScores,
    SliceResult,
)
from orbiter_mlflow.gate.examples.paired_test import ExampleTest, PairedTest
from orbiter_mlflow.gate.examples.pairs import Pairs
from orbiter_mlflow.gate.examples.table import ExampleTable
from orbiter_mlflow.gate.limits import exceeds
from orbiter_mlflow.gate.model import Bound, LeftOut, Verdict, counted
from orbiter_mlflow.gate.policy import ExamplesPolicy
from orbiter_mlflow.gate.statistics import Corrected, Correction, corrected, well_within_chance
from orbiter_mlflow.gate.verdict import BaselineStatus

__all__ = ["MAX_RUNS", "MIN_SLICE", "ExampleTables", "judge_examples"]

MAX_RUNS = 20
"""Runs of the candidate whose tables are read at most."""
MIN_SLICE = 10
"""Examples of a slice that is tested; with fewer, hardly any loss is significant."""

_ROUNDING = 1e-18
"""A difference of two mean scores up to this is rounding."""


@dataclass(frozen=True, slots=True)
class ExampleTables:
    """The tables of one comparison: run id -> its table, or why there is none, newest run first."""

    candidate: Mapping[str, ExampleTable | str]
    baseline: Mapping[str, ExampleTable | str]


def judge_examples(
    policy: Mapping[str, ExamplesPolicy],
    tables: Mapping[str, ExampleTables],
    *,
    alpha: float,
    correction: Correction,
    quiet: bool,
    status: BaselineStatus,
) -> tuple[ExamplesResult, ...]:
    """Judge each comparison of the policy.

    The p-values of all that can fail or warn are corrected for their number; those of metrics are a
    family of their own, and so are those of the slices of each comparison.

    Args:
        tables: name in the policy -> its tables.
        quiet: whether a loss past tolerance passes if it is well within chance.
        status: whether candidate and baseline can be compared at all.
    """
    family = _Family(alpha, correction)
    found = [
        _assess(name, expected, tables.get(name, ExampleTables({}, {})), family, status)
        for name, expected in policy.items()
    ]
    tested = [one.test.p_value for one in found if one.test is not None and one.shares_alpha]
    adjusted = iter(family.corrected(tested))
    return tuple(
        _decide(
            one,
            next(adjusted) if one.test is not None and one.shares_alpha else None,
            alpha,
            quiet=quiet,
        )
        for one in found
    )


@dataclass(frozen=True, slots=True)
class _Family:
    """How the p-values of a family are corrected."""

    alpha: float
    correction: Correction

    def corrected(self, p_values: Sequence[float]) -> list[Corrected]:
        return corrected(p_values, self.alpha, self.correction)


@dataclass(frozen=True, slots=True)
class _Assessment:
    """A comparison before the correction; without a test its verdict is final."""

    result: ExamplesResult
    expected: ExamplesPolicy
    test: PairedTest | None = None

    @property
    def shares_alpha(self) -> bool:
        return self.expected.severity != "info"


def _assess(
    name: str,
    expected: ExamplesPolicy,
    tables: ExampleTables,
    family: _Family,
    status: BaselineStatus,
) -> _Assessment:
    result = ExamplesResult(
        name=name,
        table=expected.path,
        score=expected.score,
        direction=expected.direction,
        severity=expected.severity,
        verdict=Verdict.CANNOT_COMPARE,
        reason="",
        max_drop=expected.max_drop,
    )
    if status is BaselineStatus.CANDIDATE_INCOMPLETE:
        reason = "not judged: the candidate is incomplete"
        return _Assessment(replace(result, reason=reason), expected)
    if status is BaselineStatus.NOT_COMPARABLE:
        reason = "not compared: the problems of the whole report say why"
        return _Assessment(replace(result, reason=reason), expected)
    if status is BaselineStatus.NOT_YET:
        reason = "not judged: there is no baseline yet"
        return _Assessment(replace(result, verdict=Verdict.UNJUDGED, reason=reason), expected)
    left_out = [
        LeftOut(run, "", why) for run, why in tables.baseline.items() if isinstance(why, str)
    ]
    result = replace(result, left_out=tuple(left_out))
    candidate, baseline = _tables(tables.candidate), _tables(tables.baseline)
    obstacle = _obstacle(expected, tables, candidate, baseline)
    if obstacle:
        return _Assessment(replace(result, reason=obstacle), expected)
    pairs = Pairs.of(expected, candidate, baseline)
    result = replace(
        result,
        unpaired=pairs.unpaired,
        tables={run: table.digest for run, table in {**candidate, **baseline}.items()},
    )
    obstacle = pairs.obstacle(expected, [*candidate.values(), *baseline.values()])
    if obstacle:
        return _Assessment(replace(result, reason=obstacle), expected)
    scores, test = pairs.tested(slice(None))
    slices, small = _slices(pairs, expected, family)
    result = replace(
        result,
        scores=scores,
        test=(ExampleTest.MCNEMAR if pairs.binary else ExampleTest.SIGN_FLIP).value,
        slices=slices,
        small_slices=small,
        worst=pairs.worst(),
    )
    return _Assessment(result, expected, test)


def _tables(tables: Mapping[str, ExampleTable | str]) -> dict[str, ExampleTable]:
    return {run: one for run, one in tables.items() if isinstance(one, ExampleTable)}


def _obstacle(
    expected: ExamplesPolicy,
    tables: ExampleTables,
    candidate: Mapping[str, ExampleTable],
    baseline: Mapping[str, ExampleTable],
) -> str:
    """Why the tables cannot be compared; empty if they can."""
    for run, table in tables.candidate.items():
        if isinstance(table, str):
            return f"candidate {run}: {table}"
    if len(candidate) > MAX_RUNS:
        return (
            f"there are {len(candidate)} candidate runs, and the tables of at most {MAX_RUNS} are "
            "compared: name fewer"
        )
    if not baseline:
        run, why = next(iter(tables.baseline.items()), ("", "there is no baseline run"))
        return (
            f"no run of the baseline has a usable table: {f'{run}: ' if run else ''}{why}; bless "
            "runs that logged one, or set severity = 'warn' until there are some"
        )
    if expected.test == "mcnemar":
        if len(candidate) > 1:
            return (
                f"test = 'mcnemar' compares one run a side, and there are {len(candidate)} "
                "candidates: name one, or set test = 'auto'"
            )
        if not all(one.binary for one in (*candidate.values(), *baseline.values())):
            return (
                f"test = 'mcnemar' needs scores of 0 and 1, and {expected.score!r} has others: set "
                "test = 'auto'"
            )
    return ""


def _slices(
    pairs: Pairs, expected: ExamplesPolicy, family: _Family
) -> tuple[tuple[SliceResult, ...], int]:
    """The slices, the worst first, and how many are too small; their p-values are a family."""
    import numpy as np

    found, small = [], 0
    for column, labels in pairs.labels.items():
        values, inverse = np.unique(np.array(labels, object).astype(str), return_inverse=True)
        for at, label in enumerate(values):
            where = np.flatnonzero(inverse == at)
            if len(where) < MIN_SLICE:
                small += 1
            else:
                found.append(SliceResult(column, str(label), pairs.tested(where)[0]))
    adjusted = family.corrected([one.scores.p_value for one in found])
    judged = [
        replace(
            one,
            scores=replace(one.scores, p_adjusted=against.p_value),
            failed=_past(one.scores.worse_by, expected) and against.p_value <= family.alpha,
        )
        for one, against in zip(found, adjusted, strict=True)
    ]
    judged.sort(key=lambda one: (not one.failed, one.scores.p_value, -one.scores.worse_by))
    return tuple(judged), small


# -- verdicts --------------------------------------------------------------------------------------


def _past(worse_by: float, expected: ExamplesPolicy) -> bool:
    return exceeds(worse_by, expected.max_drop, _ROUNDING)


def _decide(
    assessment: _Assessment, shared: Corrected | None, alpha: float, *, quiet: bool
) -> ExamplesResult:
    result, expected, test = assessment.result, assessment.expected, assessment.test
    if test is None or result.scores is None:
        return result
    against = shared or Corrected(test.p_value, alpha)
    p_value = against.p_value
    scores = replace(result.scores, p_adjusted=None if shared is None else p_value)
    value = test.at_least(against.level)
    bound = Bound("at least", value, 1 - against.level) if math.isfinite(value) else None
    result = replace(result, scores=scores, bound=bound)
    change = _change(scores)
    limit = f"max_drop = {expected.max_drop:.12g}"
    found = f"{change}, p = {p_value:.2g} by {_with_article(result.test or '')}"
    by_chance = False
    failed = [one for one in result.slices if one.failed] if expected.fail_on_slices else []
    if not _past(scores.worse_by, expected):
        verdict, reason = Verdict.PASS, f"within {limit}: {change}"
    elif p_value <= alpha:
        verdict, reason = Verdict.FAIL, f"past {limit}: {found}"
    elif quiet and well_within_chance(p_value, alpha):
        verdict, reason = Verdict.PASS, f"past {limit}, but well within chance: {found}"
        by_chance = True
    else:
        verdict, reason = (
            Verdict.INCONCLUSIVE,
            (f"past {limit}: {found}, which may be chance: evaluate on more examples"),
        )
    if failed:
        worst = failed[0]
        more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
        reason = (
            f"the slice {worst.column} = {worst.label}{more} is past {limit}: "
            f"{_change(worst.scores)}, p = {worst.scores.p_adjusted:.2g}; as a whole {reason}"
        )
        verdict, by_chance = Verdict.FAIL, False
    return replace(result, verdict=verdict, reason=reason, by_chance=by_chance)


def _with_article(test: str) -> str:
    return test if test == ExampleTest.MCNEMAR.value else f"the {test}"


def _change(scores: PairedScores) -> str:
    """`worse by 0.023 over 1000 examples (41 broken, 18 fixed)`."""
    size = abs(scores.worse_by)
    word = "worse" if scores.worse_by > 0 else "better"
    shown = f"{word} by {size:.4g}" if size else "no change"
    return (
        f"{shown} over {counted(scores.n, 'example')} ({scores.broken} broken, "
        f"{scores.fixed} fixed)"
    )
