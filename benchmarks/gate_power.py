"""The error rates of the gate's tests, held against the figures that the documentation gives."""

from collections.abc import Callable
from itertools import combinations
from math import comb
from typing import Any

from benchmarks import gate_drift
from benchmarks import gate_figures as figures
from benchmarks.gate_shapes import SHAPES, Shape, batch_sides, collapsed, paired_sides
from benchmarks.results import Check, Column, Result
from benchmarks.sizes import Sizes
from benchmarks.stores import Stores

NAME = "power"
ALPHA = 0.05
POWER = 0.8
SEARCHED = 10_000
"""Trials in which the detected drop is searched for."""
JUDGED = 40
"""Trials of each design that `judge` decides too."""
DRIFTED = 10_000
"""Sequences of releases in each row on drift, at most."""
SEED = 20_260_101
COLUMNS = (
    Column("table", "table"),
    Column("row", "row"),
    Column("simulated", "simulated"),
    Column("documented", "documented"),
)
NOTE = (
    "Per row {trials} candidates at alpha = {alpha}; the columns are those of the page "
    "docs/explanation/statistics.md, whose figures come from another seed. The first figure of "
    "'power' is the drop in spreads that is detected with a probability of {power:.0%}, all others "
    "are percentages. `judge` decided {judged} trials of each design as well."
)


def _percent(found: Any) -> float:
    return float(found.mean()) * 100


# -- one metric ------------------------------------------------------------------------------------


def _p_values(test: str, candidate: Any, baseline: Any) -> Any:
    """The p-values of many trials by one of the gate's own tests."""
    from orbiter_mlflow.gate.statistics import significance

    match test:
        case "prediction":
            return significance.prediction(candidate, baseline).p_value
        case "welch":
            return significance.welch(candidate, baseline).p_value
        case "paired":
            return significance.paired(candidate, baseline).p_value
        case "paired and prediction":
            sides = candidate, baseline
            both = significance.paired(*sides), significance.prediction(*sides)
            return significance.Either(*both).p_value
        case _:
            return _permuted(candidate, baseline)


def _permuted(candidate: Any, baseline: Any) -> Any:
    """The permutation test for all trials at once; some are compared with the gate's own."""
    import numpy as np

    from orbiter_mlflow.gate.statistics.significance import permutation

    m, n = candidate.shape[-1], baseline.shape[-1]
    values = np.concatenate([candidate, baseline], axis=-1)
    counts = np.zeros(len(values))
    for chosen in combinations(range(m + n), m):
        weights = np.full(m + n, -1 / n)
        weights[list(chosen)] = 1 / m
        counts += values @ weights >= candidate.mean(-1) - baseline.mean(-1) - 1e-9
    found = counts / comb(m + n, m)
    for trial in range(JUDGED):
        own = permutation(candidate[trial].tolist(), baseline[trial].tolist()).p_value
        if abs(own - found[trial]) > 1e-9:
            raise AssertionError(f"the gate's p-value is {own}, not {found[trial]}")
    return found


def _failed(test: str, candidate: Any, baseline: Any) -> float:
    return _percent(_p_values(test, candidate, baseline) <= ALPHA)


def _alarms(row: tuple[Any, ...], trials: int, generator: Any) -> list[float]:
    n, m, test = row
    return [_failed(test, *shape.sides(m, n, trials, generator)) for shape in SHAPES]


def _power(row: tuple[Any, ...], trials: int, generator: Any) -> list[float]:
    n, m, test = row
    candidate, baseline = Shape().sides(m, n, trials, generator)
    return [
        detected_drop(test, candidate[:SEARCHED], baseline[:SEARCHED]),
        _failed(test, candidate + 2, baseline),
        _failed(test, candidate + 3, baseline),
        _failed(test, collapsed(candidate), baseline),
        _failed(test, candidate + 2, collapsed(baseline)),
    ]


def detected_drop(test: str, candidate: Any, baseline: Any) -> float:
    """The drop that the test detects with probability `POWER`."""
    low, high = 0.0, 20.0
    for _ in range(12):
        middle = (low + high) / 2
        if _failed(test, candidate + middle, baseline) < POWER * 100:
            low = middle
        else:
            high = middle
    return high


def _pairs(row: tuple[Any, ...], trials: int, generator: Any) -> list[float]:
    n, shared, test = row
    candidate, baseline = paired_sides(shared, n, trials, generator)
    return [
        _failed(test, candidate, baseline),
        _failed(test, candidate + 2 * (1 - shared) ** 0.5, baseline),
        _failed(test, collapsed(candidate), baseline),
    ]


def _batches(row: tuple[Any, ...], trials: int, generator: Any) -> list[float]:
    import numpy as np

    from orbiter_mlflow.gate.statistics.significance import batched, prediction

    count, size, m = row
    found = []
    for between in figures.BETWEEN:
        candidate, batches = batch_sides(count, size, m, between, trials, generator)
        pooled = prediction(candidate, np.concatenate(batches, axis=-1)).p_value
        found += [_percent(pooled <= ALPHA), _percent(batched(candidate, batches).p_value <= ALPHA)]
        if not between:
            power = _percent(batched(candidate + 2, batches).p_value <= ALPHA)
    return [*found, power]


