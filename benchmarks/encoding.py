"""Encode a large config as params, and load it back from a run."""

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

from benchmarks.processes import fresh
from benchmarks.results import Check, Column, Result
from benchmarks.sizes import Sizes
from benchmarks.stores import Stores
from orbiter.train import TrainConfig

NAME = "params"
LEAVES = 400
PROCESSES = 5
COLUMNS = (
    Column("config", "config"),
    Column("leaves", "params", ",d"),
    Column("first_ms", "first call ms", ".2f"),
    Column("p50_ms", "p50 ms", ".2f"),
    Column("max_ms", "max ms", ".2f"),
    Column("load_ms", "load_config ms", ".1f"),
    Column("request_ms", "its request ms", ".1f"),
    Column("beyond_ms", "beyond it ms", ".1f"),
    Column("tags_kb", "its tags KB", ".1f"),
)
NOTE = (
    "config_to_params of {leaves} leaves: ints, floats, bools and strings. 'mapping': in `extra`, "
    "20 mappings of 20, minus the other fields; 'dataclasses': the same as 20 nested, typed "
    "dataclasses. The first call of a process, and the {calls} after it. load_config, from a "
    "sqlite store: {calls} calls after a first one, alternating with the bare request that reads "
    "a run. Medians of {processes} processes."
)

Layer = dataclasses.make_dataclass(
    "Layer",
    [(f"field_{n}", kind) for n, kind in enumerate((int, float, bool, str) * 5)],
)
TypedConfig = dataclasses.make_dataclass(
    "TypedConfig", [(f"layer_{n}", Layer) for n in range(LEAVES // 20)]
)


def _value(number: int) -> Any:
    return (number, number * 1e-5, number % 2 == 0, f"text {number}")[number % 4]


def _config(kind: str) -> Any:
    if kind == "dataclasses":
        return TypedConfig(
            **{
                f"layer_{n}": Layer(*(_value(n * 20 + m) for m in range(20)))
                for n in range(LEAVES // 20)
            }
        )
    own = len(dataclasses.fields(TrainConfig)) - 1
    leaves = range(LEAVES - own)
    extra: dict[str, dict[str, Any]] = {}
    for number in leaves:
        extra.setdefault(f"layer_{number // 20}", {})[f"field_{number % 20}"] = _value(number)
    return TrainConfig(extra=extra)


def measure(kind: str, calls: int) -> dict[str, float]:
    """Time repeated encoding; runs in a process of its own."""
    from orbiter_mlflow import config_to_params

    config, times, params = _config(kind), [], {}
    for _ in range(calls + 1):
        start = time.perf_counter()
        params = config_to_params(config)
        times.append((time.perf_counter() - start) * 1e3)
    return {
        "leaves": len(params),
        "first_ms": times[0],
        "p50_ms": statistics.median(times[1:]),
        "max_ms": max(times[1:]),
    }


def measure_load(kind: str, uri: str, calls: int) -> dict[str, float]:
    """Time repeated loading, alternating with the bare request; runs in a process of its own.

    Raises:
        AssertionError: the loaded config differs from the logged one.
    """
    from mlflow import MlflowClient
    from mlflow.entities import Param

    from orbiter_mlflow import load_config
    from orbiter_mlflow.delivery.records import Params, Tags
    from orbiter_mlflow.redaction.redactor import Redactor
    from orbiter_mlflow.tracking.config_records import log_config

    config, client = _config(kind), MlflowClient(uri)
    params: dict[str, str] = {}
    tags: dict[str, str] = {}
    for record in log_config(config, Redactor()).records:
        params |= record.values if isinstance(record, Params) else {}
        tags |= record.values if isinstance(record, Tags) else {}
    run_id: str = client.create_run("0", tags=tags).info.run_id
    entities = [Param(key, text) for key, text in params.items()]
    for at in range(0, len(entities), 100):
        client.log_batch(run_id, params=entities[at : at + 100])
    loads, requests = [], []
    for _ in range(calls + 1):
        start = time.perf_counter()
        loaded = load_config(run_id, type(config), tracking_uri=uri)
        loads.append((time.perf_counter() - start) * 1e3)
        start = time.perf_counter()
        client.get_run(run_id)
        requests.append((time.perf_counter() - start) * 1e3)
        assert loaded == config  # noqa: S101  a wrong result has no time
    load, request = statistics.median(loads[1:]), statistics.median(requests[1:])
    size = sum(len(key) + len(text) for key, text in tags.items())
    return {
        "load_ms": load,
        "request_ms": request,
        "beyond_ms": load - request,
        "tags_kb": size / 1e3,
    }


def run(stores: Stores, sizes: Sizes, say: Callable[[str], None]) -> Result:
    rows: list[dict[str, Any]] = []
    raw: list[dict[str, Any]] = []
    for kind in ("mapping", "dataclasses"):
        group = [
            fresh(measure, stores.folder, kind, sizes.encodings).value
            | fresh(measure_load, stores.folder, kind, stores.sqlite(), sizes.encodings).value
            for _ in range(PROCESSES)
        ]
        raw += [{"config": kind, **row} for row in group]
        middle = {key: statistics.median(row[key] for row in group) for key in group[0]}
        rows.append({"config": kind, **middle, "leaves": int(middle["leaves"])})
        say(
            f"{kind}: first {middle['first_ms']:.1f} ms, p50 {middle['p50_ms']:.1f} ms; "
            f"load_config {middle['load_ms']:.1f} ms, {middle['beyond_ms']:.1f} beyond the request"
        )
    checks = [
        Check(f"config_to_params of {LEAVES} leaves, {row['config']}", row["p50_ms"], "<=", 5, "ms")
        for row in rows
    ]
    checks += [
        Check(
            f"load_config of {LEAVES} leaves beyond its request, {row['config']}",
            row["beyond_ms"],
            "<=",
            50,
            "ms",
        )
        for row in rows
    ]
    note = NOTE.format(leaves=LEAVES, calls=sizes.encodings, processes=PROCESSES)
    return Result(
        NAME, "A large config as params, and back", note, COLUMNS, list(rows), checks, list(raw)
    )
