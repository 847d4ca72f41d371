"""Sequences of releases that are blessed one by one, and how often a trend in them fails."""

from typing import Any

from benchmarks.gate_shapes import Shape

LAST = 10
"""Blessings in a trend; as many are there before the first check."""
RELEASES = 20
"""Checks of a sequence, one for each release."""
STEP = 0.3
"""Loss from one release to the next, in standard deviations between the runs of one release."""
JUDGED = 40
"""Trends that the gate's own function fits as well."""


def simulate(
    n: int, m: int, between: float, kind: str, trials: int, alpha: float, generator: Any
) -> list[float]:
    """Percentages that fail: in one check and within all, without a decline and with one.

    The loss grows by `STEP` a release: over the whole trend for one check, and from the first check
    on for all. Without a decline the tolerance is 0, with one it is 1.

    Args:
        n: runs of a blessing; if the candidate has as many, they are the ones that are blessed.
        m: runs of a candidate.
        between: standard deviation of the releases, in that of the runs of one release.
        kind: how runs vary, as in `Shape`.
    """
    import numpy as np

    count = LAST + RELEASES
    effect = between * generator.standard_normal((trials, count))

    def means(runs: int) -> Any:
        values = Shape(kind).values((trials * count, runs), generator)
        return effect + values.mean(axis=-1).reshape(trials, count)

    blessings = means(n)
    candidates = blessings if n == m else means(m)
    steady = _failed(blessings, candidates, (n, m), 0.0, alpha)
    steps = STEP * np.arange(count)
    always = _failed(blessings + steps, candidates + steps, (n, m), 1.0, alpha)
    late = STEP * np.maximum(0, np.arange(count) - LAST + 1)
    begun = _failed(blessings + late, candidates + late, (n, m), 1.0, alpha)
    found = (steady[:, 0], steady.any(axis=-1), always[:, 0], begun.any(axis=-1))
    return [float(one.mean()) * 100 for one in found]


def _failed(
    blessings: Any, candidates: Any, runs: tuple[int, int], allowed: float, alpha: float
) -> Any:
    """The checks that fail, one in each column, by the same trend as the gate's."""
    import numpy as np
    from scipy import special

    from orbiter_mlflow.gate.drift import LEVEL, trend

    weights = np.array([float(runs[0])] * LAST + [float(runs[1])])
    x = np.arange(LAST + 1) - np.arange(LAST + 1) @ weights / weights.sum()
    square = weights @ x**2
    found = []
    for at in range(LAST, LAST + RELEASES):
        losses = np.column_stack([blessings[:, at - LAST : at], candidates[:, at]])
        off = losses - (losses @ weights / weights.sum())[:, None]
        slope = (off * weights) @ x / square
        error = np.sqrt((off - slope[:, None] * x) ** 2 @ weights / (LAST - 1) / square)
        p_value = special.stdtr(LAST - 1, -slope / error)
        found.append((slope * LAST > allowed) & (p_value <= LEVEL * alpha))
    for row in range(JUDGED):  # the last check
        fitted = trend(losses[row].tolist(), weights.tolist())
        if not np.allclose([fitted.slope, fitted.p_value or 0.0], [slope[row], p_value[row]]):
            raise RuntimeError(f"the gate fits {fitted}, not {slope[row]} with p = {p_value[row]}")
    return np.column_stack(found)
