"""Every contender logs the same points: time blocked, time until all are stored, CPU, memory."""

import os
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks import contenders
from benchmarks.contenders import BUFFERED, CEILING, OURS, OURS_THREAD, WANDB, Log, found_points
from benchmarks.processes import cpu_seconds, delivery_of, fresh, medians, memory_mb, percentile
from benchmarks.results import Check, Column, Result, Row
from benchmarks.sizes import METRICS, Sizes
from benchmarks.stores import Stores, metrics_of

NAME = "tracking"
NOT_RIVALS = {OURS_THREAD, CEILING, BUFFERED, WANDB}
"""Left out of the target: ours, the bound, a mode behind a variable, and one without a server."""
COLUMNS = (
    Column("store", "store"),
    Column("contender", "contender"),
    Column("p50_us", "blocked p50 us", ",.1f"),
    Column("p99_us", "p99 us", ",.1f"),
    Column("max_us", "max us", ",.0f"),
    Column("seconds", "all stored s", ".2f"),
    Column("rate", "points per s", ",.0f"),
    Column("found", "points found", ",d"),
    Column("cpu", "CPU s", ".2f"),
    Column("delivery_cpu", "delivery CPU s", ".2f"),
    Column("peak_mb", "peak RSS MB", ",.0f"),
)
NOTE = (
    "{steps:,} steps x {metrics} metrics, back to back; medians of {rounds} rounds with the "
    "contenders in rotated order, each in a fresh process and, on sqlite, a fresh store. Before "
    "timing starts the run exists and has stored one metric: imports and the creation of the run "
    "are not included. 'All stored' is from the first call until all points are in the store and "
    "the run is FINISHED (ours: train() has returned and all is delivered; async ones: "
    "flushed; W&B: its offline file is complete, nothing is uploaded). CPU and memory are those "
    "of the training process; the CPU time counts from the first call, the memory is the peak, "
    "imports included. 'Points found' were read back, each once and with its value. 'Buffered' is "
    "async with MLFLOW_ASYNC_LOGGING_BUFFERING_SECONDS=1; like W&B it is shown without being part "
    "of the target. Ratios are medians of the rounds' ratios."
)


def measure(name: str, uri: str, steps: int) -> dict[str, Any]:
    """Let one contender log; runs in a process of its own."""
    blocked: list[int] = []
    start, cpu, delivery_cpu = 0, 0.0, None
    delivery: int | None = None

    def work(log: Log) -> None:
        nonlocal start, cpu, delivery, delivery_cpu
        delivery = delivery_of(os.getpid())
        delivery_cpu = cpu_seconds(delivery)
        cpu = time.process_time()
        start = time.perf_counter_ns()
        for step in range(steps):
            metrics = metrics_of(step, METRICS)
            before = time.perf_counter_ns()
            log(metrics, step)
            blocked.append(time.perf_counter_ns() - before)

    run_id = contenders.run(name, uri, work)
    seconds = (time.perf_counter_ns() - start) / 1e9
    used = cpu_seconds(delivery)
    return {
        "run_id": run_id,
        **blocked_times(blocked),
        "seconds": seconds,
        "cpu": time.process_time() - cpu,
        "delivery_cpu": None if used is None or delivery_cpu is None else used - delivery_cpu,
        "peak_mb": memory_mb("VmHWM"),
    }


def blocked_times(nanoseconds: list[int]) -> dict[str, float]:
    """The durations of the calls, in microseconds."""
    return {
        "p50_us": percentile(nanoseconds, 50) / 1e3,
        "p99_us": percentile(nanoseconds, 99) / 1e3,
        "max_us": max(nanoseconds) / 1e3,
    }


def run(stores: Stores, sizes: Sizes, say: Callable[[str], None]) -> Result:
    raw = []
    with stores.server() as server:
        for store in sizes.stores:
            for turn, name in _turns(sizes.rounds):
                uri = server if store == "server" else stores.sqlite()
                row = _one(stores, name, uri, sizes.steps)
                raw.append({"store": store, "contender": name, "round": turn, **row})
                say(f"{store}, round {turn}: {name}: {row['seconds']:.2f} s")
    note = NOTE.format(steps=sizes.steps, metrics=METRICS, rounds=sizes.rounds)
    rows = [_row(raw, store, name) for store in sizes.stores for name in contenders.installed()]
    checks = [check for store in sizes.stores for check in _checks(store, raw)]
    return Result(NAME, "Tracking a training", note, COLUMNS, rows, checks, list(raw))


def _turns(rounds: int) -> Iterator[tuple[int, str]]:
    names = contenders.installed()
    for turn in range(rounds):
        shift = turn * len(names) // rounds
        yield from ((turn + 1, name) for name in names[shift:] + names[:shift])


def _one(stores: Stores, name: str, uri: str, steps: int) -> dict[str, Any]:
    ended = fresh(measure, stores.folder, name, uri, steps, variables=contenders.variables(name))
    row = dict(ended.value)
    row["found"] = found_points(name, uri, row.pop("run_id"), range(steps), METRICS)
    row["rate"] = row["found"] / row["seconds"]
    return row


def _row(raw: list[dict[str, Any]], store: str, name: str) -> Row:
    group = [row for row in raw if (row["store"], row["contender"]) == (store, name)]
    return medians(group) | {"found": min(row["found"] for row in group)}


def _checks(store: str, raw: list[dict[str, Any]]) -> Iterator[Check]:
    """Compare round by round, because the load of the machine changes between rounds."""
    rates: dict[str, list[float]] = {}
    for row in sorted(raw, key=lambda row: row["round"]):
        if row["store"] == store:
            rates.setdefault(row["contender"], []).append(row["rate"])
    ours = rates.pop(OURS)

    def ratio(name: str) -> float:
        return statistics.median(a / b for a, b in zip(ours, rates[name], strict=True))

    best = min(rates.keys() - NOT_RIVALS, key=ratio)
    yield Check(f"{store}: points/s, relative to bare log_batch", ratio(CEILING), ">=", 0.9)
    yield Check(f"{store}: points/s, relative to the best other ({best})", ratio(best), ">=", 5)
