"""The error rates of the gate's tests: how often they raise a false alarm or miss a drop."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.results import Check, Column, Result
from benchmarks.sizes import Sizes
from benchmarks.stores import Stores

NAME = "power"
ALPHA = 0.05
POWER = 0.8
JUDGED = 40
"""Trials of each row that `judge` decides too."""
COLLAPSE = 5.0
"""Standard deviations by which one run is worse."""
DESIGNS = ((3, 3), (5, 5), (10, 10), (10, 3), (10, 1))
"""Runs of the baseline, and of the candidate."""
MORE_DESIGNS = ((5, 1), (5, 2), (20, 20))
NORMAL = "normal"
SHAPES = (NORMAL, "heavy-tailed", "a baseline run collapsed", "a candidate run collapsed")
COLUMNS = (
    Column("baseline", "baseline", "d"),
    Column("candidate", "candidate", "d"),
    Column("test", "test"),
    Column("values", "values"),
    Column("false_alarms", "false alarms %", ".1f"),
    Column("drop", "drop, in spreads", ".2f"),
    Column("power", "detected %", ".1f"),
    Column("named_power", "the test itself %", ".1f"),
)
NOTE = (
    "Per row {trials} candidates without a drop and as many with one, at alpha = {alpha}, "
    "one metric and max_drop = 0. 'drop': detected in normal values with a probability of "
    "{power:.0%}, searched for with other values; in spreads, the standard deviation between the "
    "runs of one side. 'the test itself': scipy's Welch test on independent values, or, for the "
    "prediction interval, the noncentral t distribution. Heavy-tailed: Student's t with 3 degrees "
    "of freedom; collapsed: one run is worse by {collapse:g} spreads. `judge` decided {judged} "
    "trials of each row as well."
)


@dataclass(frozen=True)
class Design:
    """The number of runs on each side, which decides the test."""

    baseline: int
    candidate: int

    @property
    def predicts(self) -> bool:
        """Whether the test is the prediction interval, not Welch's."""
        return self.candidate < 3


def _values(
    design: Design, shape: str, drop: float, trials: int, generator: Any
) -> tuple[Any, Any]:
    """Losses of candidates and baselines, one trial in each row, with a spread of 1."""
    sizes = (trials, design.candidate), (trials, design.baseline)
    if shape == "heavy-tailed":
        first, second = (generator.standard_t(3, size) / math.sqrt(3) for size in sizes)
    else:
        first, second = (generator.standard_normal(size) for size in sizes)
    if shape == "a candidate run collapsed":
        first[:, 0] += COLLAPSE
    elif shape == "a baseline run collapsed":
        second[:, 0] += COLLAPSE
    return first + drop, second


def _failed(design: Design, candidate: Any, baseline: Any) -> Any:
    """The trials that fail by the gate's own tests, as an array of bools."""
    from orbiter_mlflow.gate.statistics.significance import prediction

    p_values = prediction(candidate, baseline).p_value
    worse = candidate.mean(axis=-1) > baseline.mean(axis=-1)
    return worse & (p_values <= ALPHA)


def _detected_drop(design: Design, trials: int, generator: Any) -> float:
    """The drop that the gate's test detects in normal values with probability `POWER`."""
    candidate, baseline = _values(design, NORMAL, 0.0, trials, generator)
    low, high = 0.0, 20.0
    for _ in range(16):
        middle = (low + high) / 2
        if _failed(design, candidate + middle, baseline).mean() < POWER:
            low = middle
        else:
            high = middle
    return high


def _judged(candidate: Any, baseline: Any) -> tuple[bool, str]:
    """Whether one trial fails, and the test, by the gate as a whole."""
    from orbiter_mlflow.gate.judge import judge
    from orbiter_mlflow.gate.model import BaselineSource, GateRun, Verdict
    from orbiter_mlflow.gate.policy import Policy

    def runs(side: str, values: Any) -> list[GateRun]:
        return [
            GateRun(f"{side}{n}", "", "FINISHED", {}, {}, {"loss": float(value)})
            for n, value in enumerate(values)
        ]

    policy = Policy.for_one("loss", direction="lower", max_drop=0.0)
    source = BaselineSource("simulated")
    report = judge(policy, runs("c", candidate), runs("b", baseline), source=source)
    found = report.metrics[0]
    return found.verdict is Verdict.FAIL, str(found.test)


def _named_power(design: Design, drop: float, trials: int, generator: Any) -> float:
    """The power of the same test, computed without the gate."""
    from scipy import stats

    if design.predicts:
        freedom = design.baseline - 1
        error = math.sqrt(1 / design.baseline + 1 / design.candidate)
        return float(stats.nct.sf(stats.t.isf(ALPHA, freedom), freedom, drop / error))
    candidate, baseline = _values(design, NORMAL, drop, trials, generator)
    found = stats.ttest_ind(candidate, baseline, axis=-1, equal_var=False, alternative="greater")
    return float((found.pvalue <= ALPHA).mean())


def run(stores: Stores, sizes: Sizes, say: Callable[[str], None]) -> Result:
    import numpy as np

    generator = np.random.default_rng(20_260_101)
    trials, rows, checks, disagreements = sizes.trials, [], [], 0
    for design in [Design(*runs) for runs in (*DESIGNS, *MORE_DESIGNS)]:
        drop = _detected_drop(design, trials, generator)
        label = f"{design.baseline} v {design.candidate}"
        shapes = SHAPES if (design.baseline, design.candidate) in DESIGNS else (NORMAL,)
        for shape in shapes:
            row: dict[str, Any] = {
                "baseline": design.baseline,
                "candidate": design.candidate,
                "values": shape,
                "drop": drop,
            }
            for key, shift in (("false_alarms", 0.0), ("power", drop)):
                candidate, baseline = _values(design, shape, shift, trials, generator)
                failed = _failed(design, candidate, baseline)
                row[key] = float(failed.mean()) * 100
                for trial in range(min(trials, JUDGED)):
                    verdict, row["test"] = _judged(candidate[trial], baseline[trial])
                    disagreements += verdict is not bool(failed[trial])
            if shape == NORMAL:
                row["named_power"] = _named_power(design, drop, trials, generator) * 100
                gap = abs(row["power"] - row["named_power"])
                checks += [
                    Check(
                        f"false alarms, {label}", row["false_alarms"], "<=", ALPHA * 100 + 1, "%"
                    ),
                    Check(
                        f"difference from the power of the test, {label}", gap, "<=", 2, "points"
                    ),
                ]
            rows.append(row)
        say(f"{label}: {rows[-len(shapes)]['false_alarms']:.1f}% false alarms, drop {drop:.2f}")
    checks.append(Check("trials that `judge` decides differently", disagreements, "<=", 0))
    note = NOTE.format(
        trials=trials, alpha=ALPHA, power=POWER, collapse=COLLAPSE, judged=2 * JUDGED
    )
    return Result(NAME, "The gate's tests", note, COLUMNS, list(rows), checks)
