"""The cost of `at = "best"`, which reads whole histories, compared with downloading them."""

import sqlite3
import time
from collections.abc import Callable
from typing import Any

from benchmarks.processes import fresh, medians
from benchmarks.results import Check, Column, Result, Row
from benchmarks.sizes import Sizes
from benchmarks.stores import Stores

NAME = "gate-best"
METRIC = "eval/accuracy"
RUNS = 39
COLUMNS = (
    Column("reader", "reader"),
    Column("runs", "runs", ",d"),
    Column("points", "points each", ",d"),
    Column("cpu", "CPU seconds", ".2f"),
)
NOTE = (
    "Both readers take turns in one process, {rounds} times after one that does not count; "
    "medians. The download calls get_metric_history of MLflow's client for each run, and keeps "
    "nothing; the gate finds the best value of each run, and counts the values."
)


def fill(uri: str, runs: int, points: int) -> None:
    """Create runs with that many points each, all but the last one by SQL."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    client = MlflowClient(uri)
    ids = [client.create_run("0", start_time=1_700_000_000_000).info.run_id for _ in range(runs)]
    rows = [(METRIC, step * 7919 % 10_007, step, step) for step in range(points - 1)]
    for run_id in ids:
        with sqlite3.connect(uri.removeprefix("sqlite:///")) as store:
            store.executemany(
                "INSERT INTO metrics (key, value, timestamp, step, is_nan, run_uuid) "
                "VALUES (?, ?, ?, ?, 0, ?)",
                [(*row, run_id) for row in rows],
            )
        client.log_batch(run_id, metrics=[Metric(METRIC, 0.5, 1_700_000_000_000, points - 1)])
        client.set_terminated(run_id, "FINISHED", 1_700_000_001_000)


def read(uri: str, rounds: int) -> list[Row]:
    """Measure both readers; in a process of its own."""
    from mlflow import MlflowClient

    from orbiter_mlflow.gate.policy import Policy
    from orbiter_mlflow.gate.run_selection import gate_runs
    from orbiter_mlflow.runs.store import RunStore

    client, store = MlflowClient(uri), RunStore(uri)
    policy = Policy.for_one(METRIC, direction="higher", min=0, at="best")
    runs = list(store.search("", ["0"]))

    def download() -> int:
        return sum(len(client.get_metric_history(run.run_id, METRIC)) for run in runs)

    def gate() -> int:
        found, _ = gate_runs(store, policy, runs, [], {})
        return sum(run.evaluations[METRIC] for run in found)

    measured: list[Row] = []
    for turn in range(rounds + 1):
        for reader in (download, gate):
            start = time.process_time()
            points = reader()
            row = {"reader": reader.__name__, "cpu": time.process_time() - start, "round": turn}
            measured.append(row | {"runs": len(runs), "points": points // len(runs)})
    return [row for row in measured if row["round"]]


def run(stores: Stores, sizes: Sizes, say: Callable[[str], None]) -> Result:
    uri = stores.sqlite()
    fresh(fill, stores.folder, uri, RUNS, sizes.gate_points)
    say(f"{RUNS} runs of {sizes.gate_points:,} points")
    raw: list[Any] = fresh(read, stores.folder, uri, sizes.rounds).value
    rows = {
        reader: medians(row for row in raw if row["reader"] == reader)
        for reader in ("download", "gate")
    }
    ratio = rows["gate"]["cpu"] / rows["download"]["cpu"]
    return Result(
        NAME,
        "The gate with the best value of each run",
        NOTE.format(rounds=sizes.rounds),
        COLUMNS,
        [*rows.values()],
        [Check("best values, relative to the download", ratio, "<=", 1.5)],
        raw,
    )
