"""Ask a store a question, but wait for the answer only so long."""

import contextvars
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from orbiter_mlflow.delivery.mlflow_client.errors import classified
from orbiter_mlflow.errors import TransientError

_T = TypeVar("_T")

_AGAIN = 30.0
"""Seconds after a question without an answer in which the next ones are given little time."""
_LITTLE = 0.5


class NoAnswerError(Exception):
    """The store gave no answer of its own in time."""


class Asking:
    """Asks one store. After a question that got no answer, the next ones wait only briefly: a sweep
    must not wait for each of its runs.

    Args:
        within: seconds that an answer may take.
    """

    def __init__(self, within: float) -> None:
        self._within = within
        self._silent_since = -_AGAIN

    def ask(self, question: Callable[[], _T], late: Callable[[_T], None] | None = None) -> _T:
        """Return the answer, or raise MLflow's own refusal.

        Args:
            question: calls the store.
            late: gets an answer that came after all, for which nobody waited any more. MLflow
                repeats a request for minutes.

        Raises:
            NoAnswerError: none came in time, or the store is in trouble; a request that is under
                way may still be carried out.
        """
        silent = time.monotonic() < self._silent_since + _AGAIN
        answer: list[_T] = []
        error: list[Exception] = []
        done = threading.Event()
        left = threading.Event()
        one_at_a_time = threading.Lock()
        context = contextvars.copy_context()

        def run() -> None:
            try:
                got = context.run(question)
            except Exception as raised:
                error.append(raised)
            else:
                with one_at_a_time:
                    answer.append(got)
                if left.is_set() and late is not None:
                    context.run(late, got)
            done.set()

        threading.Thread(target=run, name="orbiter-question", daemon=True).start()
        done.wait(min(_LITTLE, self._within) if silent else self._within)
        with one_at_a_time:
            in_time = list(answer)
            if not in_time:
                left.set()
        if in_time:
            self._silent_since = -_AGAIN
            return in_time[0]
        if error and not isinstance(classified(error[0]), TransientError):
            raise error[0]
        if not silent:
            self._silent_since = time.monotonic()
        raise NoAnswerError from (error[0] if error else None)


def is_missing(error: Exception) -> bool:
    """Whether MLflow says that a thing does not exist."""
    code: Any = getattr(error, "error_code", None)
    return bool(code == "RESOURCE_DOES_NOT_EXIST")
