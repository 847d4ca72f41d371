"""`[baseline]` of a policy: the runs to compare with."""

from typing import Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from orbiter_mlflow.gate.policy.table import IN_CODE, Table

__all__ = ["MIN_BLESSINGS", "Baseline"]

MIN_BLESSINGS = 4
"""Blessings that a trend takes: with fewer, a line fits any values."""


class Baseline(Table):
    """`[baseline]`: the runs to compare with, as exactly one of `run`, `filter` and `file`.

    `Policy.for_one` sets none of them: its caller has the runs.
    """

    run: str | None = Field(default=None, min_length=1)
    """One run: its id, the start of its id, or its name."""
    filter: str | None = Field(default=None, min_length=1)
    """An MLflow search filter: `tags.baseline = 'main'`."""
    file: str | None = Field(default=None, min_length=1)
    """A file that `orbiter-mlflow bless --file` wrote."""
    pool: int = Field(default=1, ge=1)
    """With a filter: the number of blessings, the newest first, that are compared with as one."""
    last: int = Field(default=10, ge=1)
    """The number of blessings to read for drift and history; the newest of them is the baseline."""
    min_runs: int = Field(default=3, ge=1)
    """Minimum number of runs for a baseline; with `run`, one is enough."""
    drift: bool = False
    """Fail on a decline over the last blessings too, which no single one of them shows."""
    max_age_days: float | None = Field(default=None, gt=0)
    """Warn if the baseline was blessed longer ago."""
    max_age_commits: int | None = Field(default=None, ge=0)
    """Warn if there are more commits between the baseline's code and the candidate's."""

    @field_validator("file")
    @classmethod
    def _path(cls, file: str | None) -> str | None:
        if file is not None and "\0" in file:
            raise ValueError("is no path: it contains a NUL character")
        return file

    @model_validator(mode="after")
    def _one_source(self, info: ValidationInfo) -> Self:
        if info.context == IN_CODE:
            return self
        sources = [name for name in ("run", "filter", "file") if getattr(self, name) is not None]
        if len(sources) != 1:
            found = " and ".join(sources) if sources else "none of them"
            raise ValueError(f"needs one of run, filter and file, but has {found}")
        if self.pool > 1 and self.filter is None:
            raise ValueError(
                f"pool = {self.pool} needs a filter: {sources[0]} names a single blessing"
            )
        if self.pool > self.last:
            raise ValueError(
                f"pool = {self.pool} compares with more blessings than last = {self.last} reads: "
                "raise last or lower pool"
            )
        if self.drift and self.run is not None:
            raise ValueError("drift = true needs a filter or a file: a run has no former blessings")
        if self.drift and self.last < MIN_BLESSINGS:
            raise ValueError(
                f"drift = true needs {MIN_BLESSINGS} blessings or more: raise last = {self.last}"
            )
        return self

    @property
    def needed(self) -> int:
        """Number of runs that make a baseline: `min_runs`, or 1 with `run`."""
        return 1 if self.run is not None else self.min_runs
