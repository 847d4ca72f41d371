"""A trainer, a server behind a proxy, and checks of the store afterwards."""

import asyncio
import gc
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run, ViewType

from orbiter.train import TrainConfig, TrainMetrics
from orbiter_mlflow.delivery.ack import Ack, read_ack
from orbiter_mlflow.delivery.spool import journals, remove
from orbiter_mlflow.delivery.spool_folder import default_spool
from proxy import Proxy
from trainers import Backend, Body, Tracked, tracked
from waiting import eventually

POINTS = 300

Event = Callable[[Tracked], Awaitable[None]]


def expected(points: int = POINTS) -> list[tuple[int, float]]:
    """The history of `train/loss` that `training` leaves, apart from its result."""
    return [(step, step / 7) for step in range(points)]


def training(middle: Event | None = None, points: int = POINTS) -> Body:
    """A `train` that runs `middle` halfway through."""

    async def body(trainer: Backend) -> TrainMetrics:
        assert isinstance(trainer, Tracked)
        for step in range(points):
            if step == points // 2 and middle is not None:
                await middle(trainer)
            trainer.report({"loss": step / 7}, step=step)
        return TrainMetrics(loss=points / 7, accuracy=0.5, steps=points)

    return body


@dataclass
class Scene:
    """One experiment on a real server, reached through a proxy."""

    proxy: Proxy
    server: str
    experiment: str
    journals: list[Path] = field(default_factory=list)

    def __enter__(self) -> "Scene":
        return self

    def __exit__(self, *_: object) -> None:
        # Leftovers of a test must not keep the delivery busy, nor delay the exit of the process.
        for journal in journals(default_spool()):
            remove(journal)

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.server)

    def trainer(
        self,
        middle: Event | None = None,
        config: TrainConfig | None = None,
        data: Any = None,
        **settings: Any,
    ) -> Tracked:
        """A validated trainer; its delivery goes through the proxy."""
        given = {"tracking_uri": self.proxy.uri, "experiment": self.experiment} | settings
        trainer = tracked(given.pop("tracking_uri"), config, training(middle), **given)
        if data is not None:
            trainer.check_dataset(data)
        trainer.mark_validated()
        self.journals.append(journal_of(trainer))
        return trainer

    def runs(self, view: int = ViewType.ACTIVE_ONLY) -> list[Run]:
        found = self.client.get_experiment_by_name(self.experiment)
        return (
            [] if found is None else list(self.client.search_runs([found.experiment_id], "", view))
        )

    def run(self) -> Run:
        (run,) = self.runs()
        return run

    def history(self, run: Run | None = None, key: str = "train/loss") -> list[tuple[int, float]]:
        found = self.client.get_metric_history((run or self.run()).info.run_id, key)
        return sorted((metric.step, metric.value) for metric in found)

    def assert_whole(self, run: Run | None = None, status: str = "FINISHED") -> Run:
        """Check for one run with each point once, the right status, and nothing refused or lost."""
        run = run or self.run()
        assert self.history(run) == expected()
        result = [(POINTS, POINTS / 7)] if status == "FINISHED" else []
        assert self.history(run, "train/final/loss") == result
        assert run.info.status == status
        tags = run.data.tags
        assert tags["orbiter.state"] == ("completed" if status == "FINISHED" else "failed")
        assert not {"orbiter.quarantined", "orbiter.damaged", "orbiter.lost"} & set(tags)
        assert run.data.params["epochs"] == "1"
        return run


def journal_of(trainer: Tracked) -> Path:
    writer = trainer._tracked.writer
    assert writer is not None
    return writer.path


def ack_of(trainer: Tracked) -> Ack:
    return read_ack(journal_of(trainer))


async def soon(condition: Callable[[], Any], within: float = 30.0) -> None:
    """Wait for a condition in the event loop."""
    await asyncio.to_thread(eventually, condition, within)


async def in_trouble(trainer: Tracked) -> None:
    """Wait until delivery has met the fault."""
    await soon(lambda: ack_of(trainer).problem)


async def arrived(trainer: Tracked) -> None:
    """Wait until everything recorded is in the store."""
    await soon(lambda: trainer.delivered)


def all_removed(folder: Path | None = None) -> bool:
    """Whether all journals of a spool are delivered and removed."""
    gc.collect()
    return not list((folder or default_spool()).glob("*.jsonl"))


def delivery_processes(trainer_pid: int | None = None) -> list[int]:
    """The delivery processes that were started by a process, by default this one."""
    starter = str(trainer_pid or os.getpid()).encode()
    return [pid for pid, arguments in _all_delivery_processes() if arguments[0] == starter]


def shared_delivery_processes(folder: Path | None = None) -> list[int]:
    """The delivery processes that trainings with a spool may share."""
    spool = os.fsencode(folder or default_spool())
    return [pid for pid, arguments in _all_delivery_processes() if arguments[2].startswith(spool)]


def _all_delivery_processes() -> list[tuple[int, list[bytes]]]:
    """Pid and arguments of each."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes().split(b"\0")
            launcher = os.getsid(int(path.name)) == int(path.name)  # it forks, and ends at once
        except OSError:
            continue
        if b"orbiter_mlflow.delivery.hosts.child" in command and not launcher:
            module = command.index(b"orbiter_mlflow.delivery.hosts.child")
            found.append((int(path.name), command[module + 1 :]))
    return found
