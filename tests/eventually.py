"""Waiting for what other threads and processes bring about: for a condition, never for a time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(condition: Callable[[], T], within: float = 30.0) -> T:
    """The first answer of `condition` that is true.

    Raises:
        AssertionError: none was, within so many seconds.
    """
    deadline = time.monotonic() + within
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"still {answer!r} after {within:g} s"
        time.sleep(0.01)
    return answer
