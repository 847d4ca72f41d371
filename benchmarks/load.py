"""Many trainers of one machine at once: in one process, in several, in one process each."""

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import tracking
from benchmarks.contenders import CEILING
from benchmarks.load_trainers import READY, report_all
from benchmarks.meeting import Meeting
from benchmarks.meter import DELIVERY, TRAINING, Meter, processes_of
from benchmarks.processes import end_delivery, fresh
from benchmarks.results import Check, Column, Result
from benchmarks.sizes import METRICS, Sizes
from benchmarks.store_points import landed
from benchmarks.stores import Running, Stores, missing

NAME = "load"
LATE = 1.5
"""The last run is in the store within so many times what bare batches take for the same points."""
DELIVERY_MB, DELIVERY_CPU = 400, 4
COLUMNS = (
    Column("store", "store"),
    Column("layout", "processes x trainers"),
    Column("points", "points", ",d"),
    Column("rate", "points per s", ",.0f"),
    Column("bare_rate", "bare", ",.0f"),
    Column("late", "time / bare", ".2f"),
    Column("deliveries", "deliveries", "d"),
    Column("delivery_start_cpu", "their start CPU s", ",.1f"),
    Column("delivery_mb", "their peak MB", ",.0f"),
    Column("trainer_mb", "trainers' peak MB", ",.0f"),
    Column("start_s", "all ready s", ",.1f"),
    Column("p50_us", "report p50 us", ".1f"),
    Column("missing", "missing", "d"),
    Column("twice", "twice", "d"),
)
NOTE = (
    "{points:,} points a process, {metrics} a call, from all trainers at once as fast as report() "
    "returns, after each run exists in the store. The rate counts from the first call until the "
    "last train() returns: its run is FINISHED with all points. 'Bare' is one client that sends "
    "batches of 1,000 metrics ({bare:,} points) to the same store just before. Start-up CPU is "
    "that of all delivery processes, and of what started them, until all runs exist; memory is "
    "proportional (PSS), summed, at its peak. p50 is the median over the trainers. Each point was "
    "compared with the database behind the store.{missing}"
)


def run(stores: Stores, sizes: Sizes, say: Callable[[str], None]) -> Result:
    rows: list[dict[str, Any]] = []
    reasons = {kind: missing(kind) for kind in sizes.load_stores}
    for kind in sizes.load_stores:
        if reasons[kind]:
            say(f"{kind}: left out: {reasons[kind]}")
            continue
        with stores.running(kind) as store:
            for processes, trainers in sizes.layouts:
                row = measure(stores, store, processes, trainers, sizes)
                rows.append({"store": kind, "layout": f"{processes} x {trainers}", **row})
                say(_line(rows[-1]))
    left_out = "".join(f" No {kind}: {reason}." for kind, reason in reasons.items() if reason)
    note = NOTE.format(
        points=sizes.load_points,
        metrics=METRICS,
        bare=sizes.bare_steps * METRICS,
        missing=left_out,
    )
    return Result(NAME, "Many trainers at once", note, COLUMNS, list(rows), list(_checks(rows)))


def measure(
    stores: Stores, store: Running, processes: int, trainers: int, sizes: Sizes
) -> dict[str, Any]:
    """Train in `processes` processes with `trainers` trainers each, all into one store."""
    bare = fresh(tracking.measure, stores.folder, CEILING, store.uri, sizes.bare_steps).value
    bare_rate = sizes.bare_steps * METRICS / bare["seconds"]
    steps = max(1, sizes.load_points // METRICS // trainers)
    folder = stores.folder / f"load-{time.time_ns()}"
    folder.mkdir()
    groups = {
        "delivery": lambda: processes_of(folder, DELIVERY),
        "trainer": lambda: processes_of(folder, TRAINING),
    }
    with Meter(groups) as meter:
        began = time.time()
        ended, ready, reporting = _train(folder, store.uri, processes, trainers, steps, meter)
        after = meter.sample()
    for pid in processes_of(folder, DELIVERY):
        end_delivery(pid, folder)
    runs = [run_id for row in ended for run_id in row["runs"]]
    seconds = max(row["durable"] for row in ended) - reporting
    points = len(runs) * steps * METRICS
    found = landed(store.database, dict.fromkeys(runs, steps))
    return {
        "points": points,
        "seconds": seconds,
        "rate": found.once / seconds,
        "bare_rate": bare_rate,
        "late": seconds / (points / bare_rate),
        "reported_s": max(row["reported"] for row in ended) - reporting,
        "deliveries": meter.peaks["delivery"].count,
        "delivery_start_cpu": ready["delivery"].cpu + sum(row["launch_cpu"] for row in ended),
        "delivery_cpu": after["delivery"].cpu,
        "delivery_mb": meter.peaks["delivery"].memory,
        "trainer_mb": meter.peaks["trainer"].memory,
        "trainer_start_cpu": sum(row["ready_cpu"] for row in ended),
        "start_s": reporting - began,
        "p50_us": statistics.median(row["p50_us"] for row in ended),
        "worst_p50_us": max(row["worst_p50_us"] for row in ended),
        **asdict(found),
    }


def _train(
    folder: Path, uri: str, processes: int, trainers: int, steps: int, meter: Meter
) -> tuple[list[dict[str, Any]], dict[str, Any], float]:
    """Start the processes, let them report once all runs exist, and wait for their ends.

    Returns:
        What each process returns; the sample of the moment before they report; its time.
    """
    ended: list[dict[str, Any]] = []
    failures: list[Exception] = []

    def one(index: int) -> None:
        args = (uri, trainers, steps, str(folder), processes, index)
        try:
            ended.append(fresh(report_all, folder, *args).value)
        except Exception as error:  # raised below
            failures.append(error)

    threads = [threading.Thread(target=one, args=(index,)) for index in range(processes)]
    for thread in threads:
        thread.start()
    meeting = Meeting(folder, processes)
    try:
        meeting.all_arrived(READY, lambda: bool(failures))
    finally:
        ready, reporting = meter.sample(), time.time()
        meeting.begin(READY)
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]
    return ended, ready, reporting


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['store']}, {row['layout']}: {row['rate']:,.0f} points/s, "
        f"{row['late']:.2f} of bare; {row['deliveries']} deliveries, "
        f"{row['delivery_start_cpu']:.1f} s, {row['delivery_mb']:,.0f} MB; "
        f"p50 {row['p50_us']:.1f} us; {row['missing']} missing, {row['twice']} twice"
    )


def _checks(rows: list[dict[str, Any]]) -> Iterator[Check]:
    """The targets; those on delivery are for the largest number of processes."""
    for store in {row["store"]: None for row in rows}:
        alone, *group = [row for row in rows if row["store"] == store]
        most = group[-1]
        name = f"{store}, {most['layout']}"
        yield Check(f"{name}: time, relative to bare batches", most["late"], "<=", LATE)
        yield Check(f"{name}: memory of delivery", most["delivery_mb"], "<=", DELIVERY_MB, "MB")
        cpu = most["delivery_start_cpu"]
        yield Check(f"{name}: CPU to start delivery", cpu, "<=", DELIVERY_CPU, "s")
        for row in group:
            ratio = row["p50_us"] / alone["p50_us"]
            name = f"{store}, {row['layout']}: report() p50, relative to one alone"
            yield Check(name, ratio, "<=", 1.1)
        wrong = sum(row["missing"] + row["twice"] + row["unfinished"] for row in (alone, *group))
        yield Check(f"{store}: points missing or twice, runs unfinished", wrong, "<=", 0)
