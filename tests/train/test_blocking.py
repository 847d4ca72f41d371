"""Blocking loops on a thread: what ends them, and that the event loop stays live."""

import asyncio
import contextvars
import logging
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mlflow import MlflowClient

from orbiter.train.blocking import run_blocking
from scripts import ended, started
from waiting import eventually


class Loop:
    """A loop of steps that ends when it is told to; `stepped` is set after each step."""

    def __init__(self, *, fails: bool = False) -> None:
        self.steps = 0
        self.alive = False
        self.stopped = threading.Event()
        self.stepped = threading.Event()
        self._fails = fails

    def __call__(self) -> int:
        self.alive = True
        try:
            while not self.stopped.wait(0.001):
                self.steps += 1
                self.stepped.set()
            if self._fails:
                raise OSError("no space left for the checkpoint")
            return self.steps
        finally:
            self.alive = False


async def stepping(loop: Loop) -> "asyncio.Task[int]":
    """The task of a loop that has begun."""
    task = asyncio.create_task(run_blocking(loop, stop=loop.stopped.set))
    await asyncio.to_thread(loop.stepped.wait, 60)
    return task


async def test_the_result_and_an_exception_come_back() -> None:
    def fail() -> None:
        raise KeyError("loss")

    assert await run_blocking(lambda: 7, stop=lambda: None) == 7
    with pytest.raises(KeyError, match="loss"):
        await run_blocking(fail, stop=lambda: None)


async def test_the_event_loop_stays_live_and_the_work_has_a_thread_of_its_own() -> None:
    loop = Loop()
    task = await stepping(loop)
    seen = loop.steps
    await asyncio.to_thread(eventually, lambda: loop.steps >= seen + 10)
    loop.stopped.set()
    assert await task >= 10
    names: list[str] = []
    await run_blocking(lambda: names.append(threading.current_thread().name), stop=lambda: None)
    assert names == ["orbiter-blocking"]


async def test_the_work_sees_the_context_of_its_caller() -> None:
    variable = contextvars.ContextVar("variable", default="none")
    variable.set("caller")
    assert await run_blocking(variable.get, stop=lambda: None) == "caller"


async def test_cancellation_stops_the_work_and_waits_for_its_end() -> None:
    loop = Loop()
    task = await stepping(loop)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert loop.stopped.is_set()
    assert not loop.alive


async def test_the_work_never_outlives_a_task_that_is_cancelled_again_and_again() -> None:
    released = threading.Event()
    stops: list[None] = []

    def work() -> None:
        released.wait(60)

    task = asyncio.create_task(run_blocking(work, stop=lambda: stops.append(None)))
    await asyncio.sleep(0)
    for _ in range(5):
        task.cancel()
        for _ in range(3):
            await asyncio.sleep(0)
    assert not task.done()
    released.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stops == [None]


async def test_a_timeout_is_the_timeout_of_its_caller() -> None:
    loop = Loop()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await run_blocking(loop, stop=loop.stopped.set)
    assert not loop.alive


async def test_what_fails_after_the_stop_is_logged_and_does_not_hide_the_cancellation(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loop = Loop(fails=True)
    task = await stepping(loop)
    task.cancel()
    with pytest.raises(asyncio.CancelledError), caplog.at_level(logging.ERROR):
        await task
    (record,) = caplog.records
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], OSError)


async def test_a_stop_that_fails_is_logged_and_the_work_ends_by_itself(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loop = Loop()

    def stop() -> None:
        loop.stopped.set()
        raise RuntimeError("no such flag")

    task = asyncio.create_task(run_blocking(loop, stop=stop))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError), caplog.at_level(logging.ERROR):
        await task
    assert "stop() of run_blocking failed" in caplog.text
    assert not loop.alive


async def test_a_call_that_is_given_up_stops_the_work() -> None:
    loop = Loop()
    call = run_blocking(loop, stop=loop.stopped.set)
    call.send(None)
    eventually(lambda: loop.alive)
    call.close()
    eventually(lambda: not loop.alive)


# -- processes -------------------------------------------------------------------------------------

STEPS = """
import threading
from orbiter.train.blocking import run_blocking

stopped = threading.Event()

def loop(trainer):
    for step in range(1_000_000):
        trainer.report({{"step": step}}, step=step)
        if step == 5:
            ready()
        if stopped.wait(0.01):
            Path("steps").write_text(str(step))
            return

class Blocking(Tracked):
    async def train(self):
        await run_blocking(lambda: loop(self), stop=stopped.set)
        return TrainMetrics()

trainer = Blocking(mlflow=MLflowSettings(tracking_uri="sqlite:///mlflow.db"))
trainer.check_agent(None)
trainer.mark_validated()
{run}
"""


@contextmanager
def killed(process: "subprocess.Popen[str]") -> Iterator[None]:
    """Leave no process behind, whatever fails."""
    try:
        yield
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    "run",
    [
        pytest.param("asyncio.run(trainer.train())", id="asyncio.run"),
        # Here a Ctrl-C is a KeyboardInterrupt that leaves the event loop with its task behind.
        pytest.param(
            "asyncio.new_event_loop().run_until_complete(trainer.train())", id="a loop by hand"
        ),
    ],
)
def test_one_ctrl_c_ends_the_run_killed_within_one_step(
    run: str, own_folder: Path, empty_store: Path
) -> None:
    (own_folder / "mlflow.db").write_bytes(empty_store.read_bytes())
    # As a terminal has it: a shell may have started the tests with the signal ignored.
    own = "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    process = started(own + STEPS.format(run=run), own_folder)
    with killed(process):
        eventually(lambda: (own_folder / "ready").exists())
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT, err
    steps = int((own_folder / "steps").read_text())
    assert steps < 1_000
    client = MlflowClient(f"sqlite:///{own_folder}/mlflow.db")
    stored = eventually(lambda: ended(client))
    assert stored.info.status == "KILLED"
    history = client.get_metric_history(stored.info.run_id, "train/step")
    assert max(metric.step for metric in history) == steps