def _tolerances(row: tuple[Any, ...], trials: int, generator: Any) -> list[float]:
    """Failures where the tolerance is one spread, and the true loss a part of it."""
    from orbiter_mlflow.gate.statistics.significance import prediction, welch

    n, m, test = row
    candidate, baseline = Shape().sides(m, n, trials, generator)
    found = []
    for loss in figures.LOSSES:
        sides = candidate + loss, baseline
        looks = prediction(*sides), welch(*sides)
        if test == "auto":
            past = looks[0].loss > 1
            found.append(_percent(past & (looks[0].p_value <= ALPHA)))
        else:
            shown = [look.p_no_worse(1.0) <= ALPHA for look in looks]
            found.append(100 - _percent(shown[0] & shown[1]))
    return found


# -- several metrics -------------------------------------------------------------------------------


def _families(row: tuple[Any, ...], trials: int, generator: Any) -> list[float]:
    """Of good builds: FAIL, at least a warning; of a drop of 3 spreads in one metric: the same."""
    from orbiter_mlflow.gate.statistics import WITHIN_CHANCE

    n, m, count, method = row
    found = []
    for drop in (0.0, 3.0):
        candidate = generator.standard_normal((trials, count, m))
        baseline = generator.standard_normal((trials, count, n))
        candidate[:, 0] += drop
        if method == "tolerance only":
            p_values = (candidate.mean(axis=-1) <= baseline.mean(axis=-1)) * 1.0
            adjusted = p_values
        else:
            adjusted = _adjusted(_p_values("prediction", candidate, baseline), method)
        judged = adjusted[:, 0] if drop else adjusted.min(axis=-1)
        found += [_percent(judged <= ALPHA), _percent(judged <= WITHIN_CHANCE * ALPHA)]
    return found


def _adjusted(p_values: Any, method: Any) -> Any:
    """The corrections for all trials at once; some are compared with the gate's own."""
    import numpy as np
    from scipy import stats

    from orbiter_mlflow.gate.statistics import corrected

    if method == "fdr":
        found = stats.false_discovery_control(p_values, axis=-1)
    else:
        order = np.argsort(p_values, axis=-1)
        ranked = np.take_along_axis(p_values, order, axis=-1)
        steps = np.minimum(1, ranked * np.arange(ranked.shape[-1], 0, -1))
        found = np.empty_like(p_values)
        np.put_along_axis(found, order, np.maximum.accumulate(steps, axis=-1), axis=-1)
    for trial in range(JUDGED):
        own = [one.p_value for one in corrected(p_values[trial].tolist(), ALPHA, method)]
        if not np.allclose(own, found[trial]):
            raise AssertionError(f"the gate's adjusted p-values are {own}, not {found[trial]}")
    return found


# -- the gate as a whole ---------------------------------------------------------------------------


def _judged(candidate: Any, baseline: Any) -> bool:
    """Whether one trial fails by the gate as a whole."""
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
    return report.metrics[0].verdict is Verdict.FAIL


def _disagreements(n: int, m: int, generator: Any) -> int:
    """Trials that `judge` decides differently from the test alone."""
    candidate, baseline = Shape().sides(m, n, JUDGED, generator)
    candidate += 1.5
    failed = _p_values("prediction", candidate, baseline) <= ALPHA
    return sum(
        _judged(candidate[trial], baseline[trial]) is not bool(failed[trial])
        for trial in range(JUDGED)
    )


def _by_hand(n: int, m: int, drop: float) -> float:
    """The power of the prediction interval by the noncentral t distribution, without the gate."""
    import math

    from scipy import stats

    error = math.sqrt(1 / n + 1 / m)
    return 100 * float(stats.nct.sf(stats.t.isf(ALPHA, n - 1), n - 1, drop / error))


def _drift(row: tuple[Any, ...], trials: int, generator: Any) -> list[float]:
    n, m, between, kind = row
    return gate_drift.simulate(n, m, between, kind, min(trials, DRIFTED), ALPHA, generator)


_SIMULATIONS: dict[str, Callable[[tuple[Any, ...], int, Any], list[float]]] = {
    "false alarms": _alarms,
    "power": _power,
    "pairs": _pairs,
    "families": _families,
    "tolerance": _tolerances,
    "batches": _batches,
    "drift": _drift,
}


def run(stores: Stores, sizes: Sizes, say: Callable[[str], None]) -> Result:
    import numpy as np

    rows: list[dict[str, Any]] = []
    checks: list[Check] = []
    disagreements = 0
    for which, table in enumerate(figures.TABLES):
        simulate = _SIMULATIONS[table.name]
        for at, (row, documented) in enumerate(table.rows.items()):
            generator = np.random.default_rng([SEED, which, at])
            found = simulate(row, sizes.trials, generator)
            rows.append(
                {
                    "table": table.name,
                    "row": ", ".join(map(str, row)),
                    "simulated": "  ".join(table.formatted(found)),
                    "documented": "  ".join(table.formatted(documented)),
                }
            )
            checks += table.checks(row, found)
            if table.name == "power" and row[2] == "prediction":
                gap = abs(found[2] - _by_hand(row[0], row[1], 3.0))
                name = f"difference from the noncentral t, {row[0]} v {row[1]}"
                checks.append(Check(name, gap, "<=", 2, "points"))
                disagreements += _disagreements(row[0], row[1], generator)
        say(f"{table.name}: {len(table.rows)} rows")
    checks.append(Check("trials that `judge` decides differently", disagreements, "<=", 0))
    note = NOTE.format(trials=sizes.trials, alpha=ALPHA, power=POWER, judged=JUDGED)
    return Result(NAME, "The gate's tests", note, COLUMNS, list(rows), checks)
