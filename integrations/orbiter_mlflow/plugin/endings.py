"""How runs end that a process leaves open, and the true status where MLflow would set another.

MLflow sets the active run FINISHED at the exit of the process, whatever ended it. Here a script
that an exception ends leaves FAILED, one that Ctrl-C ends KILLED. Delivery notices a process that
dies without a word.
"""

import sys
import threading
import weakref

from orbiter_mlflow.delivery.hosts import base  # noqa: F401  its finalizer must run after ours
from orbiter_mlflow.delivery.hosts.exits import RUNS, at_worker_exit
from orbiter_mlflow.text.clock import now


class _Exit:
    """Stands for the exit of this process."""


_exit = _Exit()
_watched = threading.Lock()
_finalizer: weakref.finalize | None = None  # type: ignore[type-arg]  # generic only in stubs


def watch() -> None:
    """End the runs of this process at its exit."""
    global _finalizer
    with _watched:
        if _finalizer is None:
            # At exit the finalizer made last runs first: this one before the wait for delivery.
            _finalizer = weakref.finalize(_exit, _end_all)
            at_worker_exit(_exit, lambda _: _end_all(), RUNS)


def true_status(status: str | None) -> str | None:
    """The status to record where MLflow sets `status`."""
    if status == "FINISHED" and not threading.main_thread().is_alive():
        return _of_the_process() or status
    return status


def _of_the_process() -> str | None:
    """The status of a run that was under way when an exception ended this process; None if none
    did, or nobody can know: an interactive session goes on after an exception."""
    if hasattr(sys, "ps1"):
        return None
    error = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    if error is None:
        return None
    return "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"


def _end_all() -> None:
    from orbiter_mlflow.plugin.runs import all_runs

    status, at = _of_the_process(), now()
    for runs in all_runs():
        for run in runs.open_runs():
            run.end(status, at)
