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
BLESSINGS, SEEDS, METRICS = 20, 3, 200
LAST = 10
NEEDED = LAST * SEEDS
"""Blessed runs that a check reads: those of the newest blessings."""
COLUMNS = (
    Column("process", "process"),
    Column("runs", "runs in the store", ",d"),
    Column("seconds", "seconds", ".2f"),
    Column("peak_mb", "peak RSS MB", ",.1f"),
)
NOTE = (
    "Whole processes, from start to exit; medians of {rounds} interleaved rounds. The store has "
    "{blessings} blessings and a candidate of {seeds} runs each, with {metrics} metrics, all of "
    "which the policy judges, drift included; the other runs have 10 metrics, 10 params and 10 "
    "tags each. The two searches use MLflow's client and the same filters, and return only the "
    "runs that are read: the candidate's, and those of the newest {last} blessings."
)
POLICY = f"""
[gate]
schema = 1
[baseline]
filter = "{BASELINE}"
last = {LAST}
drift = true
[metrics."eval/*"]
direction = "higher"
max_drop = 0.01
paired_by = "params.seed"
"""


def fill(uri: str, runs: int) -> None:
    """Create the candidate and the blessings, and by SQL copies of one other run."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag

    from orbiter_mlflow.gate.bless import BlessRequest, bless_runs
    from orbiter_mlflow.settings import MLflowSettings

    client, start = MlflowClient(uri), 1_700_000_000_000

    def create(name: str, at: int, prefix: str, metrics: int, tags: list[RunTag]) -> str:
        run_id = client.create_run("0", start_time=start + at, run_name=name).info.run_id
        values = [(n, 0.9 + (n * 7 + at * 13) % 100 / 1e5) for n in range(metrics)]
        client.log_batch(
            run_id,
            metrics=[Metric(f"{prefix}/m{n}", value, start + at, 1) for n, value in values],
            params=[
                Param("seed", str(at % SEEDS)),
                *(Param(f"extra.p{n}", str(n)) for n in range(9)),
            ],
            tags=[*tags, *(RunTag(f"t{n}", str(n)) for n in range(9))],
        )
        client.set_terminated(run_id, "FINISHED", start + at + 1000)
        return str(run_id)

    settings = MLflowSettings.model_validate({"tracking_uri": uri, "experiment": "Default"})
    for blessing in range(BLESSINGS):
        seeds = range(blessing * SEEDS, (blessing + 1) * SEEDS)
        ids = [create(f"release-{at}", at, "eval", METRICS, []) for at in seeds]
        bless_runs(BlessRequest(runs=ids, reason=f"release {blessing}", settings=settings))
    for at in range(BLESSINGS * SEEDS, (BLESSINGS + 1) * SEEDS):
        create(f"new-{at}", at, "eval", METRICS, [RunTag("candidate", "yes")])
    copied = create("other", 0, "train", 10, [RunTag("other", "yes")])
    others = runs - (BLESSINGS + 1) * SEEDS - 1
    with sqlite3.connect(uri.removeprefix("sqlite:///")) as store:
        for table in ("runs", "metrics", "latest_metrics", "params", "tags"):
            columns = [row[1] for row in store.execute(f"PRAGMA table_info({table})")]
            changed = {"run_uuid": "printf('%032x', copy)", "start_time": "start_time + copy"}
            chosen = ", ".join(changed.get(column, column) for column in columns)
            store.execute(
                f"INSERT INTO {table} ({', '.join(columns)}) SELECT {chosen} FROM {table}, "  # noqa: S608  names of its own tables
                "(WITH RECURSIVE n(copy) AS (SELECT 1 UNION ALL SELECT copy + 1 FROM n "
                "WHERE copy < ?) SELECT copy FROM n) WHERE run_uuid = ?",
                (others, copied),
            )


def two_searches(uri: str) -> dict[str, Any]:
    """The requests that any gate needs; runs in a process of its own."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    found = client.search_runs(["0"], CANDIDATE, max_results=SEEDS)
    latest = ["tags.`orbiter.baseline.at` DESC", "attributes.start_time DESC"]
    found += client.search_runs(["0"], BASELINE, max_results=NEEDED, order_by=latest)
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
    return {"found": NEEDED + SEEDS, "peak_mb": memory_mb("VmHWM")}


def run(stores: Stores, sizes: Sizes, say: Callable[[str], None]) -> Result:
    raw: list[Row] = []
    filled = {}
    for runs in (sizes.gate_runs // 10, sizes.gate_runs):
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
        Check("check, relative to two searches", ours["seconds"] / theirs["seconds"], "<=", 1.3),
        Check(
            f"memory for {many - few:,} more runs in the store",
            ours["peak_mb"] - rows["check", few]["peak_mb"],
            "<=",
            5.0,
            "MB",
        ),
    ]
    note = NOTE.format(
        rounds=sizes.gate_rounds, blessings=BLESSINGS, seeds=SEEDS, metrics=METRICS, last=LAST
    )
    return Result(
        NAME, "The gate in a store of many runs", note, COLUMNS, [*rows.values()], checks, raw
    )
