"""A fleet of trainers on many machines, replayed against one server: what it needs of the server.

The trainers are journals that a few processes write in real time and deliver by the real drain, as
the delivery process of each machine does. Then each delivers a backlog, as after an outage.
"""

import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from benchmarks.fleet_machine import BACKLOG, ENDING, PACED, WRITING, operate
from benchmarks.meeting import Meeting
from benchmarks.meter import Meter, connections_to, tree_cpu
from benchmarks.processes import fresh
from benchmarks.results import Check, Column, Result
from benchmarks.sizes import METRICS, Sizes
from benchmarks.store_points import Landed, database_bytes, landed
from benchmarks.stores import Running, Stores, missing

NAME = "fleet"
OVER = "paced time over"
COLUMNS = (
    Column("store", "store"),
    Column("what", "what"),
    Column("seconds", "seconds", ",.1f"),
    Column("rate", "rows/s", ",.0f"),
    Column("requests", "requests/s", ",.0f"),
    Column("each", "points each", ",.0f"),
    Column("lag_p50", "age p50 s", ".1f"),
    Column("lag_p99", "p99 s", ".1f"),
    Column("server_cores", "server cores", ".2f"),
    Column("postgres_cores", "SQL cores", ".2f"),
    Column("server_cost", "server ms per 1,000", ",.0f"),
    Column("postgres_cost", "SQL ms per 1,000", ",.0f"),
    Column("bytes_each", "bytes a row", ",.0f"),
    Column("http", "HTTP", "d"),
    Column("sql", "SQL", "d"),
)
NOTE = (
    "{trainers:,} trainers on {machines} machines, each a process with the real drain, beside the "
    "server on the same machine. 'Paced': a step of {metrics} metrics every {period:g} s for "
    "{seconds:g} s; rows, requests and cores within that time, the age of a step once it is in the "
    "store. 'Backlog': {backlog} steps of each, written before. Requests are those with metrics; "
    "'ms' is CPU time per 1,000 points; 'bytes' is what the database grew by, indexes and runs "
    "included; the last columns are open connections. "
    "Before, the runs were created with their params; at the end they are FINISHED. Each point was "
    "compared with the database.{missing}"
)


def run(stores: Stores, sizes: Sizes, say: Callable[[str], None]) -> Result:
    rows: list[dict[str, Any]] = []
    checks: list[Check] = []
    reasons = {kind: missing(kind) for kind in sizes.fleet_stores}
    for kind in (kind for kind, reason in reasons.items() if reason is None):
        with stores.running(kind) as store:
            found, measured = _replay(stores, store, sizes)
        for row in measured:
            rows.append({"store": kind, **row})
            say(f"{kind}, {row['what']}: {row['seconds']:.1f} s, {row['rate']:,.0f} points/s")
        wrong = found.missing + found.twice + found.unfinished
        checks.append(Check(f"{kind}: points missing or twice, runs unfinished", wrong, "<=", 0))
    note = NOTE.format(
        trainers=sizes.fleet_trainers,
        machines=sizes.fleet_machines,
        metrics=METRICS,
        period=sizes.fleet_period,
        seconds=sizes.fleet_seconds,
        backlog=sizes.fleet_backlog,
        missing="".join(f" No {kind}: {reason}." for kind, reason in reasons.items() if reason),
    )
    return Result(NAME, "A fleet on one server", note, COLUMNS, list(rows), checks)


def _replay(stores: Stores, store: Running, sizes: Sizes) -> tuple[Landed, list[dict[str, Any]]]:
    pids = {"server": store.server, "postgres": store.postgres}
    gauges = {
        name: lambda port=port: connections_to(port)
        for name, port in (("http", _port(store.uri)), ("sql", _port(store.database)))
        if port is not None
    }
    before = database_bytes(store.database)
    with Meter({}, gauges) as meter:
        ended, times = _operate(stores, store.uri, sizes, lambda: _used(pids))
        highest = dict(meter.highest)
    runs = {
        run_id: steps
        for row in ended
        for run_id, steps in zip(row["runs"], row["steps"], strict=True)
    }
    rows = [row | highest for row in _rows(ended, times, sizes)]
    grown = database_bytes(store.database) - before
    rows[-1]["bytes_each"] = grown / (sum(runs.values()) * METRICS)
    return landed(store.database, runs), rows


