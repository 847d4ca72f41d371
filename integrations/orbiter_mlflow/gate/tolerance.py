"""A loss against the tolerance that a policy allows: `max_drop`, `max_drop_rel`."""

import math
from dataclasses import dataclass, replace

from orbiter_mlflow.gate import statistics
from orbiter_mlflow.gate.effect import change_words
from orbiter_mlflow.gate.limits import exceeds
from orbiter_mlflow.gate.model import Bound, MetricResult, Test, Verdict
from orbiter_mlflow.gate.policy import MetricPolicy
from orbiter_mlflow.gate.statistics import Comparison, Losses
from orbiter_mlflow.gate.statistics.significance import Both

__all__ = ["Assessment", "against_limits"]


@dataclass(frozen=True, slots=True)
class Assessment:
    """A metric before the correction for the number of metrics.

    Attributes:
        result: everything but the adjusted p-value; the verdict is final unless `open`.
        comparison: None if the metric was not compared.
        open: whether the metric is past tolerance, so that its p-value decides.
        remarks: texts that are appended to the reason.
    """

    result: MetricResult
    comparison: Comparison | None = None
    open: bool = False
    remarks: tuple[str, ...] = ()

    @property
    def tested(self) -> bool:
        """Whether its p-value is one of those that share alpha.

        A build must pass each non-inferiority test, so that many of them are no reason to be
        stricter (intersection-union test, Berger 1982).
        """
        result = self.result
        counts = result.severity != "info" and result.test is not Test.NON_INFERIORITY
        return result.p_value is not None and counts


def against_limits(
    expected: MetricPolicy,
    result: MetricResult,
    compared: Comparison,
    sides: tuple[Losses, Losses],
    *,
    alpha: float,
) -> Assessment:
    """Check the loss against `max_drop` and `max_drop_rel`."""
    if expected.paired_by is not None and expected.test == "auto" and not compared.matched:
        result = replace(
            result,
            unpaired=f"not paired: the values of {expected.paired_by} differ between the sides, "
            "or repeat",
        )
    remarks = _remarks(expected, result, compared)
    if expected.test == "paired" and not compared.matched:
        reason = (
            f"test = 'paired' needs the same values of {expected.paired_by} on both sides, each "
            "once: run the same seeds, or set test = 'auto'"
        )
        return Assessment(replace(result, reason=reason), compared, remarks=remarks)
    if expected.test == "non_inferiority" and compared.refused:
        return Assessment(replace(result, reason=compared.refused), compared)
    base, noise = abs(sides[1].mean), max(side.rounding for side in sides)
    limits = []
    if expected.max_drop is not None:
        limits.append((f"max_drop = {expected.max_drop:.12g}", expected.max_drop))
    if expected.max_drop_rel is not None and base > sides[1].rounding:
        limit = expected.max_drop_rel * base
        limits.append((f"max_drop_rel = {expected.max_drop_rel:.12g}, here {limit:.6g}", limit))
    elif expected.max_drop_rel is not None:
        remarks = (*remarks, "max_drop_rel has no meaning for a baseline of 0")
        if not limits and (compared.loss > noise or compared.no_worse):
            reason = f"worse by {compared.loss:.6g} than 0: add max_drop, an absolute limit"
            failed = replace(result, verdict=Verdict.FAIL, reason=reason)
            return Assessment(failed, compared, remarks=remarks)
    if compared.no_worse is not None:
        found = _no_worse(result, compared, compared.no_worse, limits, alpha)
        return Assessment(found, compared, remarks=remarks)
    past = [name for name, limit in limits if exceeds(compared.loss, limit, noise)]
    if not past:
        reason = f"within tolerance{change_words(result)}"
        passed = replace(result, verdict=Verdict.PASS, reason=reason)
        return Assessment(passed, compared, remarks=remarks)
    reason = f"{change_words(result).removeprefix(': ')}, past {' and '.join(past)}"
    # Not inconclusive, which may pass: one seed alone would get every change through.
    verdict = Verdict.CANNOT_COMPARE if compared.refused else Verdict.FAIL
    return Assessment(
        replace(result, verdict=verdict, reason=reason),
        compared,
        open=compared.evidence is not None,
        remarks=remarks,
    )


def _no_worse(
    result: MetricResult,
    compared: Comparison,
    evidence: Both,
    limits: list[tuple[str, float]],
    alpha: float,
) -> MetricResult:
    """The verdict of the non-inferiority test: it fails unless the loss is shown to be smaller."""
    name, limit = min(limits, key=lambda one: one[1])
    p_value, most = evidence.p_no_worse(limit), evidence.at_most(alpha)
    shown = p_value <= alpha
    # Rounding must not set figure and verdict against each other.
    most = min(most, limit) if shown else max(most, limit)
    result = replace(
        result,
        p_value=p_value,
        bound=Bound("at most", most, 1 - alpha) if math.isfinite(most) else None,
    )
    size = change_words(result).removeprefix(": ")
    if shown:
        reason = (
            f"shown to be within {name}: {size}; p = {p_value:.2g} by {result.test.with_article}"
        )
        return replace(result, verdict=Verdict.PASS, reason=reason)
    seeds = [statistics.seeds_needed(limit, plan, alpha) for plan in compared.plans]
    needed = max((one for one in seeds if one is not None), default=None)
    way_out = (
        f"if there is no change, about {needed} runs on each side would show it"
        if needed is not None
        else "a wider tolerance or a steadier metric is needed to show it"
    )
    reason = (
        f"not shown to be within {name}: {size}; p = {p_value:.2g} by "
        f"{result.test.with_article}: {way_out}"
    )
    return replace(result, verdict=Verdict.FAIL, reason=reason, seeds_needed=needed)


def _remarks(expected: MetricPolicy, result: MetricResult, compared: Comparison) -> tuple[str, ...]:
    """Remarks on how a metric was compared."""
    found = []
    if compared.test is Test.EXACT:
        found.append("there is no spread to test, so the values were compared exactly")
    elif compared.refused:
        found.append(compared.refused)
    elif expected.test == "none":
        found.append("tolerance only, because test = 'none'")
    elif compared.test is Test.TOLERANCE and expected.test == "auto":
        found.append(
            f"tolerance only, because {result.baseline.n} baseline runs are too few for a test: it "
            f"takes {statistics.MIN_RUNS}"
        )
    if result.unpaired:
        found.append(result.unpaired)
    if result.baseline.missing:
        count, n = len(result.baseline.missing), len(result.baseline.missing) + result.baseline.n
        found.append(f"{count} of {n} baseline runs lack it and do not count")
    return tuple(found)
