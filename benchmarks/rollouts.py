"""The rollouts of large steps: what a call costs, and how long they take into the store."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.processes import fresh
from benchmarks.results import Check, Column, Result
from benchmarks.sizes import Sizes
from benchmarks.stores import Stores

NAME = "rollouts"
ROLLOUTS = 1_000
CHARACTERS = 8_000
"""Of a completion: some 2,000 tokens."""
TRACES = 64
COLUMNS = (
    Column("store", "store"),
    Column("call", "the call, ms", ",.0f"),
    Column("metric", "a metric reported next, ms", ",.0f"),
    Column("table", "table and 8 traces in the store, s", ".2f"),
    Column("traces", "table and 64 traces, s", ".2f"),
    Column("bare", "the bare calls of MLflow, s", ".2f"),
    Column("ratio", "ratio", ".2f"),
)
NOTE = (
    "Steps of {count:,} rollouts with completions of {characters:,} characters each, {mb:.1f} MB "
    "a step; medians of {rounds}. Call, metric and table: from a training to a delivery process. "
    "Traces: one turn of the delivery, and then the same upload, `start_trace` and `log_spans` "
    "of the same contents by MLflow's own store."
)


def measure(uri: str, folder: str, rounds: int) -> list[dict[str, float]]:
    """Report and deliver steps; runs in a process of its own."""
    import asyncio
    import random

    from benchmarks.trainer import Benchmarked, benchmarked, delivered, warm_up
    from orbiter.train import Rollout

    rng = random.Random(0)  # noqa: S311  no secret
    words = ["".join(rng.choices("abcdefghij", k=rng.randint(2, 9))) for _ in range(5_000)]

    def completion() -> str:
        return " ".join(rng.choices(words, k=CHARACTERS // 6))[:CHARACTERS]

    steps = [
        [
            Rollout(f"Question {n // 8}?", completion(), rewards={"a": n % 2, "b": n / 7}, tokens=2)
            for n in range(ROLLOUTS)
        ]
        for _ in range(rounds)
    ]
    found: list[dict[str, float]] = []

    async def body(trainer: Benchmarked) -> None:
        await warm_up(trainer)
        for step, rollouts in enumerate(steps, 1):
            start = time.perf_counter()
            trainer.report_rollouts(rollouts, step=step)
            called = time.perf_counter()
            trainer.report({"loss": 0.5}, step=step)
            writer = trainer._tracked.writer
            assert writer is not None  # noqa: S101  the journal is open
            await writer.flush(600)
            metric = time.perf_counter()
            await delivered(trainer)
            table = time.perf_counter() - start
            call = (called - start) * 1e3
            found.append({"call": call, "metric": (metric - called) * 1e3, "table": table})

    trainer = benchmarked(uri)
    trainer.body = body
    trainer.mark_validated()
    asyncio.run(trainer.train())
    for times, rollouts in zip(found, steps, strict=True):
        times |= _with_many_traces(uri, Path(folder), rollouts)
    return found


def _with_many_traces(uri: str, folder: Path, rollouts: list[Any]) -> dict[str, float]:
    from benchmarks.trainer import benchmarked
    from orbiter_mlflow.delivery import kept_files
    from orbiter_mlflow.delivery.drain import Drain
    from orbiter_mlflow.delivery.journal_reader import read_entries
    from orbiter_mlflow.delivery.mlflow_sink import MLflowSink
    from orbiter_mlflow.delivery.records import Rollouts
    from orbiter_mlflow.delivery.rollout_traces import traces_of
    from orbiter_mlflow.delivery.side_lane import SideLane

    trainer = benchmarked(uri, delivery="offline", traces_per_step=TRACES, spool_dir=folder)
    trainer.mark_validated()
    trainer.report_rollouts(rollouts, step=1)
    writer = trainer._tracked.writer
    assert writer is not None  # noqa: S101  the journal is open
    sink = MLflowSink(uri)
    drain = Drain(writer.path, lambda _: sink)
    if not drain.run():
        raise RuntimeError(drain.ack.problem)
    (entry,) = read_entries(writer.path, kind=Rollouts)
    record = entry.record
    assert isinstance(record, Rollouts)  # noqa: S101  as asked for
    file = folder / "table.json"
    file.write_bytes(kept_files.verified(writer.path, record.table).read_bytes())
    lane = SideLane("rollouts", writer.path, lambda _: sink)
    start = time.perf_counter()
    if not lane.run(drain.ack):
        raise RuntimeError(lane.ack.problem)
    ours = time.perf_counter() - start
    run_id = str(drain.ack.run_id)
    bare = _bare(uri, run_id, file, traces_of(record, file.read_bytes(), "again"))
    return {"traces": ours, "bare": bare}


def _bare(uri: str, run_id: str, file: Path, traces: list[Any]) -> float:
    """Seconds of MLflow's own calls for the same contents, which are made beforehand."""
    from mlflow import MlflowClient, entities
    from mlflow.entities.trace_location import TraceLocation

    from orbiter_mlflow.delivery.mlflow_client import traces as sending

    client = MlflowClient(uri)
    experiment_id = client.get_run(run_id).info.experiment_id
    location = TraceLocation.from_experiment_id(experiment_id)
    store = client._tracking_client.store
    spans = [entities.Span.from_dict(one) for trace in traces for one in sending._spans(trace)]
    infos = [sending._info(trace, location, run_id) for trace in traces]
    start = time.perf_counter()
    client.log_artifact(run_id, str(file), "again")
    for info in infos:
        store.start_trace(info)
    store.log_spans(experiment_id, spans)
    return time.perf_counter() - start


def run(stores: Stores, sizes: Sizes, say: Callable[[str], None]) -> Result:
    rows, checks, raw = [], [], []
    for name in sizes.stores:
        say(f"{sizes.rollout_rounds} steps of {ROLLOUTS:,} rollouts into {name}")
        if name == "server":
            with stores.server() as uri:
                found = _measured(stores, uri, sizes)
        else:
            found = _measured(stores, stores.sqlite(), sizes)
        row = {key: statistics.median(one[key] for one in found) for key in found[0]}
        ratio = row["traces"] / row["bare"]
        rows.append({"store": name} | row | {"ratio": ratio})
        raw += [{"store": name} | one for one in found]
        checks.append(Check(f"{name}: table and 8 traces in the store", row["table"], "<=", 5, "s"))
        checks.append(Check(f"{name}: delivery of traces, relative to bare", ratio, "<=", 1.3))
    note = NOTE.format(
        count=ROLLOUTS,
        characters=CHARACTERS,
        mb=ROLLOUTS * CHARACTERS / 1e6,
        rounds=sizes.rollout_rounds,
    )
    return Result(NAME, "Rollouts of large steps", note, COLUMNS, list(rows), checks, list(raw))


def _measured(stores: Stores, uri: str, sizes: Sizes) -> list[dict[str, float]]:
    folder = stores.folder / f"rollouts-{time.monotonic_ns()}"
    folder.mkdir()
    found: list[dict[str, float]] = fresh(
        measure, stores.folder, uri, str(folder), sizes.rollout_rounds
    ).value
    return found
