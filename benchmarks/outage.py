"""A server that is down while a training reports: memory use, and the points that arrive later."""

import asyncio
import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.contenders import PREFIX
from benchmarks.processes import delivery_of, fresh, memory_mb
from benchmarks.results import Check, Column, Result
from benchmarks.sizes import METRICS, Sizes
from benchmarks.stores import Stores, found_points, free_port, metrics_of

NAME = "outage"
COLUMNS = (
    Column("points", "points", ",d"),
    Column("append_s", "reported in s", ".1f"),
    Column("growth_mb", "RSS grew by MB", ".2f"),
    Column("peak_growth_mb", "peak RSS by MB", ".2f"),
    Column("journal_mb", "journal MB", ",.0f"),
    Column("deliver_s", "delivered in s", ",.1f"),
    Column("found", "points found once", ",d"),
    Column("delivery_peak_mb", "peak RSS of delivery process MB", ",.0f"),
)
NOTE = (
    "Nothing listens on the server's port while {points:,} points are reported, {metrics} a call; "
    "the memory is that of the training process, from before the first call to after the last. "
    "Then an mlflow server is started on that port; 'delivered in' is from its first answer until "
    "train() returns, including the waits between attempts."
)


def measure(uri: str, steps: int, reported: str) -> dict[str, Any]:
    """Report into the outage, then wait for delivery; runs in a process of its own.

    Creates the file `reported` once all points are reported.
    """
    from benchmarks.trainer import Benchmarked, benchmarked, train

    row: dict[str, Any] = {}

    async def body(trainer: Benchmarked) -> None:
        await asyncio.sleep(0.5)  # let the background work of tracking start
        resident, peak, start = memory_mb(), memory_mb("VmHWM"), time.perf_counter()
        for step in range(steps):
            trainer.report(metrics_of(step, METRICS), step=step)
        row["append_s"] = time.perf_counter() - start
        row["growth_mb"] = memory_mb() - resident
        row["peak_growth_mb"] = memory_mb("VmHWM") - peak
        row["journal_mb"] = _journal_mb()
        Path(reported).touch()  # noqa: ASYNC240  nothing else runs in this loop

    trainer = benchmarked(uri)
    train(trainer, body)
    row["ended"] = time.time()
    row["delivery_peak_mb"] = memory_mb("VmHWM", delivery_of(os.getpid()) or "none")
    row["run_id"] = trainer.run_id
    return row


def _journal_mb() -> float:
    spool = Path(os.environ["XDG_STATE_HOME"], "orbiter-mlflow")
    return sum(file.stat().st_size for file in spool.glob("*.jsonl")) / 1e6


def run(stores: Stores, sizes: Sizes, say: Callable[[str], None]) -> Result:
    port, steps = free_port(), sizes.outage // METRICS
    uri, reported = f"http://127.0.0.1:{port}", stores.folder / "reported"
    rows: list[dict[str, Any]] = []
    training = threading.Thread(
        target=lambda: rows.append(fresh(measure, stores.folder, uri, steps, str(reported)).value),
        daemon=True,
    )
    training.start()
    while training.is_alive() and not reported.exists():
        time.sleep(0.05)
    with ExitStack() as stack:
        if training.is_alive():
            say("all points are reported; starting the server")
            stack.enter_context(stores.server(port))
            up = time.time()
        training.join()
        if not rows:
            raise RuntimeError("the training failed; see its message above")
        say("all points are delivered; reading them back")
        row = rows[0]
        row["deliver_s"] = row.pop("ended") - up
        row["points"] = steps * METRICS
        row["found"] = found_points(uri, row.pop("run_id"), PREFIX, range(steps), METRICS)
    checks = [
        Check("memory growth of the training process", row["growth_mb"], "<=", 5, "MB"),
        Check(
            "share of the reported points in the store once", row["found"] / row["points"], ">=", 1
        ),
    ]
    note = NOTE.format(points=sizes.outage, metrics=METRICS)
    return Result(NAME, "Reporting while the server is down", note, COLUMNS, [row], checks)
