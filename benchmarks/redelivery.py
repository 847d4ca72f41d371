"""Recovery from a lost answer to a batch, in a run with a long history."""

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.processes import fresh
from benchmarks.results import Check, Column, Result
from benchmarks.sizes import METRICS, Sizes
from benchmarks.stores import Stores, found_points, metrics_of

NAME = "redelivery"
BATCH_STEPS = 90
"""Steps of one batch, of `METRICS` metrics each: 900 metrics, one batch of the drain."""
COLUMNS = (
    Column("case", "case"),
    Column("ms", "ms", ",.1f"),
    Column("ratio", "relative to a fresh batch", ".2f"),
)
NOTE = (
    "A run of {history:,} points on sqlite; a batch is {batch} points, the rows are medians of "
    "{batches}. Recovery is one turn of the drain: it asks the store how far delivery is, and "
    "sends the rest. 'Sent again blindly' sends the same batch without asking. "
    "{found:,} of {expected:,} points are in the store, each once."
)
FRESH, ANSWER, REQUEST, BLIND = (
    "fresh batch",
    "answer lost: recovery",
    "request lost: recovery",
    "sent again blindly",
)


def measure(uri: str, folder: str, history: int, batches: int) -> dict[str, Any]:
    """Deliver the history, then lose answers; runs in a process of its own."""
    from orbiter_mlflow.delivery.batches import MetricPoint
    from orbiter_mlflow.delivery.drain import Drain
    from orbiter_mlflow.delivery.journal import Journal
    from orbiter_mlflow.delivery.mlflow_sink import MLflowSink
    from orbiter_mlflow.delivery.process_identity import this_process
    from orbiter_mlflow.delivery.records import Head, Metrics
    from orbiter_mlflow.errors import TransientError

    class Lossy(MLflowSink):
        """Loses the next request, or the answer to it, on demand."""

        lose: str | None = None
        last: tuple[str, Sequence[MetricPoint]] | None = None

        def log_batch(
            self,
            run_id: str,
            points: Sequence[MetricPoint],
            params: dict[str, str],
            tags: dict[str, str],
        ) -> None:
            lose, self.lose = self.lose, None
            if points:
                self.last = (run_id, points)
            if lose != REQUEST:
                super().log_batch(run_id, points, params, tags)
            if lose is not None:
                raise TransientError("lost")

    now = time.time_ns() // 1_000_000
    head = Head("5" * 32, uri, now, this_process(), experiment="benchmark")
    journal = Journal(Path(folder, "redelivery.jsonl"), head)
    sink = Lossy(uri)
    drain = Drain(journal.path, lambda _: sink)
    steps = 0

    def append(count: int) -> None:
        nonlocal steps
        for step in range(steps, steps + count):
            journal.append(Metrics(step, now + step, metrics_of(step, METRICS)))
        steps += count

    def timed(action: Callable[[], bool | None], expected: bool | None) -> float:
        start = time.perf_counter()
        done = action()
        took = (time.perf_counter() - start) * 1e3
        if done is not expected:
            raise RuntimeError(f"{done} instead of {expected}: {drain.ack.problem}")
        return took

    append(history // METRICS)
    timed(drain.run, expected=True)
    times: dict[str, list[float]] = {FRESH: [], ANSWER: [], REQUEST: [], BLIND: []}
    for _ in range(batches):
        append(BATCH_STEPS)
        times[FRESH].append(timed(drain.run, expected=True))
        for case in (ANSWER, REQUEST):
            append(BATCH_STEPS)
            sink.lose = case
            timed(drain.run, expected=False)
            times[case].append(timed(drain.run, expected=True))
        assert sink.last is not None  # noqa: S101  a batch was just sent
        run_id, points = sink.last
        again = partial(sink.log_batch, run_id, points, {}, {})
        times[BLIND].append(timed(again, expected=None))
    return {"times": times, "run_id": drain.ack.run_id, "steps": steps}


def run(stores: Stores, sizes: Sizes, say: Callable[[str], None]) -> Result:
    say(f"making a run of {sizes.history:,} points")
    uri = stores.sqlite()
    value = fresh(
        measure, stores.folder, uri, str(stores.folder), sizes.history, sizes.batches
    ).value
    say("reading it back")
    steps = value["steps"]
    found = found_points(uri, value["run_id"], "", range(steps), METRICS)
    middle = {case: statistics.median(times) for case, times in value["times"].items()}
    rows = [{"case": case, "ms": ms, "ratio": ms / middle[FRESH]} for case, ms in middle.items()]
    checks = [
        Check(f"{case}, relative to a fresh batch", middle[case] / middle[FRESH], "<=", 3)
        for case in (ANSWER, REQUEST)
    ]
    checks.append(
        Check("share of the appended points in the store once", found / (steps * METRICS), ">=", 1)
    )
    note = NOTE.format(
        history=sizes.history,
        batch=BATCH_STEPS * METRICS,
        batches=sizes.batches,
        found=found,
        expected=steps * METRICS,
    )
    raw = [{"case": case, "ms": ms} for case, times in value["times"].items() for ms in times]
    title = "Redelivery after a lost answer"
    return Result(NAME, title, note, COLUMNS, list(rows), checks, list(raw))
