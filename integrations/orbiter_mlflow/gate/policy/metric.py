"""`[metrics."<key or pattern>"]` of a policy: direction and limits of a metric."""

from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from orbiter_mlflow.gate.model import Direction, Severity
from orbiter_mlflow.gate.policy.table import Table, has_pattern
from orbiter_mlflow.gate.statistics import MAX_VALUE, RequestedTest

__all__ = ["MetricPolicy"]

Limit = Annotated[float, Field(ge=0)]


class MetricPolicy(Table):
    """`[metrics."<key or pattern>"]`: direction and limits of a metric.

    The loss of a metric is its change for the worse by `direction`: a fall if higher is better, a
    rise if lower is, a growth of the distance to `target`. Exceeding one limit is past tolerance.
    """

    direction: Direction
    target: float | None = None
    """The value to come close to, with direction = 'target'; 1e150 at most."""
    min: float | None = None
    """Smallest mean of the candidate's runs; is checked even without a baseline."""
    max: float | None = None
    """Largest mean of the candidate's runs; is checked even without a baseline."""
    max_drop: Limit | None = None
    """Largest loss against the baseline's mean, in the metric's own unit."""
    max_drop_rel: Limit | None = None
    """The same as a fraction of the baseline's absolute mean, below 1: 1% is 0.01."""
    test: RequestedTest = "auto"
    """The significance test; `auto` chooses by the number of runs."""
    paired_by: str | None = None
    """The field that pairs runs of the two sides, such as `params.extra.seed`."""
    severity: Severity = "fail"
    at: str = Field(default="last", pattern=r"^(last|best|step=[0-9]{1,18})$")
    """The value that counts: the last, the best by `direction`, or the one at a step."""

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.direction == "target" and self.target is None:
            raise ValueError("direction = 'target' needs a target: add target = <number>")
        if self.target is not None and abs(self.target) > MAX_VALUE:
            raise ValueError(f"target = {self.target:g} is beyond {MAX_VALUE:g}")
        if self.direction != "target" and self.target is not None:
            raise ValueError(
                f"target = {self.target:g} belongs to direction = 'target', "
                f"not to {self.direction!r}: remove it, or change the direction"
            )
        if self.max_drop_rel is not None and self.max_drop_rel >= 1:
            raise ValueError(
                f"max_drop_rel = {self.max_drop_rel:g} allows to lose the whole baseline: write a "
                "fraction (1% is 0.01), or max_drop for a larger loss"
            )
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min = {self.min:g} is above max = {self.max:g}: nothing could pass")
        bounded = self.min is not None or self.max is not None
        if not (bounded or self.compared) and self.severity != "info":
            raise ValueError(
                "has no limit, so it could never fail: add min, max, max_drop or max_drop_rel, "
                "or severity = 'info'"
            )
        if self.test not in ("auto", "none") and not self.compared and bounded:
            raise ValueError(f"test = {self.test!r} needs max_drop or max_drop_rel")
        if self.test == "non_inferiority" and 0 in (self.max_drop, self.max_drop_rel):
            raise ValueError(
                "test = 'non_inferiority' needs a tolerance above 0: no number of runs can show "
                "that nothing at all is lost"
            )
        if self.test == "paired" and self.paired_by is None:
            raise ValueError("test = 'paired' needs paired_by = 'params.<key>'")
        if self.paired_by is not None and self.test not in ("auto", "paired", "non_inferiority"):
            raise ValueError(f"paired_by has no effect with test = {self.test!r}: remove one")
        return self

    @field_validator("paired_by")
    @classmethod
    def _param(cls, field: str | None) -> str | None:
        if field is not None and (not field.startswith("params.") or has_pattern(field)):
            raise ValueError(f"{field!r} is not a param: write params.<key>")
        return field

    @property
    def compared(self) -> bool:
        """Whether one of the limits needs a baseline."""
        return self.max_drop is not None or self.max_drop_rel is not None

    @property
    def limits(self) -> tuple[str, ...]:
        """The limits as the policy writes them: `min = 0.8`."""
        found = ((name, getattr(self, name)) for name in ("min", "max", "max_drop", "max_drop_rel"))
        return tuple(f"{name} = {value:.12g}" for name, value in found if value is not None)
