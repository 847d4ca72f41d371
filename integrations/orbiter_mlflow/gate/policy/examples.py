"""`[examples."<name>"]` of a policy: compare tables of examples instead of means of runs."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from orbiter_mlflow import names
from orbiter_mlflow.gate.model import Severity
from orbiter_mlflow.gate.policy.table import Table, has_pattern
from orbiter_mlflow.text import artifact_paths

__all__ = ["ExamplesPolicy"]

_Column = Annotated[str, Field(min_length=1)]


class ExamplesPolicy(Table):
    """`[examples."<name>"]`: a table of examples, its columns, and the limit.

    The name is for people, such as the key of the metric that is the mean of the scores.
    """

    direction: Literal["higher", "lower"]
    score: _Column
    """The column with the scores: true or false, 0 or 1, or other numbers."""
    table: str = Field(default="eval", min_length=1)
    """The name given to `log_eval_table`, or the path of an artifact that ends in `.json`."""
    id: _Column = "id"
    """The column that names the examples; `prompt` by default with `rollouts`."""
    rollouts: bool = False
    """Whether to compare the rollouts of the newest evaluation in place of a table: `score` names a
    reward, and the score of a prompt is the mean over its completions."""
    max_drop: float = Field(default=0.0, ge=0)
    """Largest loss of the mean score, in its own unit."""
    test: Literal["auto", "mcnemar", "permutation"] = "auto"
    """`auto`: McNemar's for one run a side with scores of 0 and 1, else the permutation test."""
    min_overlap: float = Field(default=1.0, gt=0, le=1)
    """Smallest part of the examples that all runs must have, of those that any has."""
    slices: tuple[_Column, ...] = Field(default=(), strict=False)
    """Columns whose values part the examples into slices, which the report shows."""
    fail_on_slices: bool = False
    """Whether a slice past tolerance, and significantly so, fails as the whole does."""
    severity: Severity = "fail"

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if has_pattern(self.table):
            raise ValueError(f"table = {self.table!r} is a pattern: name one table")
        if self.rollouts and "table" in self.model_fields_set:
            raise ValueError("rollouts = true and table name two sources: remove one")
        if self.table.endswith((".parquet", ".csv")):
            raise ValueError(f"table = {self.table!r} is not read: log it as .json")
        if self.fail_on_slices and not self.slices:
            raise ValueError("fail_on_slices = true needs slices = ['<column>']")
        if len({*self.slices, self.id_column, self.score_column}) < len(self.slices) + 2:
            raise ValueError("id, score and slices name one column twice: remove one")
        return self

    @property
    def path(self) -> str:
        """The path of the table among a run's artifacts; with `rollouts`, their folder."""
        if self.rollouts:
            return artifact_paths.rollouts_folder(names.EVAL)
        return self.table if self.table.endswith(".json") else names.eval_table(self.table)

    @property
    def id_column(self) -> str:
        """The column of the tables that names the examples."""
        return names.PROMPT if self.rollouts and "id" not in self.model_fields_set else self.id

    @property
    def score_column(self) -> str:
        """The column of the tables with the scores."""
        return names.reward_column(self.score) if self.rollouts else self.score
