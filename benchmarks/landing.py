"""How fast points reach each store, compared with bare batches: a trainer and its delivery."""

import statistics
from collections.abc import Callable
from typing import Any

from benchmarks import tracking
from benchmarks.contenders import CEILING, OURS
from benchmarks.processes import fresh, medians
from benchmarks.results import Check, Column, Result
from benchmarks.sizes import METRICS, Sizes
from benchmarks.store_points import landed
from benchmarks.stores import Stores, missing

NAME = "landing"
TARGET = 0.9
COLUMNS = (
    Column("store", "store"),
    Column("rate", "points per s", ",.0f"),
    Column("bare_rate", "bare log_batch of 1,000", ",.0f"),
    Column("ratio", "ratio", ".2f"),
    Column("missing", "missing", "d"),
    Column("twice", "twice", "d"),
)
NOTE = (
    "{points:,} points of one run, {metrics} a call, back to back, from the first call until the "
    "run is FINISHED with all points; a bare client that sends batches of 1,000 metrics does the "
    "same. Medians of {rounds} rounds, in which both take turns to be first; the ratio is the "
    "median of the rounds' ratios. PostgreSQL syncs each commit to the disk.{missing}"
)


def run(stores: Stores, sizes: Sizes, say: Callable[[str], None]) -> Result:
    raw: list[dict[str, Any]] = []
    reasons = {kind: missing(kind) for kind in sizes.landing_stores}
    for kind in (kind for kind, reason in reasons.items() if reason is None):
        with stores.running(kind) as store:
            for turn in range(sizes.client_rounds):
                row: dict[str, Any] = {"store": kind, "round": turn + 1}
                for name in (OURS, CEILING) if turn % 2 else (CEILING, OURS):
                    args = (name, store.uri, sizes.landing_steps)
                    ended = fresh(tracking.measure, stores.folder, *args).value
                    found = landed(store.database, {ended["run_id"]: sizes.landing_steps})
                    rate = found.once / ended["seconds"]
                    if name == OURS:
                        row |= {"rate": rate, "missing": found.missing, "twice": found.twice}
                    else:
                        row["bare_rate"] = rate
                row["ratio"] = row["rate"] / row["bare_rate"]
                raw.append(row)
                say(f"{kind}, round {turn + 1}: {row['rate']:,.0f} of {row['bare_rate']:,.0f}")
    groups = {row["store"]: [one for one in raw if one["store"] == row["store"]] for row in raw}
    rows = [medians(group) for group in groups.values()]
    checks = []
    for kind, group in groups.items():
        ratio = statistics.median(row["ratio"] for row in group)
        checks.append(Check(f"{kind}: relative to bare batches", ratio, ">=", TARGET))
        wrong = sum(row["missing"] + row["twice"] for row in group)
        checks.append(Check(f"{kind}: points missing or twice", wrong, "<=", 0))
    note = NOTE.format(
        points=sizes.landing_steps * METRICS,
        metrics=METRICS,
        rounds=sizes.client_rounds,
        missing="".join(f" No {kind}: {reason}." for kind, reason in reasons.items() if reason),
    )
    return Result(NAME, "Points into each store", note, COLUMNS, list(rows), checks, list(raw))
