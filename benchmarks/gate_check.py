"""The cost of the gate in a store of many runs, compared with the two searches it needs."""

import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.processes import fresh, medians, memory_mb
from benchmarks.results import Check, Column, Result, Row
from benchmarks.sizes import Sizes
from benchmarks.stores import Stores

NAME = "gate"
BASELINE, CANDIDATE = "tags.baseline = 'main'", "tags.candidate = 'yes'"
TAKEN = 10
COLUMNS = (
    Column("process", "process"),
    Column("runs", "runs in the store", ",d"),
    Column("seconds", "seconds", ".2f"),
    Column("peak_mb", "peak RSS MB", ",.1f"),
)
NOTE = (
    "Whole processes, from start to exit; medians of {rounds} interleaved rounds. The runs have 10 "
    "metrics, 10 params and 10 tags each, and all of them match the baseline's filter, which takes "
    "the latest {taken}. The two searches use MLflow's client and the same filters, and return "
    "only the runs that are taken."
)
POLICY = f"""
[gate]
schema = 1
[baseline]
filter = "{BASELINE}"
last = {TAKEN}
[metrics."eval/accuracy"]
direction = "higher"
max_drop = 0.01
"""


def fill(uri: str, runs: int) -> None:
    """Create one candidate, and by SQL copies of one run that match the baseline's filter."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag

    client = MlflowClient(uri)
    for name, tag in (("model", RunTag("baseline", "main")), ("new", RunTag("candidate", "yes"))):
        run_id = client.create_run("0", start_time=1_700_000_000_000, run_name=name).info.run_id
        metrics = [Metric(f"train/m{n}", n / 7, 1_700_000_000_000, n) for n in range(9)]
        client.log_batch(
            run_id,
            metrics=[*metrics, Metric("eval/accuracy", 0.9, 1_700_000_000_000, 1)],
            params=[Param(f"extra.p{n}", str(n)) for n in range(10)],
            tags=[tag, *(RunTag(f"t{n}", str(n)) for n in range(9))],
        )
        client.set_terminated(run_id, "FINISHED", 1_700_000_001_000)
    copied = client.search_runs(["0"], BASELINE)[0].info.run_id
    with sqlite3.connect(uri.removeprefix("sqlite:///")) as store:
        for table in ("runs", "metrics", "latest_metrics", "params", "tags"):
            columns = [row[1] for row in store.execute(f"PRAGMA table_info({table})")]
            changed = {"run_uuid": "printf('%032x', copy)", "start_time": "start_time + copy"}
            chosen = ", ".join(changed.get(column, column) for column in columns)
            store.execute(
                f"INSERT INTO {table} ({', '.join(columns)}) SELECT {chosen} FROM {table}, "  # noqa: S608  names of its own tables
                "(WITH RECURSIVE n(copy) AS (SELECT 1 UNION ALL SELECT copy + 1 FROM n "
                "WHERE copy < ?) SELECT copy FROM n) WHERE run_uuid = ?",
                (runs - 2, copied),
            )


def two_searches(uri: str) -> dict[str, Any]:
    """The requests that any gate needs; runs in a process of its own."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    found = client.search_runs(["0"], CANDIDATE, max_results=1)
    latest = ["attributes.start_time DESC"]
    found += client.search_runs(["0"], BASELINE, max_results=TAKEN, order_by=latest)
    return {"found": len(found), "peak_mb": memory_mb("VmHWM")}


def check(uri: str) -> dict[str, Any]:
    """Run the command; in a process of its own."""
    from orbiter_mlflow.cli.main import main

    Path("gate.toml").write_text(POLICY)
    sys.argv = ["orbiter-mlflow", "check", "gate.toml", "--candidate", CANDIDATE]
    sys.argv += ["--tracking-uri", uri, "--markdown", "gate.md", "--html", "gate.html"]
    try:
        main()
    except SystemExit as ended:
        if ended.code:
            raise RuntimeError(f"check ended with {ended.code}") from ended
    return {"found": TAKEN + 1, "peak_mb": memory_mb("VmHWM")}


def run(stores: Stores, sizes: Sizes, say: Callable[[str], None]) -> Result:
    raw: list[Row] = []
    filled = {}
    for runs in (sizes.gate_runs // 100, sizes.gate_runs):
        filled[runs] = stores.sqlite()
        fresh(fill, stores.folder, filled[runs], runs)
        say(f"a store of {runs:,} runs")
    for turn in range(sizes.gate_rounds + 1):
        for runs, uri in filled.items():
            for process, measured in (("two searches", two_searches), ("check", check)):
                ended = fresh(measured, stores.folder, uri)
                row = {"process": process, "runs": runs, "round": turn, "seconds": ended.seconds}
                if turn > 0:  # in round 0 bytecode and files are not cached yet
                    raw.append(row | ended.value)
        say(f"round {turn} of {sizes.gate_rounds}")
    rows = {
        (process, runs): medians(
            row for row in raw if (row["process"], row["runs"]) == (process, runs)
        )
        for runs in filled
        for process in ("two searches", "check")
    }
    few, many = filled
    ours, theirs = rows["check", many], rows["two searches", many]
    checks = [
        Check("check, relative to two searches", ours["seconds"] / theirs["seconds"], "<=", 1.5),
        Check(
            f"memory for {many - few:,} more runs in the store",
            ours["peak_mb"] - rows["check", few]["peak_mb"],
            "<=",
            5.0,
            "MB",
        ),
    ]
    note = NOTE.format(rounds=sizes.gate_rounds, taken=TAKEN)
    return Result(
        NAME, "The gate in a store of many runs", note, COLUMNS, [*rows.values()], checks, raw
    )
