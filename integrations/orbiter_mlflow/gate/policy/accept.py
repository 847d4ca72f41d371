"""`[[accept]]` of a policy: a regression that people have accepted until a day."""

from datetime import date
from typing import Annotated

from pydantic import AfterValidator, Field, field_validator

from orbiter_mlflow.gate.policy.table import Table, has_pattern

__all__ = ["Acceptance"]


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty: a reader of the report needs it")
    return text


_Text = Annotated[str, AfterValidator(_not_blank)]


class Acceptance(Table):
    """`[[accept]]`: until a day, a metric that is worse than the policy allows is accepted.

    A value beyond a bound or past tolerance is accepted; a metric that is missing, not finite or
    cannot be compared never is.
    """

    metric: str = Field(min_length=1)
    """Its key, or the name of a comparison example by example, or both if they are the same; a
    pattern would accept what nobody has looked at."""
    until: date
    """The last day on which it counts, in UTC."""
    reason: _Text
    by: _Text
    """The person who accepted it."""

    @field_validator("metric")
    @classmethod
    def _one_metric(cls, metric: str) -> str:
        if has_pattern(metric):
            raise ValueError(f"{metric!r} is a pattern: write an [[accept]] for each metric")
        return metric
