"""System metrics: MLflow's own names and figures, through the journal, and no harm to training."""

import asyncio
import itertools
import logging
import math
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pynvml
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

import nvidia_driver
from journals import entries
from nvidia_driver import Driver, Gpu
from orbiter.train import TrainMetrics
from orbiter_mlflow import MLflowSettings, MLflowTrainerMixin, TrackingError
from orbiter_mlflow.delivery.records import Metrics, Status
from orbiter_mlflow.text.clock import now
from orbiter_mlflow.tracking import lifecycle_status
from orbiter_mlflow.tracking.system_metrics import sampler
from orbiter_mlflow.tracking.system_metrics.machine import Traffic
from orbiter_mlflow.tracking.system_metrics.process_tree import ProcessTree
from orbiter_mlflow.tracking.system_metrics.sampler import Sampler
from orbiter_mlflow.tracking.system_metrics.sources import Sources
from scripts import output, started
from servers import LateStore
from trainers import (
    Backend,
    Body,
    Tracked,
    journals,
    only_journal,
    recorded,
    run_of,
    stored,
    tracked,
    trained,
)
from waiting import eventually

THREAD = "orbiter-system-metrics"
CPU = "system/cpu_utilization_percentage"


def sampling() -> bool:
    return any(thread.name == THREAD for thread in threading.enumerate())


def is_sample(record: object) -> bool:
    return isinstance(record, Metrics) and CPU in record.values


def samples() -> list[Metrics]:
    return [record for record in recorded(Metrics) if is_sample(record)]


def until_sampled(count: int = 3) -> Body:
    """A body of `train` that goes on until the newest journal has as many samples."""

    async def body(trainer: Backend) -> TrainMetrics:
        deadline = time.monotonic() + 60
        while sum(map(is_sample, entries(journals()[-1]))) < count:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        return TrainMetrics(loss=0.5)

    return body


def points(uri: str, trainer: MLflowTrainerMixin, key: str = CPU) -> list[Metric]:
    found = MlflowClient(uri).get_metric_history(stored(uri, trainer).info.run_id, key)
    return sorted(found, key=lambda point: point.step)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


@pytest.fixture(autouse=True)
def _no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without GPUs, wherever the tests run."""
    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(pynvml, "CDLL", _no_library)


def _no_library(name: str) -> Any:
    raise OSError(f"{name}: no such library")


# -- names and figures ---------------------------------------------------------------------------


def mlflows_own(*monitors: BaseMetricsMonitor) -> dict[str, float]:
    values: dict[str, float] = {}
    for monitor in monitors:
        monitor.collect_metrics()
        values |= monitor.aggregate_metrics()
    return values


def test_every_figure_of_mlflows_monitors_is_there_under_its_name() -> None:
    monitors = CPUMonitor(), DiskMonitor(), NetworkMonitor()
    sources = Sources()
    sources.read()
    mlflows_own(*monitors)
    theirs, ours = mlflows_own(*monitors), sources.read()
    assert theirs.keys() <= ours.keys()
    assert {name for name in ours if not name.startswith("process_tree_")} == theirs.keys()
    for name in theirs:
        if "memory" in name or "disk" in name:
            assert ours[name] == pytest.approx(theirs[name], rel=0.2, abs=1.0), name
        elif "percentage" in name:
            assert 0 <= ours[name] <= 100


def test_gpus_have_the_figures_of_mlflows_monitor_and_their_temperature(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    driver = nvidia_driver.install(monkeypatch, Driver(Gpu(), Gpu(utilization=0, temperature=34)))
    theirs, sources = mlflows_own(GPUMonitor()), Sources()
    ours = {name: round(value, 1) for name, value in sources.read().items() if "gpu" in name}
    celsius = {f"gpu_{i}_temperature_celsius": value for i, value in enumerate([61, 34])}
    assert ours == theirs | celsius
    assert (ours["gpu_0_power_usage_watts"], ours["gpu_0_utilization_percentage"]) == (412.3, 73)
    assert driver.opened == 2
    sources.close()
    assert driver.opened == 1  # MLflow's monitor


def test_a_figure_that_a_gpu_does_not_have_is_told_once_and_costs_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refused = {nvidia_driver.POWER: pynvml.NVML_ERROR_NOT_SUPPORTED}
    lost = dict.fromkeys(
        [nvidia_driver.MEMORY, nvidia_driver.UTILIZATION, nvidia_driver.TEMPERATURE],
        pynvml.NVML_ERROR_GPU_IS_LOST,
    )
    nvidia_driver.install(monkeypatch, Driver(Gpu(errors=refused), Gpu(errors=lost)))
    sources = Sources()
    for _ in range(3):
        values = sources.read()
    assert {name for name in values if "gpu" in name} == {
        "gpu_0_utilization_percentage",
        "gpu_0_memory_usage_percentage",
        "gpu_0_memory_usage_megabytes",
        "gpu_0_temperature_celsius",
        "gpu_1_power_usage_percentage",
        "gpu_1_power_usage_watts",
    }
    assert sorted(warnings(caplog)) == [
        "no system metrics of memory of GPU 1: GPU is lost",
        "no system metrics of power of GPU 0: Not Supported",
        "no system metrics of temperature of GPU 1: GPU is lost",
        "no system metrics of use of GPU 1: GPU is lost",
    ]


def test_a_driver_in_trouble_is_told_and_no_driver_is_not(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Sources().close()
    assert warnings(caplog) == []
    driver = nvidia_driver.install(monkeypatch, Driver(Gpu()))
    driver.refuses = pynvml.NVML_ERROR_DRIVER_NOT_LOADED
    Sources().close()
    assert warnings(caplog) == []
    driver.refuses = pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH
    sources = Sources()
    assert "cpu_utilization_percentage" in sources.read()
    sources.close()
    (warning,) = warnings(caplog)
    assert warning.startswith("no system metrics of GPUs: RM has detected")


def test_a_reading_that_fails_is_told_once_and_costs_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(path: str) -> Any:
        raise PermissionError(f"{path} cannot be read")

    sources = Sources()
    whole = sources.read().keys()
    monkeypatch.setattr(psutil, "disk_usage", refused)
    for _ in range(3):
        values = sources.read()
    assert whole - values.keys() == {name for name in whole if name.startswith("disk_")}
    assert warnings(caplog) == ["no system metrics of the disk: / cannot be read"]
    monkeypatch.undo()
    assert values.keys() < sources.read().keys()


def test_counters_of_the_network_may_start_again_appear_and_disappear() -> None:
    traffic = Traffic()
    assert traffic.since_first({"eth0": (1000, 50)}) == (0, 0)
    assert traffic.since_first({"eth0": (1500, 60), "ib0": (7, 7)}) == (507, 17)
    assert traffic.since_first({"eth0": (20, 0)}) == (527, 17)
    assert traffic.since_first({"eth0": (30, 5), "ib0": (9, 9)}) == (546, 31)


# -- the process tree ----------------------------------------------------------------------------

BUSY = "import time\nwhile time.process_time() < 0.5: pass\n"


class Clock:
    """Seconds that pass only when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def busy_seconds(tree: ProcessTree, clock: Clock) -> float:
    """CPU time between the last reading and this one."""
    clock.now += 1000.0
    percent = tree.read()["process_tree_cpu_utilization_percentage"]
    return percent / 100 * 1000 * (psutil.cpu_count() or 1)


