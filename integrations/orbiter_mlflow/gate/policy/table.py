"""What the tables of a policy share: strict validation, and the notation of patterns."""

from pydantic import BaseModel, ConfigDict

__all__ = ["IN_CODE", "Table", "has_pattern"]

IN_CODE = "the policy given in code"
"""The path of a policy that does not come from a file."""


class Table(BaseModel):
    """A table of the file; unknown keys and numbers that are not finite are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def has_pattern(text: str) -> bool:
    """Whether a name in the policy is a pattern."""
    return any(mark in text for mark in "*?[")
