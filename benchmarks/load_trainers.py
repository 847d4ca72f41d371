"""The trainers of one training process of the load, all in one event loop."""

import asyncio
import resource
import statistics
import time
from typing import Any

from benchmarks.meeting import Meeting
from benchmarks.processes import percentile
from benchmarks.sizes import METRICS
from benchmarks.stores import metrics_of
from benchmarks.trainer import Benchmarked, benchmarked

READY = "reporting"
"""The phase before which each run exists in the store."""


def report_all(
    uri: str, trainers: int, steps: int, folder: str, processes: int, index: int
) -> dict[str, Any]:
    """Train with several trainers at once; runs in a process of its own.

    Each reports one step after the other, as fast as `report` returns; between two steps the others
    have a turn.
    """
    meeting = Meeting(folder, processes)
    p50s: list[float] = []
    ready: list[Benchmarked] = []
    row: dict[str, Any] = {}

    async def body(trainer: Benchmarked) -> None:
        # Not `wait_run_id`, which has delivery look all the time.
        while trainer.run_id is None:  # noqa: ASYNC110  it comes from another process
            await asyncio.sleep(0.05)
        ready.append(trainer)
        if len(ready) == trainers:
            children = resource.getrusage(resource.RUSAGE_CHILDREN)
            row["ready_cpu"] = time.process_time()
            row["launch_cpu"] = children.ru_utime + children.ru_stime
            meeting.arrive(READY, index)
        await meeting.wait_async(READY)
        blocked: list[int] = []
        for step in range(steps):
            metrics = metrics_of(step, METRICS)
            before = time.perf_counter_ns()
            trainer.report(metrics, step=step)
            blocked.append(time.perf_counter_ns() - before)
            await asyncio.sleep(0)
        p50s.append(percentile(blocked, 50) / 1e3)
        row["reported"] = time.time()

    async def train_all() -> None:
        # Git runs as a process, whose CPU time would count as that of starting delivery.
        made = [benchmarked(uri, skip_provenance=("git",)) for _ in range(trainers)]
        for trainer in made:
            trainer.body = body
            trainer.mark_validated()
        await asyncio.gather(*(trainer.train() for trainer in made))
        row["durable"] = time.time()
        row["runs"] = [trainer.run_id for trainer in made]

    asyncio.run(train_all())
    return row | {"p50_us": statistics.median(p50s), "worst_p50_us": max(p50s)}
