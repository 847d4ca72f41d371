"""A CPU-bound training, with and without tracking."""

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

from benchmarks import contenders
from benchmarks.contenders import LIGHTNING, NOTHING, OURS, OURS_THREAD, WANDB, Log
from benchmarks.processes import cpu_seconds, delivery_of, fresh
from benchmarks.results import Check, Column, Result, Row
from benchmarks.sizes import METRICS, Sizes
from benchmarks.stores import Stores, metrics_of

NAME = "slowdown"
PER_SECOND = 100
OTHERS_PAIRS = 3
"""Pairs for the contenders without a target."""
TRACKED = (OURS, OURS_THREAD, "mlflow.log_metrics async", "mlflow.log_metrics", LIGHTNING, WANDB)
COLUMNS = (
    Column("contender", "tracking by"),
    Column("without", "without s", ".3f"),
    Column("with", "with s", ".3f"),
    Column("percent", "slowdown %", "+.2f"),
    Column("fastest_percent", "fastest %", "+.2f"),
    Column("least", "least %", "+.2f"),
    Column("most", "most %", "+.2f"),
    Column("cpu_percent", "CPU time %", "+.2f"),
    Column("delivery_percent", "delivery's CPU %", ".1f"),
)
NOTE = (
    "A fixed amount of pure Python arithmetic, about {seconds:g} s on this machine, that logs "
    "{metrics} metrics {rate} times a second (W&B to its file, the others to sqlite), against the "
    "same loop that builds the metrics and drops them. Medians of {pairs} pairs, {others} for the "
    "rows below the first. A pair is two fresh processes one after the other, in alternating "
    "order. Nothing is pinned to a core. Only the loop is timed; the run is created before it. "
    "'Fastest' compares the fastest loop with tracking and the fastest without, which are least "
    "disturbed by other work on the machine. 'CPU time' is that of the training process, "
    "'delivery's CPU' that of the delivery process while the loop runs, in percent of one core."
)


def measure(name: str, uri: str, calls: int, turns: int) -> dict[str, float]:
    """Time the loop; runs in a process of its own."""
    took: dict[str, float] = {}

    def work(log: Log) -> None:
        delivery = delivery_of(os.getpid())
        elsewhere = cpu_seconds(delivery) or 0.0
        cpu, start = time.process_time(), time.perf_counter()
        for step in range(calls):
            _compute(turns)
            log(metrics_of(step, METRICS), step)
        took["seconds"] = time.perf_counter() - start
        took["cpu"] = time.process_time() - cpu
        took["delivery_cpu"] = (cpu_seconds(delivery) or 0.0) - elsewhere

    contenders.run(name, uri, work)
    return took


def _compute(turns: int) -> float:
    total = 0.0
    for number in range(turns):
        total += number * number % 7
    return total


def run(stores: Stores, sizes: Sizes, say: Callable[[str], None]) -> Result:
    calls = max(1, round(sizes.loop_seconds * PER_SECOND))
    probe = fresh(measure, stores.folder, NOTHING, "", calls, 10_000).value
    turns = round(10_000 * calls / PER_SECOND / probe["seconds"])
    tracked = [name for name in TRACKED if name in contenders.installed()]
    raw: list[dict[str, Any]] = []
    for pair in range(sizes.pairs):
        for name in tracked if pair < OTHERS_PAIRS else tracked[:1]:
            took = {}
            for tried in (NOTHING, name) if pair % 2 else (name, NOTHING):
                uri = stores.sqlite()
                took[tried] = fresh(measure, stores.folder, tried, uri, calls, turns).value
            row = {
                "contender": name,
                "without": took[NOTHING]["seconds"],
                "with": took[name]["seconds"],
                "percent": _percent(took, name, "seconds"),
                "cpu_percent": _percent(took, name, "cpu"),
                "delivery_percent": took[name]["delivery_cpu"] / took[name]["seconds"] * 100,
            }
            raw.append(row)
            say(f"pair {pair + 1}: {name}: {row['percent']:+.2f} %")
    rows = [_row(name, [row for row in raw if row["contender"] == name]) for name in tracked]
    note = NOTE.format(
        seconds=sizes.loop_seconds,
        metrics=METRICS,
        rate=PER_SECOND,
        pairs=sizes.pairs,
        others=min(sizes.pairs, OTHERS_PAIRS),
    )
    checks = [
        Check("slowdown of a CPU-bound training", rows[0]["percent"], "<=", 2, "%"),
        Check("its CPU time", rows[0]["cpu_percent"], "<=", 2, "%"),
    ]
    return Result(NAME, "Slowdown of a CPU-bound training", note, COLUMNS, rows, checks, list(raw))


def _percent(took: dict[str, dict[str, float]], name: str, key: str) -> float:
    return (took[name][key] / took[NOTHING][key] - 1) * 100


def _row(name: str, group: list[dict[str, Any]]) -> Row:
    keys = ("without", "with", "percent", "cpu_percent", "delivery_percent")
    slowdowns = [row["percent"] for row in group]
    middle = {key: statistics.median(row[key] for row in group) for key in keys}
    fastest = {key: min(row[key] for row in group) for key in ("without", "with")}
    return {
        "contender": name,
        **middle,
        "fastest_percent": (fastest["with"] / fastest["without"] - 1) * 100,
        "least": min(slowdowns),
        "most": max(slowdowns),
    }
