"""Every point of every run in a database, compared with what was reported."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from sqlalchemy import create_engine, text

from benchmarks.contenders import PREFIX
from benchmarks.sizes import METRICS
from benchmarks.stores import value_of


@dataclass(frozen=True)
class Landed:
    """What a database holds of the reported points.

    Attributes:
        once: points that are there once, with the value that was reported.
        missing: points that are not there, or with another value.
        twice: rows beyond the first of a point, and rows that nobody reported.
        unfinished: runs that are not FINISHED.
    """

    once: int
    missing: int
    twice: int
    unfinished: int


def landed(database: str, runs: Mapping[str, int]) -> Landed:
    """Compare the points of runs, each with all metrics at its steps from 0 on.

    Args:
        database: its URI for SQLAlchemy.
        runs: run id -> number of steps.

    It reads the database, not the server before it, because millions of points go through that in
    minutes.
    """
    once = missing = twice = 0
    engine = create_engine(database)
    with engine.connect() as connection:
        for run_id, steps in runs.items():
            expected = _reported(steps)
            rows = connection.execute(
                text("SELECT key, step, value FROM metrics WHERE run_uuid = :run"), {"run": run_id}
            )
            counts: Counter[tuple[str, int]] = Counter()
            right = set()
            for key, step, value in rows:
                if key.startswith(f"{PREFIX}m"):
                    counts[key, step] += 1
                    if expected.get((key, step)) == value:
                        right.add((key, step))
            found = sum(counts[point] == 1 for point in right)
            once += found
            missing += len(expected) - len(right)
            twice += sum(counts.values()) - len(right)
        ended = {
            str(run_id)
            for (run_id,) in connection.execute(
                text("SELECT run_uuid FROM runs WHERE status = 'FINISHED'")
            )
        }
    engine.dispose()
    return Landed(once, missing, twice, len(runs.keys() - ended))


def database_bytes(database: str) -> int:
    """The size of a database, of sqlite or PostgreSQL."""
    engine = create_engine(database)
    if engine.dialect.name == "sqlite":
        return Path(str(engine.url.database)).stat().st_size
    with engine.connect() as connection:
        size = connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one()
    engine.dispose()
    return int(size)


@lru_cache(maxsize=4)
def _reported(steps: int) -> dict[tuple[str, int], float]:
    return {
        (f"{PREFIX}m{metric}", step): value_of(step, metric)
        for metric in range(METRICS)
        for step in range(steps)
    }
