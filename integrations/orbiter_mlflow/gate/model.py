"""The data of the gate: the runs it compares, and the report with its verdicts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

from orbiter_mlflow.gate.lineage import BaselineAge, PastBlessing
from orbiter_mlflow.gate.statistics import Correction as Correction
from orbiter_mlflow.gate.statistics import Direction as Direction
from orbiter_mlflow.gate.statistics import Test as Test

if TYPE_CHECKING:
    from orbiter_mlflow.gate.examples.model import ExamplesResult

LARGEST = 1.797e308
"""Values from here on are infinite: MLflow's stores keep infinity as the largest float."""

ALL_OTHERS = "..."
"""Stands for all prefixes that did not fit into the tag with a run's data."""

Severity = Literal["fail", "warn", "info"]
Side = Literal["candidate", "baseline"]


@dataclass(frozen=True, slots=True)
class GateRun:
    """A run as the gate sees it: from a store, or from a baseline file.

    Attributes:
        status: MLflow's status: FINISHED, FAILED, KILLED, RUNNING.
        params: the params as logged.
        datasets: context -> `name:digest`, sorted and comma-separated if there are several.
        metrics: the value of each metric at the point that the policy names. A metric without a
            value is left out; NaN and infinity are values.
        undelivered: why the run is incomplete in its store; empty if it is complete.
        start_time: milliseconds since the epoch.
        data: prefix of metric keys -> `name:digest` of the data they were measured on, sorted and
            comma-separated if a resumed run used several. `ALL_OTHERS` stands for prefixes whose
            data the run did not record. Empty if the run recorded none.
        batch: which runs of a baseline belong together, as those blessed at once do; "" if all do.
        commit: the commit of the code, in full; empty if the run did not record it.
        dirty: whether the code had changes that were not committed.
        evaluations: metric -> number of values in its history, where the policy takes the best of
            them.
    """

    run_id: str
    name: str
    status: str
    params: Mapping[str, str]
    datasets: Mapping[str, str]
    metrics: Mapping[str, float]
    undelivered: str = ""
    start_time: int = 0
    data: Mapping[str, str] = field(default_factory=dict)
    batch: str = ""
    commit: str = ""
    dirty: bool = False
    evaluations: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A run that is not used, and why."""

    run_id: str
    name: str
    reason: str
    side: Side = "baseline"


@dataclass(frozen=True, slots=True)
class FieldDifference:
    """A field that must be equal in all runs, but is not.

    Attributes:
        field: its name in the policy: `params.extra.eval_set`, `datasets.eval`.
        candidate: the values in the candidate's runs, each once; None for runs without the field.
        baseline: likewise.
    """

    field: str
    candidate: tuple[str | None, ...]
    baseline: tuple[str | None, ...]


class Verdict(StrEnum):
    """The verdict on one metric."""

    PASS = "pass"  # noqa: S105  a verdict
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    """Past tolerance, but with so few runs it may be chance."""
    CANNOT_COMPARE = "cannot compare"
    NEW = "new"
    """The baseline lacks it; it is within its bounds, and nothing else could be judged."""
    UNJUDGED = "unjudged"
    """There is no baseline yet, and `--bootstrap` allows that; it is within its bounds."""
    ACCEPTED = "accepted"
    """Worse than the policy allows, but an `[[accept]]` of the policy accepts that for now."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The values of one metric on one side.

    Attributes:
        values: run id -> value.
        missing: ids of the runs without the metric.
    """

    values: Mapping[str, float]
    missing: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        """The number of values."""
        return len(self.values)


@dataclass(frozen=True, slots=True)
class Bound:
    """The confidence bound of `worse_by` that the decision used; it never contradicts the verdict.

    Attributes:
        kind: "at least" if the gate looks for proof that the candidate is worse: a metric past
            tolerance fails only if `value` is above 0. "at most" if it looks for proof that the
            candidate is no worse.
        confidence: one-sided, after the correction for the number of metrics.
    """

    kind: Literal["at least", "at most"]
    value: float
    confidence: float


@dataclass(frozen=True, slots=True)
class WorstRun:
    """The candidate's worst run by one metric.

    Attributes:
        label: its seed, if it has one: `seed 3`; else its name, else its id.
        worse_by: how much worse it is than the baseline's mean.
        spreads: `worse_by` in standard deviations of the baseline's runs; None if that is unknown.
    """

    run_id: str
    label: str
    value: float
    worse_by: float
    spreads: float | None


@dataclass(frozen=True, slots=True)
class MetricResult:
    """The result for one metric.

    Attributes:
        metric: the metric's key.
        reason: one sentence with values and limits, and what to do if something can be done.
        limits: the limits as the policy writes them: `min = 0.8`, `max_drop = 0.01`.
        change: mean of the candidate minus mean of the baseline; with a target, of the distances
            to it. None if they cannot be compared.
        change_rel: `change` as a fraction of the baseline's absolute mean; None if that is 0.
        worse_by: `change` as a loss: positive if the candidate is worse.
        p_value: one-sided, for "worse than the baseline"; for the non-inferiority test, whose small
            values are good news, for "no worse than the tolerance". None without a test.
        p_adjusted: `p_value` after the correction over all metrics tested; None if it has no part
            in that, as one for information and the non-inferiority test.
        seeds_needed: runs on each side that would settle an inconclusive result; None if the
            result is not inconclusive, or no number of seeds up to the maximum would.
        at: the point of the run's history that counts, as in the policy.
        allowed: the limits as numbers: the lowest and the highest mean of the candidate that all
            of them allow; None for an end without a limit.
        bound: None without a test.
        worst: None if the metric was not compared.
        by_chance: whether it passes although its mean is past tolerance, because that is well
            within chance.
        unpaired: why a policy's `paired_by` did not pair the runs; empty if it did, or is not set.
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
    p_value: float | None = None
    p_adjusted: float | None = None
    seeds_needed: int | None = None
    at: str = "last"
    allowed: tuple[float | None, float | None] = (None, None)
    bound: Bound | None = None
    worst: WorstRun | None = None
    by_chance: bool = False
    unpaired: str = ""


