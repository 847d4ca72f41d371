"""What the gate is given and what it finds, as data: nothing here decides, reads or prints."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

LARGEST = 1.797e308
"""From here on a value stands for an infinity: MLflow's stores keep one as the largest float."""

ALL_OTHERS = "..."
"""In place of the prefixes that had no room in the tag of a run's data."""

Direction = Literal["higher", "lower", "target"]
Severity = Literal["fail", "warn", "info"]


@dataclass(frozen=True, slots=True)
class GateRun:
    """A run as the gate sees it: from a store, or from a baseline file.

    Attributes:
        status: MLflow's: FINISHED, FAILED, KILLED, RUNNING.
        delivered: whether all of it has arrived; `undelivered` says why not.
        params: as logged.
        datasets: context -> `name:digest`, sorted and comma-separated where a run has several.
        metrics: the value of each metric at the point that the policy names; a metric that the run
            lacks is not in it. NaN and infinities are values.
        data: prefix of metric keys -> `name:digest` of the data they were measured on, sorted and
            comma-separated where the lives of a run had several; `ALL_OTHERS` stands for prefixes
            of which the run could not say it. Empty for runs that say nothing of it.
    """

    run_id: str
    name: str
    status: str
    params: Mapping[str, str]
    datasets: Mapping[str, str]
    metrics: Mapping[str, float]
    undelivered: str = ""
    start_time: int = 0
    """Milliseconds since the epoch."""
    data: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A run of the baseline that is not compared with, and why."""

    run_id: str
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Difference:
    """A field in which the candidate's runs and the baseline's may not differ, but do.

    `field` is as in the policy: `params.extra.eval_set`, `datasets.eval`; the values are those
    seen, None for runs that lack it.
    """

    field: str
    candidate: tuple[str | None, ...]
    baseline: tuple[str | None, ...]


class Verdict(StrEnum):
    """What the gate says of one metric."""

    PASS = "pass"  # noqa: S105  a verdict
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    """Past tolerance, but these few runs cannot tell it from chance."""
    CANNOT_COMPARE = "cannot compare"
    NEW = "new"
    """The baseline lacks it: its bounds held, nothing else could be judged."""
    UNJUDGED = "unjudged"
    """There is no baseline yet, and the user said so: its bounds held."""


class Test(StrEnum):
    """How a change was told from chance."""

    __test__ = False  # no class of tests, whatever its name says to pytest

    TOLERANCE = "tolerance only"
    """Too few runs for any statistics: the means were compared as they are."""
    PREDICTION = "prediction interval"
    WELCH = "Welch's t-test"
    PAIRED = "paired t-test"
    EXACT = "exact"
    """Both sides are constant: the values were compared, there is no p-value."""
    BOUNDS = "bounds only"


@dataclass(frozen=True, slots=True)
class Sample:
    """The values of one metric on one side, one for each run that has it.

    Attributes:
        values: run id -> value.
        missing: ids of the runs that lack the metric.
    """

    values: Mapping[str, float]
    missing: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        """How many values there are."""
        return len(self.values)


@dataclass(frozen=True, slots=True)
class MetricResult:
    """What the gate found of one metric.

    Attributes:
        metric: its key.
        verdict: what it says.
        reason: why, in a sentence that names values and limits; says what to do where something can
            be done.
        limits: the limits in force, in the policy's words: `min = 0.8`, `max_drop = 0.01`.
        allowed: the same as numbers: the lowest and the highest mean of the candidate that is
            within all of them; None for an end without a limit.
        change: mean of the candidate less mean of the baseline; for a target, of the distances to
            it. None where they cannot be compared.
        change_rel: `change` as a fraction of the baseline's absolute value; None where that is 0.
        worse_by: `change` as a loss: positive where the candidate is worse.
        interval: confidence interval of `change` at 1 - alpha; None where the runs are too few.
        confidence: 1 - alpha.
        p_value: one-sided, for "worse than the baseline"; None where there is no test.
        p_adjusted: the same after Holm's correction over the metrics judged.
        seeds_needed: runs on each side that would settle an inconclusive one; None where it is
            none, or where no number of seeds below the search's end would.
    """

    metric: str
    direction: Direction
    severity: Severity
    verdict: Verdict
    reason: str
    test: Test
    candidate: Sample
    baseline: Sample
    limits: tuple[str, ...] = ()
    target: float | None = None
    change: float | None = None
    change_rel: float | None = None
    worse_by: float | None = None
    interval: tuple[float, float] | None = None
    confidence: float | None = None
    p_value: float | None = None
    p_adjusted: float | None = None
    seeds_needed: int | None = None
    at: str = "last"
    allowed: tuple[float | None, float | None] = (None, None)


class Outcome(StrEnum):
    """What the gate says of the candidate."""

    PASS = "pass"  # noqa: S105  a verdict
    WARN = "warn"
    """Something is worse, inconclusive or unjudged that the policy only warns of."""
    REGRESSION = "regression"
    CANNOT_COMPARE = "cannot compare"
    INCONCLUSIVE = "inconclusive"

    @property
    def exit_code(self) -> int:
        """0 to go on; 2 stands for wrong use, and is no outcome."""
        return _EXIT_CODES[self]


_EXIT_CODES = {
    Outcome.PASS: 0,
    Outcome.WARN: 0,
    Outcome.REGRESSION: 1,
    Outcome.CANNOT_COMPARE: 3,
    Outcome.INCONCLUSIVE: 4,
}


@dataclass(frozen=True, slots=True)
class BaselineSource:
    """Where the baseline comes from.

    Attributes:
        described: in words, for people: "filter tags.baseline = 'main' in experiment e, last 10".
        changed: what of baseline file and policy is not as at the git ref; empty where nothing.
    """

    described: str
    changed: str = ""


@dataclass(frozen=True, slots=True)
class GateReport:
    """All that the gate found, as every kind of report shows it.

    Attributes:
        problems: why the whole cannot be compared, one sentence each; empty where it can.
        notes: what else a reader should know, one sentence each: runs left out, bootstrap, ...
        left_out: runs of the baseline that were not compared with.
        differences: fields that had to be equal and are not.
        links: page of the MLflow UI by its title.
        bootstrap: whether bounds alone decided, as there is no baseline yet and the user said so.
    """

    outcome: Outcome
    metrics: tuple[MetricResult, ...]
    candidate: tuple[GateRun, ...]
    baseline: tuple[GateRun, ...]
    source: BaselineSource
    policy: str
    """Where the policy was read."""
    policy_digest: str
    """SHA-256, in hex, of the policy's text."""
    alpha: float
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    differences: tuple[Difference, ...] = ()
    links: Mapping[str, str] | None = None
    bootstrap: bool = False
