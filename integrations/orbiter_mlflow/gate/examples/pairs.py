"""Pair the examples of two sides, and test the pairs, or a slice of them. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from orbiter_mlflow.gate.examples.model import ExampleChange, PairedScores
from orbiter_mlflow.gate.examples.paired_test import PairedTest, mcnemar, sign_flip
from orbiter_mlflow.gate.examples.table import ExampleTable
from orbiter_mlflow.gate.policy import ExamplesPolicy

__all__ = ["MAX_SLICES", "Pairs"]

Array: TypeAlias = Any
"""A numpy array."""

MAX_SLICES = 100
"""Slices of one column at most: a column with more parts nothing sensibly."""
MAX_WORST = 10
"""Examples that got worst, in the result."""

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Pairs:
    """The examples that all runs have, in the order of the newest run of the baseline.

    Attributes:
        binary: one run a side, with scores of 0 and 1.
        labels: column -> the label of each example.
    """

    ids: list[str]
    candidate: Array = field(repr=False)
    baseline: Array = field(repr=False)
    sign: int
    binary: bool
    unpaired: int
    labels: dict[str, list[str]]

    @classmethod
    def of(
        cls,
        expected: ExamplesPolicy,
        candidate: Mapping[str, ExampleTable],
        baseline: Mapping[str, ExampleTable],
    ) -> "Pairs":
        ours, theirs = [*candidate.values()], [*baseline.values()]
        every = [*theirs, *ours]
        seen = [set(table.ids) for table in every]
        common = set.intersection(*seen)
        ids = [one for one in theirs[0].ids if one in common]
        labels = {}
        for column in expected.slices:  # the baseline's labels: the change must not move examples
            table = next((one for one in every if column in one.labels), None)
            if table is not None:
                of = dict(zip(table.ids, table.labels[column], strict=True))
                labels[column] = [of[one] for one in ids]
        return cls(
            ids=ids,
            candidate=_mean_scores(ours, ids),
            baseline=_mean_scores(theirs, ids),
            sign=1 if expected.direction == "higher" else -1,
            binary=expected.test != "permutation"
            and len(ours) == len(theirs) == 1
            and all(table.binary for table in every),
            unpaired=len(set.union(*seen)) - len(ids),
            labels=labels,
        )

    def obstacle(self, expected: ExamplesPolicy, tables: Iterable[ExampleTable]) -> str:
        """Why the pairs say too little; empty if they do not."""
        shared, every = len(self.ids), len(self.ids) + self.unpaired
        if not shared or shared < expected.min_overlap * every * (1 - _ROUNDING):
            sizes = ", ".join(str(len(table.ids)) for table in tables)
            return (
                f"the runs were evaluated on different examples: only {shared} of {every} are in "
                f"all of them (of {sizes}); evaluate on the same examples, or lower min_overlap "
                f"(now {expected.min_overlap:g})"
            )
        for column in expected.slices:
            if column not in self.labels:
                return f"no table has the column {column!r} of slices: log it, or remove it"
            if (count := len(set(self.labels[column]))) > MAX_SLICES:
                return (
                    f"the column {column!r} parts the examples into {count} slices, more than "
                    f"{MAX_SLICES}: name one with fewer values"
                )
        return ""

    def tested(self, where: Any) -> tuple[PairedScores, PairedTest]:
        """The scores and the test of the examples at some indices."""
        ours, theirs = self.candidate[where], self.baseline[where]
        losses = self.sign * (theirs - ours)
        broken, fixed = int((losses > 0).sum()), int((losses < 0).sum())
        test = mcnemar(broken, fixed, len(losses)) if self.binary else sign_flip(losses)
        means = float(theirs.mean()), float(ours.mean())
        worse_by = self.sign * (means[0] - means[1])
        return PairedScores(len(losses), *means, worse_by, broken, fixed, test.p_value), test

    def worst(self) -> tuple[ExampleChange, ...]:
        """The examples that got worst, the worst first."""
        import numpy as np

        losses = self.sign * (self.baseline - self.candidate)
        order = np.argsort(-losses, kind="stable")[:MAX_WORST]
        return tuple(
            ExampleChange(self.ids[at], float(self.baseline[at]), float(self.candidate[at]))
            for at in order
            if losses[at] > 0
        )


def _mean_scores(tables: Sequence[ExampleTable], ids: Sequence[str]) -> Array:
    """The mean score of each example over the runs of a side."""
    import numpy as np

    total = np.zeros(len(ids))
    for table in tables:
        place = {one: at for at, one in enumerate(table.ids)}
        total += table.scores[[place[one] for one in ids]] / len(tables)
    return total