class Outcome(StrEnum):
    """The outcome for the candidate as a whole."""

    PASS = "pass"  # noqa: S105  a verdict
    WARN = "warn"
    """A metric that the policy only warns about is worse, inconclusive or unjudged."""
    REGRESSION = "regression"
    CANNOT_COMPARE = "cannot compare"
    INCONCLUSIVE = "inconclusive"

    @property
    def exit_code(self) -> int:
        """The exit code of `orbiter-mlflow check`; 2 is wrong usage and never an outcome."""
        return _EXIT_CODES[self]


_EXIT_CODES = {
    Outcome.PASS: 0,
    Outcome.WARN: 0,
    Outcome.REGRESSION: 1,
    Outcome.CANNOT_COMPARE: 3,
    Outcome.INCONCLUSIVE: 4,
}


@dataclass(frozen=True, slots=True)
class Approval:
    """An `[[accept]]` of the policy: a regression that people have accepted until a day.

    Attributes:
        until: the last day on which it counts, in UTC, in ISO 8601.
        status: `used` if the metric is worse than allowed, else `unused`; `expired` after `until`.
    """

    metric: str
    until: str
    reason: str
    by: str
    status: Literal["used", "unused", "expired", "overruled"]


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """How the policy differs from the one at the git ref.

    Attributes:
        ref: the ref and its commit, for people.
        accepted: whether `--accept-policy-change` lets the policy here decide alone; else both
            policies judge, and the stricter verdict counts.
        diff: a unified diff, one line each.
    """

    ref: str
    accepted: bool
    diff: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BaselineSource:
    """Where the baseline comes from.

    Attributes:
        described: for people: "filter tags.baseline = 'main' in experiment e, last 10".
        changed: how baseline file and policy differ from the git ref; empty if they do not.
    """

    described: str
    changed: str = ""


@dataclass(frozen=True, slots=True)
class DriftResult:
    """Whether a metric has declined over the last blessings and the candidate.

    Attributes:
        verdict: PASS or FAIL.
        reason: one sentence with the decline, the limit and the p-value.
        points: number of blessings in the trend, and 1 for the candidate.
        slope: loss from one blessing to the next; positive if the metric gets worse.
        decline: loss over the whole trend.
        allowed: the largest loss that the policy tolerates, as against a baseline.
        p_value: one-sided, for "it gets worse"; None if the trend is exact.
        p_adjusted: `p_value` after Holm's correction over the metrics with a trend.
    """

    metric: str
    severity: Severity
    verdict: Verdict
    reason: str
    points: int
    slope: float
    decline: float
    allowed: float
    p_value: float | None = None
    p_adjusted: float | None = None


@dataclass(frozen=True, slots=True)
class GateReport:
    """Everything the gate found; each report format shows it.

    Attributes:
        policy: the path of the policy.
        policy_digest: SHA-256, in hex, of the policy's text.
        problems: why candidate and baseline cannot be compared, one sentence each; else empty.
        notes: other remarks for the reader, one sentence each.
        left_out: runs of either side that were not used.
        differences: fields that must be equal and are not.
        links: title -> address of a page of the MLflow UI.
        bootstrap: whether there was no baseline and `--bootstrap` let the bounds alone decide.
        correction: the correction for the number of metrics.
        approvals: the accepted regressions of the policy, used or not.
        policy_change: None if the policy is the same at the git ref, or there is no ref.
        examples: the comparisons example by example, in the policy's order.
        drift: the trend of each compared metric, if the policy asks for it.
        history: the last blessings, the oldest first; the last is the baseline.
        age: None if it is not known.
    """

    outcome: Outcome
    metrics: tuple[MetricResult, ...]
    candidate: tuple[GateRun, ...]
    baseline: tuple[GateRun, ...]
    source: BaselineSource
    policy: str
    policy_digest: str
    alpha: float
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    differences: tuple[FieldDifference, ...] = ()
    links: Mapping[str, str] | None = None
    bootstrap: bool = False
    correction: Correction = "holm"
    approvals: tuple[Approval, ...] = ()
    policy_change: PolicyChange | None = None
    examples: "tuple[ExamplesResult, ...]" = ()
    drift: tuple[DriftResult, ...] = ()
    history: tuple[PastBlessing, ...] = ()
    age: BaselineAge | None = None


def counted(count: int, what: str) -> str:
    """`1 run`, `2 runs`: for the sentences of the gate."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
