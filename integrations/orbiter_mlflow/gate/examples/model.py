"""The result of comparing two evaluations example by example."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from orbiter_mlflow.gate.model import Bound, Direction, LeftOut, Severity, Verdict

__all__ = ["ExampleChange", "ExamplesResult", "PairedScores", "SliceResult"]


@dataclass(frozen=True, slots=True)
class ExampleChange:
    """The mean scores of an example on both sides."""

    example: str
    baseline: float
    candidate: float


@dataclass(frozen=True, slots=True)
class PairedScores:
    """The scores of the same examples on both sides.

    Attributes:
        n: number of examples.
        baseline: mean score.
        candidate: mean score.
        worse_by: the change of the mean as a loss: positive if the candidate is worse.
        broken: examples that got worse.
        fixed: examples that got better.
        p_value: one-sided, for "worse than the baseline".
        p_adjusted: `p_value` after the correction; None if it takes no part in one.
    """

    n: int
    baseline: float
    candidate: float
    worse_by: float
    broken: int
    fixed: int
    p_value: float
    p_adjusted: float | None = None


@dataclass(frozen=True, slots=True)
class SliceResult:
    """A slice of the examples: those whose `column` holds `label`.

    Attributes:
        failed: whether it is past tolerance, and significantly so.
    """

    column: str
    label: str
    scores: PairedScores
    failed: bool = False


@dataclass(frozen=True, slots=True)
class ExamplesResult:
    """The result of one comparison example by example.

    Attributes:
        name: its name in the policy.
        table: the path of the table among the runs' artifacts.
        reason: one sentence with values and limits, and what to do if something can be done.
        test: the name of the test; None if the tables were not compared.
        scores: of all examples that both sides have; None if they were not compared.
        bound: of the loss that the test proves.
        unpaired: examples that not all runs have; they are not compared.
        slices: those that are large enough, the worst first.
        small_slices: slices with too few examples to be tested.
        worst: the examples that got worst, the worst first.
        tables: run id -> SHA-256 of its table, in hex; the runs that were compared.
        left_out: runs of the baseline whose table could not be used, and why.
        by_chance: whether it passes although it is past tolerance: that is well within chance.
    """

    name: str
    table: str
    score: str
    direction: Direction
    severity: Severity
    verdict: Verdict
    reason: str
    max_drop: float
    test: str | None = None
    scores: PairedScores | None = None
    bound: Bound | None = None
    unpaired: int = 0
    slices: tuple[SliceResult, ...] = ()
    small_slices: int = 0
    worst: tuple[ExampleChange, ...] = ()
    tables: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[LeftOut, ...] = ()
    by_chance: bool = False
