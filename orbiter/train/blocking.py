"""Run the blocking loop of a training library inside an `async def train`.

The loop runs on a thread of its own, so the event loop stays live: a cancellation and the first
Ctrl-C are noticed at once, and the loop is asked to stop instead of training on unseen.
"""

import asyncio
import atexit
import contextvars
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from orbiter.train._log_throttle import quiet_logger

__all__ = ["run_blocking"]

T = TypeVar("T")

_WAKE_INTERVAL = 0.5
"""Seconds. asyncio notices a signal that arrives just before it waits only when it wakes."""

_logger = quiet_logger(__name__)


async def run_blocking(work: Callable[[], T], *, stop: Callable[[], object]) -> T:
    """Run `work()` on a thread of its own and return its result; an exception of it is raised here.

    When the task is cancelled, also by Ctrl-C under `asyncio.run`, this calls `stop()` and waits
    until `work` has returned or raised; then the cancellation goes on. However often the task is
    cancelled, `work` never outlives this call. An exception of a cancelled `work` is logged,
    unless it is a `CancelledError`.

        def loop():
            for step in range(steps):
                if stopped.is_set():
                    return
                ...

        stopped = threading.Event()
        await run_blocking(loop, stop=stopped.set)

    `work` sees the caller's context variables. If a Ctrl-C ends the event loop itself, as under
    `loop.run_until_complete`, `stop` is called when Python exits, and Python waits for `work`.

    Args:
        work: the loop, without arguments.
        stop: tells the loop to end soon, at the latest after its present step. It is called at
            most once, on the event loop's thread, so it must not wait.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    result: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            result.append(work())
        except BaseException as error:
            errors.append(error)
        finally:
            try:
                loop.call_soon_threadsafe(_set_done, ended)
            except RuntimeError:  # the event loop is closed: nobody waits any more
                _log_late(errors)

    context = contextvars.copy_context()
    # A daemon: Python waits for other threads before anything could stop them.
    thread = threading.Thread(target=context.run, args=(run,), name="orbiter-blocking", daemon=True)

    def stop_at_exit() -> None:
        _call(stop)
        thread.join()

    thread.start()
    atexit.register(stop_at_exit)
    try:
        await _wait(ended)
    except GeneratorExit:  # the event loop is gone, and with it the possibility to wait
        _call(stop)
        atexit.unregister(stop_at_exit)
        atexit.register(thread.join)
        raise
    except BaseException:
        _call(stop)
        while not ended.done():
            with suppress(asyncio.CancelledError):  # the first one is on its way already
                await _wait(ended)
        atexit.unregister(stop_at_exit)
        _log_late(errors)
        raise
    atexit.unregister(stop_at_exit)
    if errors:
        raise errors[0]
    return result[0]


async def _wait(ended: asyncio.Future[None]) -> None:
    while not ended.done():
        await asyncio.wait({ended}, timeout=_WAKE_INTERVAL)


def _set_done(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)


def _call(stop: Callable[[], object]) -> None:
    try:
        stop()
    except Exception:
        _logger.exception("stop() of run_blocking failed: the loop runs to its own end")


def _log_late(errors: list[BaseException]) -> None:
    for error in errors:
        if isinstance(error, asyncio.CancelledError):  # how a loop may say that it has stopped
            continue
        _logger.error("the blocking loop failed after it was told to stop", exc_info=error)
