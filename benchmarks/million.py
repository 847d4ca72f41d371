"""One run of a million points: whether the memory of the trainer and of delivery stays flat."""

import asyncio
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.meter import DELIVERY, processes_of
from benchmarks.processes import fresh, memory_mb
from benchmarks.results import Check, Column, Result
from benchmarks.sizes import METRICS, Sizes
from benchmarks.store_points import landed
from benchmarks.stores import Stores, metrics_of

NAME = "million"
ROUNDS = 25
WARM_UP = 5
"""Rounds before the slope is taken: the first ones fill caches and pools."""
FLAT_MB = 5
COLUMNS = (
    Column("who", "process"),
    Column("first_mb", f"RSS after {WARM_UP} rounds MB", ",.1f"),
    Column("last_mb", "at the end MB", ",.1f"),
    Column("slope_mb", "slope MB per million points", ",.2f"),
    Column("rate", "points per s", ",.0f"),
    Column("missing", "missing", "d"),
    Column("twice", "twice", "d"),
)
NOTE = (
    "{points:,} points of one run, {metrics} a call, on sqlite, in {rounds} rounds that each wait "
    "until all is in the store; after each round the resident memory of both processes is read. "
    "The slope is a linear fit over the rounds after the first {warm_up}."
)


def measure(uri: str, steps: int) -> dict[str, Any]:
    """Report in rounds, and read the memory after each; runs in a process of its own."""
    from benchmarks.trainer import Benchmarked, benchmarked, train

    folder = Path(os.environ["XDG_STATE_HOME"]).parent
    memory: dict[str, list[float]] = {"trainer": [], "delivery": []}

    async def body(trainer: Benchmarked) -> None:
        for number in range(ROUNDS):
            for step in range(steps * number // ROUNDS, steps * (number + 1) // ROUNDS):
                trainer.report(metrics_of(step, METRICS), step=step)
            while not trainer.delivered:  # noqa: ASYNC110  delivery is in another process
                await asyncio.sleep(0.05)
            memory["trainer"].append(memory_mb())
            pids = processes_of(folder, DELIVERY)
            memory["delivery"].append(sum(memory_mb("VmRSS", pid) for pid in pids))

    trainer = benchmarked(uri)
    start = time.perf_counter()
    train(trainer, body)
    return {**memory, "seconds": time.perf_counter() - start, "run_id": trainer.run_id}


def run(stores: Stores, sizes: Sizes, say: Callable[[str], None]) -> Result:
    uri, steps = stores.sqlite(), sizes.million // METRICS
    row = fresh(measure, stores.folder, uri, steps).value
    found = landed(uri, {row["run_id"]: steps})
    rows, checks = [], []
    for who in ("trainer", "delivery"):
        memory = row[who][WARM_UP - 1 :]
        slope = _slope(memory) * ROUNDS * 1e6 / sizes.million
        rows.append(
            {
                "who": who,
                "first_mb": memory[0],
                "last_mb": memory[-1],
                "slope_mb": slope,
                "rate": found.once / row["seconds"],
                "missing": found.missing,
                "twice": found.twice,
            }
        )
        checks.append(Check(f"{who}: memory per million points", slope, "<=", FLAT_MB, "MB"))
        say(f"{who}: {memory[0]:.1f} to {memory[-1]:.1f} MB")
    checks.append(Check("points missing or twice", found.missing + found.twice, "<=", 0))
    note = NOTE.format(points=sizes.million, metrics=METRICS, rounds=ROUNDS, warm_up=WARM_UP)
    return Result(NAME, "A million points in one run", note, COLUMNS, list(rows), checks, [row])


def _slope(values: Sequence[float]) -> float:
    """The growth from one value to the next, by a linear fit."""
    return statistics.linear_regression(range(len(values)), values).slope