def _port(uri: str) -> int | None:
    return urlsplit(uri).port


def _used(pids: Mapping[str, int | None]) -> dict[str, float]:
    """CPU seconds so far, with those of processes of PostgreSQL whose connections were closed."""
    return {name: tree_cpu(pid) for name, pid in pids.items() if pid is not None}


def _operate(
    stores: Stores, uri: str, sizes: Sizes, used: Callable[[], dict[str, float]]
) -> tuple[list[dict[str, Any]], dict[str, dict[str, float]]]:
    """Start the machines and take them through the phases.

    Returns:
        What each machine returns, and the CPU seconds used at the limits of the phases.
    """
    folder = stores.folder / f"fleet-{time.time_ns()}"
    folder.mkdir()
    machines = sizes.fleet_machines
    ended: list[dict[str, Any]] = []
    failures: list[Exception] = []

    def one(index: int) -> None:
        trainers = len(range(index, sizes.fleet_trainers, machines))
        pace = (sizes.fleet_period, sizes.fleet_seconds, sizes.fleet_backlog)
        try:
            args = (uri, str(folder), machines, index, trainers, *pace)
            ended.append(fresh(operate, folder, *args).value)
        except Exception as error:  # raised below
            failures.append(error)

    meeting = Meeting(folder, machines)
    threads = [threading.Thread(target=one, args=(index,)) for index in range(machines)]
    times: dict[str, dict[str, float]] = {}
    for thread in threads:
        thread.start()
    try:
        for phase in (PACED, WRITING, BACKLOG, ENDING):
            meeting.all_arrived(phase, lambda: bool(failures))
            times[phase] = used()
            meeting.begin(phase)
            if phase == PACED:
                time.sleep(sizes.fleet_seconds)
                times[OVER] = used()
    finally:
        for phase in (PACED, WRITING, BACKLOG, ENDING):
            meeting.begin(phase)
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]
    return ended, times


def _rows(
    ended: list[dict[str, Any]], times: Mapping[str, Mapping[str, float]], sizes: Sizes
) -> Iterator[dict[str, Any]]:
    seconds, rest = _span([row["created"] for row in ended]), {"points": 0, "rate": 0.0}
    yield {"what": f"{sizes.fleet_trainers:,} runs created", "seconds": seconds, **rest}
    paced = [row[PACED] for row in ended]
    cpu = _cpu(times[PACED], times[OVER])
    yield _row("paced", sizes.fleet_seconds, paced, [row["within"] for row in paced], cpu)
    late = [row[BACKLOG] for row in ended]
    yield _row("backlog", _span(late), late, late, _cpu(times[BACKLOG], times[ENDING]))


def _row(
    what: str,
    seconds: float,
    machines: list[dict[str, Any]],
    counts: list[dict[str, Any]],
    cpu: Mapping[str, float],
) -> dict[str, Any]:
    points = sum(row["points"] for row in counts)
    requests = sum(row["requests"] for row in counts)
    row: dict[str, Any] = {
        "what": what,
        "seconds": seconds,
        "points": points,
        "rate": points / seconds,
        "requests": requests / seconds,
        "each": points / requests,
        "lag_p50": statistics.median(row["lag_p50"] for row in machines),
        "lag_p99": max(row["lag_p99"] for row in machines),
    }
    for name, used in cpu.items():
        row |= {f"{name}_cores": used / seconds, f"{name}_cost": used * 1e6 / points}
    return row


def _span(times: list[dict[str, Any]]) -> float:
    """Seconds from the first start to the last end."""
    return float(max(row["end"] for row in times) - min(row["start"] for row in times))


def _cpu(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    return {name: after[name] - before[name] for name in before}
