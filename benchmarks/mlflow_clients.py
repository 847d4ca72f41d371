"""MLflow's own clients: plain URI, behind `journal+`, and with a store that does nothing."""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks import contenders
from benchmarks.contenders import CEILING, Log, found_points
from benchmarks.processes import fresh, medians
from benchmarks.results import Check, Column, Result
from benchmarks.sizes import METRICS, Sizes
from benchmarks.stores import Stores, metrics_of
from benchmarks.tracking import blocked_times

NAME = "clients"
FLUENT, ASYNC = "mlflow.log_metrics", "mlflow.log_metrics async"
CLIENTS = (
    FLUENT,
    "lightning MLFlowLogger",
    "accelerate MLflowTracker",
    "transformers MLflowCallback",
)
"""Measured with each URI; `ASYNC` and `CEILING` with the plain one, to compare with."""
FLOOR, PLAIN, JOURNAL = "does nothing", "plain", "journal+"
LONG = ", many steps"
"""Rows of more steps, for the landing rate: it is that of a training, not of its start and end."""
AT_THE_FLOOR = 1.3
FASTER = {"sqlite": 8.0, "server": 20.0}
COLUMNS = (
    Column("client", "client"),
    Column("store", "store"),
    Column("uri", "URI"),
    Column("p50_us", "blocked p50 us", ",.1f"),
    Column("p99_us", "p99 us", ",.1f"),
    Column("floor", "relative to the floor", ".2f"),
    Column("seconds", "all stored s", ".2f"),
    Column("rate", "points per s", ",.0f"),
    Column("found", "points found", ",d"),
)
NOTE = (
    "{steps:,} steps x {metrics} metrics, back to back; medians of {rounds} rounds, in each of "
    "which the rows follow one another, each in a fresh process and, on sqlite, a fresh store. The "
    "run exists and has stored a metric before timing starts. The floor is the same client with a "
    "store that does nothing: MLflow's own Python layers. 'All stored' is from the first call "
    "until the run is FINISHED in the store with all points, which were read back. Rows of many "
    "steps have {landing:,}; the landing rate is theirs. Transformers logs asynchronously by "
    "itself. Ratios are medians of the rounds' ratios."
)


def measure(name: str, uri: str, steps: int) -> dict[str, Any]:
    """Let one client log; runs in a process of its own."""
    from mlflow.tracking._tracking_service.utils import _get_store

    from benchmarks import null_store

    null_store.register()
    blocked: list[int] = []
    start = 0

    def work(log: Log) -> None:
        nonlocal start
        start = time.perf_counter_ns()
        for step in range(steps):
            metrics = metrics_of(step, METRICS)
            before = time.perf_counter_ns()
            log(metrics, step)
            blocked.append(time.perf_counter_ns() - before)

    run_id = contenders.run(name, uri, work)
    _get_store(uri).flush_async_logging()
    seconds = (time.perf_counter_ns() - start) / 1e9
    return {"run_id": run_id, **blocked_times(blocked), "seconds": seconds}


def run(stores: Stores, sizes: Sizes, say: Callable[[str], None]) -> Result:
    raw: list[dict[str, Any]] = []
    clients = [name for name in CLIENTS if name in contenders.installed()]
    with stores.server() as server:

        def add(turn: int, client: str, store: str, uri: str, steps: int) -> None:
            row = _one(stores, client, store, uri, server, steps)
            named = client if steps == sizes.steps else client + LONG
            raw.append({"client": named, "store": store, "uri": uri, "round": turn} | row)
            say(f"round {turn}: {named}, {store}, {uri}: {row['seconds']:.2f} s")

        for turn in range(1, sizes.client_rounds + 1):
            for client in (*clients, ASYNC, CEILING):
                for store, uri in _places(client, sizes.stores):
                    add(turn, client, store, uri, sizes.steps)
            for store in sizes.stores:
                add(turn, FLUENT, store, JOURNAL, sizes.landing_steps)
                add(turn, CEILING, store, PLAIN, sizes.landing_steps)
    rows = []
    for kind in {(row["client"], row["store"], row["uri"]): None for row in raw}:
        group = _group(raw, *kind)
        floor = _ratio(raw, kind, (kind[0], "-", FLOOR)) if kind[0] in clients else None
        rows.append(medians(group) | {"found": min(r["found"] for r in group), "floor": floor})
    note = NOTE.format(
        steps=sizes.steps,
        landing=sizes.landing_steps,
        metrics=METRICS,
        rounds=sizes.client_rounds,
    )
    checks = [check for store in sizes.stores for check in _checks(raw, store, clients)]
    return Result(NAME, "MLflow's own clients", note, COLUMNS, list(rows), checks, list(raw))


def _places(client: str, stores: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    if client in CLIENTS:
        yield "-", FLOOR
    for store in stores:
        yield store, PLAIN
        if client in CLIENTS:
            yield store, JOURNAL


def _one(
    stores: Stores, client: str, store: str, uri: str, server: str, steps: int
) -> dict[str, Any]:
    plain = {"-": "null://", "server": server}.get(store) or stores.sqlite()
    used = f"journal+{plain}" if uri == JOURNAL else plain
    row = dict(fresh(measure, stores.folder, client, used, steps).value)
    run_id = row.pop("run_id")
    row["found"] = 0 if uri == FLOOR else found_points(client, plain, run_id, range(steps), METRICS)
    row["rate"] = row["found"] / row["seconds"]
    return row


def _group(raw: list[dict[str, Any]], client: str, store: str, uri: str) -> list[dict[str, Any]]:
    kind = (client, store, uri)
    return [row for row in raw if (row["client"], row["store"], row["uri"]) == kind]


def _ratio(
    raw: list[dict[str, Any]],
    kind: tuple[str, str, str],
    base: tuple[str, str, str],
    key: str = "p50_us",
) -> float:
    """Median of the rounds' ratios: the load of the machine changes between rounds."""
    pairs = zip(_group(raw, *kind), _group(raw, *base), strict=True)
    return float(statistics.median(one[key] / other[key] for one, other in pairs))


def _checks(raw: list[dict[str, Any]], store: str, clients: list[str]) -> Iterator[Check]:
    ours, plain = (FLUENT, store, JOURNAL), (FLUENT, store, PLAIN)
    floor = _ratio(raw, ours, (FLUENT, "-", FLOOR))
    yield Check(f"{store}: journal+ log_metrics, relative to its floor", floor, "<=", AT_THE_FLOOR)
    yield Check(
        f"{store}: journal+ log_metrics, relative to async",
        _ratio(raw, ours, (ASYNC, store, PLAIN)),
        "<=",
        1,
    )
    yield Check(
        f"{store}: journal+ points/s, relative to bare log_batch",
        _ratio(raw, (FLUENT + LONG, store, JOURNAL), (CEILING + LONG, store, PLAIN), "rate"),
        ">=",
        0.9,
    )
    for client in clients:
        ours, plain = (client, store, JOURNAL), (client, store, PLAIN)
        floor = _ratio(raw, ours, (client, "-", FLOOR))
        if floor > AT_THE_FLOOR:
            faster = _ratio(raw, plain, ours)
            yield Check(f"{store}: {client}, times faster", faster, ">=", FASTER[store])
        else:
            name = f"{store}: {client}, relative to its floor"
            yield Check(name, floor, "<=", AT_THE_FLOOR)
