"""One machine of a fleet: writes the journals of its trainers and delivers them by the real drain.

A thread writes what the trainers would, one batch of metrics each few seconds; the delivery loop is
that of the delivery process.
"""

import resource
import threading
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.contenders import EXPERIMENT, PREFIX
from benchmarks.meeting import Meeting
from benchmarks.processes import percentile
from benchmarks.sizes import METRICS
from benchmarks.stores import metrics_of
from orbiter_mlflow.delivery import retry, spool
from orbiter_mlflow.delivery.ack import read_ack
from orbiter_mlflow.delivery.batches import MetricPoint
from orbiter_mlflow.delivery.hosts.drain_loop import DrainLoop
from orbiter_mlflow.delivery.journal import Journal
from orbiter_mlflow.delivery.mlflow_sink import MLflowSink
from orbiter_mlflow.delivery.process_identity import this_process
from orbiter_mlflow.delivery.records import Close, Head, Metrics, Params, Status

PACED, WRITING, BACKLOG, ENDING = "paced", "writing", "backlog", "ending"
"""The phases, before each of which the machines wait for each other: the trainers report one step a
period; a backlog is written; it is delivered; the runs end."""
_OPEN_FILES = 4_096
_PARAMS = 20
_POLL = 0.01


class CountingSink(MLflowSink):
    """Counts the requests that carry metrics, and how old each point is once it is in the store."""

    def __init__(self, tracking_uri: str) -> None:
        super().__init__(tracking_uri)
        self.requests = 0
        self.points = 0
        self.lags: list[float] = []

    def log_batch(
        self,
        run_id: str,
        points: Sequence[MetricPoint],
        params: dict[str, str],
        tags: dict[str, str],
    ) -> None:
        super().log_batch(run_id, points, params, tags)
        if points:
            now = time.time() * 1000
            self.requests += 1
            self.points += len(points)
            self.lags.extend((now - time_) / 1000 for time_ in {point.time for point in points})


class Machine:
    """The trainers of one machine.

    Args:
        uri: the tracking URI.
        folder: the spool.
        trainers: how many.
        period: seconds between two steps of a trainer.
    """

    def __init__(self, uri: str, folder: Path, trainers: int, period: float) -> None:
        self._period = period
        self._steps = [0] * trainers
        self._sinks: list[CountingSink] = []
        self._loop = DrainLoop(self._open)
        self._journals: list[Journal] = []
        for number in range(trainers):
            identity = uuid.uuid4().hex, uri, _now(), this_process()
            head = Head(*identity, experiment=EXPERIMENT, keep=True)  # its ack is read to the end
            journal = spool.open_journal(folder, head)
            journal.append(Params({f"param{p}": f"{number}.{p}" for p in range(_PARAMS)}))
            self._journals.append(journal)
            self._loop.add(journal.path, uri)

    def _open(self, uri: str) -> CountingSink:
        self._sinks.append(CountingSink(uri))
        return self._sinks[-1]

    def deliver_all(self) -> list[str | None]:
        """Turn the loop until all that is written is in the store; the ids of the runs."""
        while True:
            self._loop.turn()
            acks = [read_ack(journal.path) for journal in self._journals]
            journals = zip(self._journals, acks, strict=True)
            if all(ack.offset >= journal.size for journal, ack in journals):
                return [ack.run_id for ack in acks]
            time.sleep(_POLL)

    def pace(self, seconds: float) -> dict[str, int]:
        """Train for some seconds of real time, and deliver meanwhile as a delivery process does.

        Returns:
            Requests and points within that time.
        """
        deadline = time.monotonic() + seconds
        writer = threading.Thread(target=self._write_until, args=(deadline,), daemon=True)
        writer.start()
        while time.monotonic() < deadline:
            time.sleep(retry.IDLE)
            self._loop.turn()
        within = self._counts()
        writer.join()
        return within

    def _write_until(self, deadline: float) -> None:
        """Each trainer reports once a period, one after the other, spread over the period."""
        pause = self._period / len(self._journals)
        due = time.monotonic()
        while True:
            for number in range(len(self._journals)):
                due += pause
                if due > deadline:
                    return
                time.sleep(max(0.0, due - time.monotonic()))
                self._report(number)

    def write_backlog(self, steps: int) -> None:
        """Write steps of all trainers at once, as if they had been offline."""
        for number in range(len(self._journals)):
            for _ in range(steps):
                self._report(number)

    def end(self) -> None:
        """End all runs."""
        for journal in self._journals:
            journal.append(Status("FINISHED", _now()))
            journal.append(Close())

    def close(self) -> None:
        """Close the journals' files."""
        for journal in self._journals:
            journal.close()

    def _report(self, number: int) -> None:
        step = self._steps[number]
        self._steps[number] += 1
        values = {f"{PREFIX}{key}": value for key, value in metrics_of(step, METRICS).items()}
        self._journals[number].append(Metrics(step, _now(), values))

    def _counts(self) -> dict[str, int]:
        return {
            "requests": sum(sink.requests for sink in self._sinks),
            "points": sum(sink.points for sink in self._sinks),
        }

    def counted(self) -> dict[str, Any]:
        """Requests, points and the percentiles of their age since the last call."""
        row: dict[str, Any] = dict(self._counts())
        lags = [lag for sink in self._sinks for lag in sink.lags]
        for sink in self._sinks:
            sink.requests = sink.points = 0
            sink.lags.clear()
        return row | {"lag_p50": percentile(lags, 50), "lag_p99": percentile(lags, 99)}

    @property
    def steps(self) -> list[int]:
        """Steps that each trainer has written."""
        return list(self._steps)


def operate(
    uri: str,
    folder: str,
    machines: int,
    index: int,
    trainers: int,
    period: float,
    seconds: float,
    backlog: int,
) -> dict[str, Any]:
    """Take part in all phases; runs in a process of its own."""
    _allow_open_files()
    meeting = Meeting(folder, machines)
    spool_folder = Path(folder, f"spool-{index}")
    spool_folder.mkdir(mode=0o700)
    machine = Machine(uri, spool_folder, trainers, period)
    start = time.time()
    runs = machine.deliver_all()
    created = {"start": start, "end": time.time()}

    meeting.wait(PACED, index)
    within = machine.pace(seconds)
    machine.deliver_all()
    paced = machine.counted() | {"within": within}

    meeting.wait(WRITING, index)
    machine.write_backlog(backlog)
    meeting.wait(BACKLOG, index)
    start = time.time()
    machine.deliver_all()
    late = machine.counted() | {"start": start, "end": time.time()}
    meeting.wait(ENDING, index)
    machine.end()
    machine.deliver_all()
    machine.close()
    return {"runs": runs, "steps": machine.steps, "created": created, PACED: paced, BACKLOG: late}


def _now() -> int:
    return time.time_ns() // 1_000_000


def _allow_open_files() -> None:
    """A journal takes three descriptors, and the usual limit is 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
