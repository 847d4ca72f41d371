"""Format numbers for people: only significant digits, and never `nan%`."""

from math import fsum, inf, isfinite, isnan

from orbiter_mlflow.gate.model import LARGEST, Bound, Sample
from orbiter_mlflow.gate.statistics import mean_of

__all__ = [
    "NONE",
    "bound",
    "change",
    "fraction",
    "is_finite",
    "mean",
    "number",
    "p_value",
    "signed",
]

NONE = "-"
"""Shown if there is no number."""


def is_finite(value: float) -> bool:
    """Whether this is a number, and not one that MLflow stores for an infinity."""
    return isfinite(value) and abs(value) < LARGEST


def mean(sample: Sample) -> float | None:
    """The mean of all values, infinities and NaN included; None without values."""
    values = [*sample.values.values()]
    if all(map(is_finite, values)):
        try:
            return mean_of(values) if values else None
        except OverflowError:  # the gate refuses such values, but the report shows them
            return fsum(value / len(values) for value in values)
    return sum(v if is_finite(v) or isnan(v) else inf if v > 0 else -inf for v in values)


def number(value: float | None, digits: int = 5) -> str:
    """`digits` significant digits: `0.81235`, `12345.7`, `1.2e-07`; `NaN`, `inf`, `-inf`."""
    if value is None:
        return NONE
    if isnan(value):
        return "NaN"
    if not is_finite(value):
        return f"{inf if value > 0 else -inf}"
    value += 0.0  # -0.0 is 0
    if value == int(value) and abs(value) < 1e15:
        return f"{value:.0f}"
    if 1e4 <= abs(value) < 1e9:
        return f"{value:.1f}"
    return f"{value:.{digits}g}"


def signed(value: float | None) -> str:
    """A change, with its sign and four digits: `+0.0123`, `-0.0123`, `0`."""
    text = number(value, 4)
    return f"+{text}" if value is not None and value > 0 else text


def fraction(value: float | None) -> str | None:
    """A change as a percentage: `-1.50%`; None if there is none to show."""
    if value is None or not is_finite(value):
        return None
    percent = value * 100 + 0.0
    if not is_finite(percent):
        return None
    if percent == 0:
        return "0%"
    return f"{percent:+.2f}%" if 0.01 <= abs(percent) < 10_000 else f"{percent:+.2g}%"


def change(absolute: float | None, relative: float | None) -> str:
    """`-0.0123 (-1.50%)`, or the part of it that is known."""
    shown = fraction(relative)
    if absolute is None or not is_finite(absolute) or shown is None:
        return signed(absolute)
    return f"{signed(absolute)} ({shown})"


def bound(shown: Bound | None) -> str | None:
    """`worse by at least 0.012 (98.3%)`; None without a bound.

    A lower bound that is not above 0 shows no loss: `not shown to be worse: by at least -0.003`.
    """
    if shown is None:
        return None
    at, confidence = number(abs(shown.value), 4), _confidence(shown.confidence)
    if shown.kind == "at least" and shown.value <= 0:
        return f"not shown to be worse: by at least {'-' if shown.value else ''}{at} ({confidence})"
    if shown.value < 0:
        return f"better by at least {at} ({confidence})"
    return f"worse by {shown.kind} {at} ({confidence})"


def _confidence(value: float) -> str:
    """`95%`, `98.3%`, `99.95%`: never rounded up to 100%."""
    percent = 100 * value
    return f"{percent:.3g}%" if percent < 99 else f"{min(percent, 99.99):.4g}%"


def p_value(p: float | None, adjusted: float | None) -> str:
    """`0.0031 (0.0062)`: the p-value, and adjusted for the number of tests."""
    if p is None:
        return NONE
    return _p(p) if adjusted is None else f"{_p(p)} ({_p(adjusted)})"


def _p(value: float) -> str:
    return "<0.0001" if 0 <= value < 0.0001 else number(float(f"{value:.3g}"))
