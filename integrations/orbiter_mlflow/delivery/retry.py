"""When a request is tried again: every number of delivery's patience, in one place."""

import random

FIRST = 0.5
"""Seconds before the second attempt at a store in trouble."""
LONGEST = 60.0
"""Seconds between attempts, at most."""
HELD = 60.0
"""Seconds between attempts while a person has to act: a password may be put right any time."""
WAITED_FOR = 1.0
"""Seconds between attempts, at most, while somebody waits for the delivery."""

FAILED_BEFORE_SPLIT = 5
"""Answers of HTTP 500 to one batch, in a row, after which its content may be the cause."""

DEFINITE = (1.0, 4.0)
"""Seconds between tries of an entry that MLflow's validation refuses; then it is quarantined."""
DOUBTFUL = (2.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 60.0)
"""The same for one that a database, a gateway or an HTTP 500 refuses: ten tries in 4.6 minutes. Of
servers that answer six of ten requests with a random 500, that blames one innocent entry in 160 of
those that have come under suspicion, each of them after a dozen failures in a row."""
MOST_ASIDE = 200
"""Refused entries under trial at a time. More mean that the store is in trouble: delivery waits."""


def delay(failures: int, rng: random.Random) -> float:
    """Seconds to wait after so many failures in a row: doubling, capped, and jittered by half, so
    that a thousand trainers do not come back to a restarted server in the same instant."""
    return min(LONGEST, FIRST * 2.0 ** min(failures - 1, 10)) * rng.uniform(0.5, 1.0)
