"""Comparing example by example: error rates of the tests, and the time for large tables."""

import json
import time
from collections.abc import Callable
from typing import Any

from benchmarks.gate_power import ALPHA, POWER, detected_drop
from benchmarks.gate_shapes import Shape
from benchmarks.results import Check, Column, Result
from benchmarks.sizes import Sizes
from benchmarks.stores import Stores

NAME = "examples"
CHANGED = (0.05, 0.1, 0.2)
"""Fractions of examples whose score of 0 or 1 changes although nothing is worse."""
EXAMPLES = (300, 1000, 10_000)
SEED_SPREAD = 0.01
"""Standard deviation between the means of seeds, in the row that compares means."""
MAX_FLIPPED = 1000
"""Trials of the sign-flip test in each row."""
ROWS = 100_000
LIMIT = 5.0
"""Seconds for a table of `ROWS` on each side."""
COLUMNS = (
    Column("test", "test", ""),
    Column("n", "examples", "d"),
    Column("values", "scores", ""),
    Column("false_alarms", "false alarms %", ".1f"),
    Column("drop", "drop detected", ".4f"),
    Column("seconds", "seconds", ".2f"),
)
NOTE = (
    "One-sided at alpha = {alpha}, one comparison, max_drop = 0. {trials} trials a row of "
    "McNemar's test, at most {flipped} of the sign-flip test. 'drop detected': the loss of the "
    "mean score that is detected with a probability of {power:.0%}; of McNemar's test with so many "
    "examples whose score changes by chance, of the means of three seeds a side with a spread of "
    "{spread} between seeds. 'seconds': to parse tables of {rows} rows a side, and judge them with "
    "20 slices."
)


def _mcnemar_failed(n: int, changed: float, drop: float, trials: int, generator: Any) -> Any:
    """Trials that fail if the mean falls by `drop`; `changed` examples change besides."""
    import numpy as np
    from scipy import stats

    shares = [(changed + drop) / 2, (changed - drop) / 2]
    if drop > changed:  # nothing is fixed
        shares = [drop, 0.0]
    counts = generator.multinomial(n, [*shares, 1 - sum(shares)], trials)
    broken, fixed = counts[:, 0], counts[:, 1]
    return (broken > fixed) & (
        stats.binom.sf(broken - 1, np.maximum(broken + fixed, 1), 0.5) <= ALPHA
    )


def _mcnemar_drop(n: int, changed: float, trials: int, generator: Any) -> float:
    low, high = 0.0, 0.5
    for _ in range(14):
        middle = (low + high) / 2
        if _mcnemar_failed(n, changed, middle, trials, generator).mean() < POWER:
            low = middle
        else:
            high = middle
    return high


def _correct(chance: Any, runs: int, generator: Any) -> Any:
    """Mean scores over some runs that solve each example with its own chance."""
    return generator.binomial(runs, chance) / runs


def _losses(n: int, generator: Any) -> dict[str, Any]:
    """Losses of one trial in which nothing is worse, by the kind of scores."""
    chance = generator.beta(0.8, 0.2, n)
    return {
        "normal": generator.normal(0, 1, n),
        "heavy-tailed": generator.standard_t(3, n),
        "lognormal": generator.lognormal(0, 2, n) - generator.lognormal(0, 2, n),
        "0/1, 3 runs a side": _correct(chance, 3, generator) - _correct(chance, 3, generator),
        "0/1, 3 candidates, 1 baseline": (
            _correct(chance, 1, generator) - _correct(chance, 3, generator)
        ),
    }


def _table(scores: Any) -> bytes:
    rows = [[f"example-{at}", score, f"slice {at % 20}"] for at, score in enumerate(scores)]
    return json.dumps({"columns": ["id", "score", "slice"], "data": rows}).encode()