@pytest.fixture
def tree() -> tuple[ProcessTree, Clock]:
    clock = Clock()
    found = ProcessTree(clock)
    assert not any("cpu" in name for name in found.read())
    return found, clock


def test_the_cpu_of_a_process_that_ends_between_two_readings_counts_once(
    tree: tuple[ProcessTree, Clock],
) -> None:
    if not psutil.LINUX:
        pytest.skip("only Linux says what children had used")
    subprocess.run([sys.executable, "-c", BUSY], check=True)
    assert 0.45 < busy_seconds(*tree) < 3.0
    with subprocess.Popen([sys.executable, "-c", BUSY]) as child:
        eventually(lambda: sum(psutil.Process(child.pid).cpu_times()[:2]) > 0.3)
        before = busy_seconds(*tree)
        # A zombie is neither lost nor counted again once somebody waits for it.
        eventually(lambda: psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE)
        while_zombie = busy_seconds(*tree)
    afterwards = busy_seconds(*tree)
    assert before > 0.25
    assert 0.45 < before + while_zombie < 3.0
    assert afterwards < 0.25


def test_memory_and_writes_of_children_count(
    tree: tuple[ProcessTree, Clock], tmp_path: Path
) -> None:
    alone = tree[0].read()["process_tree_memory_usage_megabytes"]
    program = (
        "import os, sys\n"
        "held = bytearray(b'x') * 200_000_000\n"
        "with open(sys.argv[1], 'wb') as file:\n"
        "    file.write(held[:5_000_000])\n"
        "    file.flush()\n"
        "    os.fsync(file.fileno())\n"
        "print(flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "written")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        together = tree[0].read()
        assert together["process_tree_memory_usage_megabytes"] > alone + 190
        child.communicate()
    after = tree[0].read()
    assert after["process_tree_memory_usage_megabytes"] < alone + 100
    assert 0 < after["process_tree_memory_usage_percentage"] < 100
    if "process_tree_disk_write_megabytes" in after:
        written = after["process_tree_disk_write_megabytes"]
        assert written >= together["process_tree_disk_write_megabytes"]


def test_processes_may_come_and_go_at_any_moment(tree: tuple[ProcessTree, Clock]) -> None:
    ended = threading.Event()

    def spawn() -> None:
        while not ended.is_set():
            subprocess.run(["true"], check=True)

    spawners = [threading.Thread(target=spawn) for _ in range(2)]
    try:
        for one in spawners:
            one.start()
        for _ in range(100):
            assert 0 <= busy_seconds(*tree) < 60
    finally:  # else they would fork for ever
        ended.set()
        for one in spawners:
            if one.ident is not None:
                one.join()


# -- a run ---------------------------------------------------------------------------------------


async def test_a_run_has_samples_with_their_own_times(sqlite_uri: str) -> None:
    trainer = await trained(tracked(sqlite_uri, body=until_sampled(), system_metrics=0.1))
    found = points(sqlite_uri, trainer)
    run = stored(sqlite_uri, trainer)
    assert len(found) >= 3
    assert [point.step for point in found] == [*range(len(found))]
    times = [point.timestamp for point in found]
    assert all(later - earlier >= 90 for earlier, later in itertools.pairwise(times))
    assert run.info.start_time < times[0]
    assert times[-1] <= run.info.end_time
    keys = {key for key in run.data.metrics if key.startswith("system/")}
    assert {"system/system_memory_usage_megabytes", "system/disk_available_megabytes"} < keys
    assert all(math.isfinite(run.data.metrics[key]) for key in keys)
    assert all(len(points(sqlite_uri, trainer, key)) == len(found) for key in keys)


async def test_no_sample_is_later_than_the_end_of_a_run(
    sqlite_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow() -> int:
        """The time, after which a sampler that goes on has sampled once more."""
        time = now()
        count = len(samples())
        eventually(lambda: not sampling() or len(samples()) > count)
        return time

    monkeypatch.setattr(lifecycle_status, "now", slow)
    trainer = await trained(tracked(sqlite_uri, body=until_sampled(1), system_metrics=0.1))
    assert points(sqlite_uri, trainer)[-1].timestamp <= stored(sqlite_uri, trainer).info.end_time


async def test_nothing_is_sampled_by_default(sqlite_uri: str) -> None:
    trainer = await trained(tracked(sqlite_uri))
    assert not any(key.startswith("system/") for key in stored(sqlite_uri, trainer).data.metrics)
    assert not sampling()


def test_the_default_is_mlflows_interval_and_a_short_run_has_a_sample_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []
    ended = threading.Event()

    class Ended(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout or 0.0)
            if len(waits) == 3:
                ended.set()
            return len(waits) == 3

    class Writer:
        def append(self, record: Any) -> None: ...

    tested = Sampler(True)
    monkeypatch.setattr(tested, "_ended", Ended())
    tested.start(Writer())  # type: ignore[arg-type]  # all of a writer that it uses
    assert ended.wait(60)
    assert waits == [1.0, 10.0, 10.0]


async def test_samples_are_kept_while_the_store_is_down(late_store: LateStore) -> None:
    trainer = tracked(
        late_store.uri, body=until_sampled(), system_metrics=0.1, flush_timeout=0, run_name="late"
    )
    await trained(trainer)
    before = time.time() * 1000
    assert not trainer.delivered
    late_store.appear()
    found = points(late_store.uri, trainer)
    assert len(found) >= 3
    assert found[-1].timestamp <= before


@pytest.mark.parametrize("ending", ["FINISHED", "FAILED", "KILLED"])
async def test_sampling_ends_with_the_run(sqlite_uri: str, ending: str) -> None:
    async def body(trainer: Backend) -> TrainMetrics:
        await until_sampled(1)(trainer)
        if ending == "FAILED":
            raise ValueError("diverged")
        if ending == "KILLED":
            raise KeyboardInterrupt
        return TrainMetrics()

    trainer = tracked(sqlite_uri, body=body, system_metrics=0.1, keep_journals=True)
    trainer.mark_validated()
    assert sampling()
    try:
        await trainer.train()
    except (Exception, KeyboardInterrupt):
        assert ending != "FINISHED"
    eventually(lambda: not sampling())
    assert stored(sqlite_uri, trainer).info.status == ending
    if ending == "FINISHED":  # a later evaluation adds to the run
        await trainer.evaluate()
        assert not sampling()
    written = entries(only_journal())
    (end,) = [i for i, record in enumerate(written) if isinstance(record, Status)]
    assert all(i < end for i, record in enumerate(written) if is_sample(record))


async def test_a_trainer_that_is_gone_samples_no_more(sqlite_uri: str) -> None:
    trainer = tracked(sqlite_uri, system_metrics=0.1)
    await trainer.evaluate()
    eventually(lambda: samples())
    assert sampling()
    del trainer
    eventually(lambda: not sampling())


async def test_a_clock_that_goes_back_disturbs_no_order(
    sqlite_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = itertools.chain([9_000_000, 5_000_000, 5_000_000], itertools.repeat(4_000_000))
    monkeypatch.setattr(sampler, "now", lambda: next(times))
    trainer = await trained(tracked(sqlite_uri, body=until_sampled(5), system_metrics=0.1))
    found = points(sqlite_uri, trainer)
    assert [point.step for point in found] == [*range(len(found))]
    assert [point.timestamp for point in found[:4]] == [9_000_000, 5_000_000, 5_000_000, 4_000_000]
    assert stored(sqlite_uri, trainer).data.metrics[CPU] == found[-1].value


async def test_a_resumed_run_goes_on_with_the_steps_of_its_samples(sqlite_uri: str) -> None:
    async def body(trainer: Backend) -> TrainMetrics:
        for step in range(20):
            trainer.report({"loss": 1.0}, step=step)
        return await until_sampled()(trainer)

    first = await trained(tracked(sqlite_uri, body=body, system_metrics=0.1))
    before = points(sqlite_uri, first)
    how: dict[str, Any] = {"system_metrics": 0.1, "run_id": first.run_id}
    second = await trained(tracked(sqlite_uri, body=body, **how))
    found = points(sqlite_uri, second)
    assert len(found) >= len(before) + 3
    assert [point.step for point in found] == [*range(len(found))]
    assert [point.timestamp for point in found] == sorted(point.timestamp for point in found)
    losses = points(sqlite_uri, second, "train/loss")
    assert sorted({point.step for point in losses}) == [*range(40)]


def test_the_process_ends_while_it_samples(tmp_path: Path, sqlite_uri: str) -> None:
    script = """
    trainer = validated(system_metrics=0.1, delivery="offline")
    kept = trainer
    while not any(b"cpu_util" in path.read_bytes() for path in Path("spool").glob("*.jsonl")):
        time.sleep(0.02)
    """
    environ = {"MLFLOW_TRACKING_URI": sqlite_uri, "ORBITER_MLFLOW_SPOOL_DIR": "spool"}
    with started(script, tmp_path, environ=environ) as process:
        assert output(process) == ""
    (journal,) = (tmp_path / "spool").glob("*.jsonl")
    assert any(map(is_sample, entries(journal)))


async def test_no_thread_to_be_had_costs_the_samples_only(
    sqlite_uri: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = threading.Thread.start

    def start(self: threading.Thread) -> None:
        if self.name == THREAD:
            raise RuntimeError("can't start new thread")
        real(self)

    monkeypatch.setattr(threading.Thread, "start", start)
    trainer = await trained(tracked(sqlite_uri, system_metrics=0.1))
    assert run_of(sqlite_uri, trainer.run_id).info.status == "FINISHED"
    assert warnings(caplog) == ["no system metrics: can't start new thread"]


async def test_an_error_of_the_sampling_itself_stays_on_its_thread(
    sqlite_uri: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> int:
        raise OSError("no clock")

    monkeypatch.setattr(sampler, "now", broken)
    trainer = tracked(sqlite_uri, system_metrics=0.1)
    trainer.mark_validated()
    eventually(lambda: not sampling())
    await trainer.train()
    assert stored(sqlite_uri, trainer).info.status == "FINISHED"
    assert warnings(caplog) == ["system metrics failed; the run goes on without them"]


# -- where they are not to be had ----------------------------------------------------------------


@pytest.mark.parametrize("module", ["psutil", "pynvml"])
def test_a_missing_package_is_refused_at_construction(
    monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(TrackingError, match=r"pip install 'orbiter\[system\]'") as caught:
        Tracked(mlflow=MLflowSettings(system_metrics=True))
    assert module in str(caught.value)
    Tracked(mlflow=MLflowSettings(system_metrics=True, enabled=False))
    Tracked(mlflow=MLflowSettings())
    for name, text in {"RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, text)
    Tracked(mlflow=MLflowSettings(system_metrics=True))


async def test_a_trainer_whose_construction_was_not_ours_is_tracked_without(
    sqlite_uri: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Own(Tracked):
        def __init__(self) -> None:
            Backend.__init__(self)

    monkeypatch.setitem(sys.modules, "psutil", None)
    monkeypatch.setenv("ORBITER_MLFLOW_SYSTEM_METRICS", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", sqlite_uri)
    trainer = await trained(Own())
    assert stored(sqlite_uri, trainer).info.status == "FINISHED"
    (warning,) = warnings(caplog)
    assert "pip install 'orbiter[system]'" in warning


def test_other_ranks_sample_nothing(sqlite_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {"RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, text)
    trainer = tracked(sqlite_uri, system_metrics=0.1)
    trainer.mark_validated()
    assert not sampling()
    assert journals() == []
