"""A repeated failure is logged once a minute, with the number of records dropped since."""

import logging

import pytest

from orbiter.train._log_throttle import OncePerMinute, quiet_logger
from trainers import reporting, tracked


class Clock:
    """Seconds, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def record(text: str, *args: object, level: int = logging.WARNING) -> logging.LogRecord:
    return logging.LogRecord("n", level, "f", 1, text, args, None)


def test_a_text_passes_once_a_minute_and_then_counts_the_dropped_ones() -> None:
    clock = Clock()
    once = OncePerMinute(clock)
    assert once.filter(record("step %d is odd", 7))
    assert not once.filter(record("step %d is odd", 7))
    clock.now += 59.9
    assert not once.filter(record("step %d is odd", 7))
    clock.now += 0.1
    again = record("step %d is odd", 7)
    assert once.filter(again)
    assert again.getMessage() == "step 7 is odd (2 more like this since then)"
    assert not once.filter(record("step %d is odd", 7))


def test_other_texts_and_levels_are_throttled_separately() -> None:
    once = OncePerMinute(Clock())
    assert once.filter(record("a"))
    assert once.filter(record("b"))
    assert once.filter(record("a", level=logging.ERROR))


def test_a_flood_of_different_texts_is_bounded_in_memory() -> None:
    once = OncePerMinute(Clock())
    assert all(once.filter(record(str(n))) for n in range(5000))
    assert len(once._seen) <= 1000


def test_a_logger_gets_one_filter_however_often_it_is_requested() -> None:
    assert quiet_logger("orbiter.test_repeats") is quiet_logger("orbiter.test_repeats")
    assert len(quiet_logger("orbiter.test_repeats").filters) == 1


async def test_a_thousand_bad_steps_log_one_line(
    sqlite_uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    bad = [({"loss": 1.0}, "soon")] * 1000
    trainer = tracked(sqlite_uri, body=reporting(*bad), delivery="offline")
    trainer.mark_validated()
    await trainer.train()
    logged = [line for line in caplog.messages if "soon" in line]
    assert len(logged) == 1
