"""How long to wait before the next attempt."""

import random

FIRST = 0.5
"""Seconds before the second attempt."""
LONGEST = 60.0
"""Seconds, at most."""


def delay(failures: int, rng: random.Random) -> float:
    """Seconds to wait after so many failures in a row: doubling, capped, and jittered by half, so
    that a thousand trainers do not come back to a restarted server in the same instant."""
    return min(LONGEST, FIRST * 2.0 ** min(failures - 1, 10)) * rng.uniform(0.5, 1.0)
