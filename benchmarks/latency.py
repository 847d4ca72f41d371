"""The time that `report` blocks a training while the store is up, down, or hanging."""

import time
from collections.abc import Callable
from typing import Any

from benchmarks.processes import fresh, medians
from benchmarks.results import Check, Column, Result
from benchmarks.sizes import METRICS, Sizes
from benchmarks.stores import Stores, free_port, hanging_server, metrics_of
from benchmarks.tracking import blocked_times

NAME = "report"
COLUMNS = (
    Column("store", "store"),
    Column("delivery", "delivery"),
    Column("durability", "durability"),
    Column("p50_us", "p50 us", ",.1f"),
    Column("p99_us", "p99 us", ",.1f"),
    Column("max_us", "max us", ",.0f"),
)
NOTE = (
    "{reports:,} calls of report() with {metrics} metrics each, back to back, in a fresh process; "
    "medians of {rounds} rounds. If the store is up, the run exists and has stored a metric; "
    "otherwise the first attempt to reach it is in progress. The hanging server accepts "
    "connections and never answers. The targets are for the default delivery, by a process, and "
    "the default durability; with `record` each call waits for the disk."
)
WAYS = (("process", "second"), ("thread", "second"), ("process", "record"))
"""Values of the settings `delivery` and `durability`."""


def measure(uri: str, delivery: str, durability: str, reports: int, up: bool) -> dict[str, float]:
    """Time the calls; runs in a process of its own."""
    from benchmarks.trainer import Benchmarked, benchmarked, train, warm_up

    blocked: list[int] = []

    async def body(trainer: Benchmarked) -> None:
        if up:
            await warm_up(trainer)
        for step in range(reports):
            metrics = metrics_of(step, METRICS)
            before = time.perf_counter_ns()
            trainer.report(metrics, step=step)
            blocked.append(time.perf_counter_ns() - before)

    settings = {"delivery": delivery, "durability": durability, "flush_timeout": 30.0 if up else 0}
    train(benchmarked(uri, None, **settings), body)
    return blocked_times(blocked)


def run(stores: Stores, sizes: Sizes, say: Callable[[str], None]) -> Result:
    raw: list[dict[str, Any]] = []
    # Ends an attempt to reach the hanging store soon, and with it the delivery process.
    patience = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "3"}
    with stores.server() as server, hanging_server() as hanging:
        refused = f"http://127.0.0.1:{free_port()}"
        for turn in range(sizes.report_rounds):
            for store, uri in (
                ("sqlite", stores.sqlite()),
                ("server", server),
                ("server down", refused),
                ("server hangs", hanging),
            ):
                for way in WAYS if store == "sqlite" else WAYS[:-1]:  # the disk is the same
                    up = uri not in (refused, hanging)
                    args = (uri, *way, sizes.reports, up)
                    row = fresh(measure, stores.folder, *args, variables=patience).value
                    named = {"store": store, "delivery": way[0], "durability": way[1]}
                    raw.append({**named, "round": turn + 1, **row})
                    say(
                        f"{', '.join(named.values())}: p50 {row['p50_us']:.1f}, "
                        f"p99 {row['p99_us']:.1f} us"
                    )
    kinds = {_kind(row): None for row in raw}
    rows = [medians(row for row in raw if _kind(row) == kind) for kind in kinds]
    checks = [
        Check(f"{row['store']}: report() {key.removesuffix('_us')}", row[key], "<=", limit, "us")
        for row in rows
        if _kind(row)[1:] == WAYS[0]
        for key, limit in (("p50_us", 20), ("p99_us", 150))
    ]
    note = NOTE.format(reports=sizes.reports, metrics=METRICS, rounds=sizes.report_rounds)
    return Result(NAME, "Time that report() blocks", note, COLUMNS, list(rows), checks, list(raw))


def _kind(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["store"], row["delivery"], row["durability"]
