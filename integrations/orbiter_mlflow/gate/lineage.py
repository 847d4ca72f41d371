"""The blessings up to the baseline, and its age: the data of drift and history."""

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["BaselineAge", "PastBlessing", "Summary"]


@dataclass(frozen=True, slots=True)
class Summary:
    """The values of one metric in one blessing; `sd` is None for a single value."""

    n: int
    mean: float
    sd: float | None = None


@dataclass(frozen=True, slots=True)
class PastBlessing:
    """A blessing, for history and drift.

    Attributes:
        label: unique among those of a report.
        at: when it was blessed: UTC, in ISO 8601; empty for runs that were never blessed.
        by: the person who blessed it; empty if that is not known.
        commit: the git commit of all its runs; empty if they have none, or several.
        metrics: key -> its values, at the point that the policy names.
        lowered: metrics that it was allowed to lower past their tolerance.
        differs: fields in which it differs from the newest, though the policy requires equality.
    """

    label: str
    metrics: Mapping[str, Summary]
    at: str = ""
    by: str = ""
    reason: str = ""
    commit: str = ""
    lowered: tuple[str, ...] = ()
    differs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BaselineAge:
    """How old the baseline is.

    Attributes:
        at: when it was blessed, or else when its newest run started: UTC, in ISO 8601.
        days: days since then.
        commits: commits from its code to the candidate's; None if that is not known.
        warnings: limits of the policy that it exceeds, one sentence each.
    """

    at: str
    days: float
    commits: int | None = None
    warnings: tuple[str, ...] = ()
