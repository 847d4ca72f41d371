"""What a reward function is, as a digest."""

from collections.abc import Callable
from typing import Any

from orbiter.train.source_digest import source_digest


def between(low: int | None, high: int | None) -> Callable[[int], bool]:
    def reward(value: int) -> bool:
        return (low is None or low <= value) and (high is None or value <= high)

    return reward


def test_a_value_of_an_enclosing_function_that_is_none_has_its_place() -> None:
    bounds: list[tuple[Any, Any]] = [(None, 1), (1, None), (None, None), (1, 1)]
    assert len({source_digest(between(*pair)) for pair in bounds}) == 4
    assert source_digest(between(None, 1)) == source_digest(between(None, 1))


def test_a_value_that_is_not_assigned_yet_is_no_error() -> None:
    def reward() -> int:
        return later

    early = source_digest(reward)
    later = 1
    assert source_digest(reward) != early
    assert reward() == 1
