"""The gate's statistics, with a module for each concept. Pure; numpy and scipy do the figures.

- `losses`: values of a metric as losses, whatever the direction.
- `significance`: the significance tests, with p-values and confidence bounds.
- `choice`: which test the runs permit, and comparing two sides by it.
- `corrections`: p-values of several metrics.
- `advice`: how many seeds would settle a result.
"""

from orbiter_mlflow.gate.statistics.advice import MAX_SEEDS, MIN_RUNS, POWER, power, seeds_needed
from orbiter_mlflow.gate.statistics.choice import (
    Comparison,
    RequestedTest,
    Test,
    batches_conflict,
    compare,
    orders_needed,
)
from orbiter_mlflow.gate.statistics.corrections import (
    WITHIN_CHANCE,
    Corrected,
    Correction,
    corrected,
    well_within_chance,
)
from orbiter_mlflow.gate.statistics.losses import (
    MAX_VALUE,
    Direction,
    Losses,
    deviation,
    mean_of,
    spread_of,
    to_losses,
)
from orbiter_mlflow.gate.statistics.significance import orders

__all__ = [
    "MAX_SEEDS",
    "MAX_VALUE",
    "MIN_RUNS",
    "POWER",
    "WITHIN_CHANCE",
    "Comparison",
    "Corrected",
    "Correction",
    "Direction",
    "Losses",
    "RequestedTest",
    "Test",
    "batches_conflict",
    "compare",
    "corrected",
    "deviation",
    "mean_of",
    "orders",
    "orders_needed",
    "power",
    "seeds_needed",
    "spread_of",
    "to_losses",
    "well_within_chance",
]