def _seconds(scores: tuple[Any, Any]) -> float:
    from orbiter_mlflow.gate.examples.judge import ExampleTables, judge_examples
    from orbiter_mlflow.gate.examples.table import parse_table
    from orbiter_mlflow.gate.policy import ExamplesPolicy
    from orbiter_mlflow.gate.verdict import BaselineStatus

    contents = [_table(side.tolist()) for side in scores]
    policy = ExamplesPolicy(direction="higher", score="score", slices=("slice",))
    start = time.perf_counter()
    candidate, baseline = (
        parse_table(content, id_column="id", score="score", slices=policy.slices)
        for content in contents
    )
    judge_examples(
        {"x": policy},
        {"x": ExampleTables({"c": candidate}, {"b": baseline})},
        alpha=ALPHA,
        correction="holm",
        quiet=True,
        status=BaselineStatus.USABLE,
    )
    return time.perf_counter() - start


def run(stores: Stores, sizes: Sizes, say: Callable[[str], None]) -> Result:
    import numpy as np

    from orbiter_mlflow.gate.examples.paired_test import sign_flip

    generator = np.random.default_rng(20_260_601)
    rows: list[dict[str, Any]] = []
    checks = []
    for n in EXAMPLES:
        for changed in CHANGED:
            alarms = _mcnemar_failed(n, changed, 0.0, sizes.trials, generator).mean() * 100
            values = f"0/1, {changed:.0%} change"
            rows.append(
                {
                    "test": "McNemar",
                    "n": n,
                    "values": values,
                    "false_alarms": alarms,
                    "drop": _mcnemar_drop(n, changed, min(sizes.trials, 20_000), generator),
                }
            )
            limit = ALPHA * 100 + 0.3  # the test is exact: only the simulation's error is left
            checks.append(Check(f"false alarms, McNemar, {n}, {values}", alarms, "<=", limit, "%"))
            say(f"McNemar, {n}, {values}: {alarms:.1f}%, drop {rows[-1]['drop']:.4f}")
    seeds = Shape().sides(3, 3, min(sizes.trials, 20_000), generator)
    drop = detected_drop("prediction", *seeds) * SEED_SPREAD
    rows.append({"test": "means of 3 seeds a side", "drop": drop})
    single = next(row["drop"] for row in rows if row["n"] == 1000)
    checks.append(
        Check("drop that one run of 1,000 examples detects, 5% change", single, "<=", drop)
    )
    trials = min(sizes.trials, MAX_FLIPPED)
    for n in (15, 200, 1000):
        failed: dict[str, int] = {}
        for _ in range(trials):
            for values, losses in _losses(n, generator).items():
                failed[values] = failed.get(values, 0) + (sign_flip(losses).p_value <= ALPHA)
        for values, count in failed.items():
            alarms = count / trials * 100
            rows.append({"test": "sign-flip", "n": n, "values": values, "false_alarms": alarms})
            # Within 1 point, and the simulation's own error.
            limit = ALPHA * 100 + 1 + 300 * (ALPHA * (1 - ALPHA) / trials) ** 0.5
            checks.append(
                Check(f"false alarms, sign-flip, {n}, {values}", alarms, "<=", limit, "%")
            )
            say(f"sign-flip, {n}, {values}: {alarms:.1f}%")
    for values, scores in {
        "0/1": tuple((generator.random((2, ROWS)) < 0.8).astype(float)),
        "normal": tuple(generator.normal(0, 1, (2, ROWS))),
        "heavy-tailed": tuple(generator.standard_t(3, (2, ROWS))),
    }.items():
        seconds = _seconds((scores[0], scores[1]))
        rows.append({"test": "a large table", "n": ROWS, "values": values, "seconds": seconds})
        checks.append(Check(f"a table of {ROWS} rows a side, {values}", seconds, "<=", LIMIT, "s"))
        say(f"{ROWS} rows a side, {values}: {seconds:.2f} s")
    note = NOTE.format(
        alpha=ALPHA,
        trials=sizes.trials,
        flipped=MAX_FLIPPED,
        power=POWER,
        spread=SEED_SPREAD,
        rows=ROWS,
    )
    return Result(NAME, "Example by example", note, COLUMNS, list(rows), checks)
