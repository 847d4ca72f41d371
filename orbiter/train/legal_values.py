"""Legal values of the settings of a backend: tests for them, and their descriptions."""

import math
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from reprlib import repr as shortened
from typing import Any

from orbiter.train.states import TrainerError

Rule = tuple[Callable[[Any], bool], str]
"""A test for legal values, and their description."""


def is_int(value: Any, least: int) -> bool:
    """Whether a value is an int of at least `least`."""
    return not isinstance(value, bool) and isinstance(value, Integral) and int(value) >= least


def is_real(value: Any) -> bool:
    """Whether a value is a finite number."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an int past what a float can hold
        return False


INT_FROM_0: Rule = (lambda value: is_int(value, 0), "an int of at least 0")
INT_FROM_1: Rule = (lambda value: is_int(value, 1), "an int of at least 1")
NUMBER_FROM_0: Rule = (lambda value: is_real(value) and value >= 0, "a finite number of at least 0")
ABOVE_0: Rule = (lambda value: is_real(value) and value > 0, "a finite number above 0")
A_STR: Rule = (lambda value: isinstance(value, str), "a str")
A_DICT: Rule = (lambda value: isinstance(value, dict), "a dict")


def or_none(rule: Rule, meaning: str) -> Rule:
    """The rule for a setting that may also be None, which means `meaning`."""
    is_legal, expected = rule
    return lambda value: value is None or is_legal(value), f"{expected}, or None for {meaning}"


def require_legal(config: Any, rules: Mapping[str, Rule]) -> None:
    """Require a config with a legal value for each setting that has a rule.

    Raises:
        TrainerError: naming the first one without, its value and what is expected.
    """
    for name, (is_legal, expected) in rules.items():
        value = getattr(config, name)
        if not is_legal(value):
            raise TrainerError(f"config {name}={shortened(value)}: expected {expected}")
