"""`[comparable]` of a policy: the fields in which runs must agree."""

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from orbiter_mlflow.gate.policy.table import Table

__all__ = ["Comparable", "covers"]


def covers(patterns: Iterable[str], name: str) -> bool:
    """Whether one of the names or patterns stands for this name."""
    return any(name == pattern or fnmatchcase(name, pattern) for pattern in patterns)


class Comparable(Table):
    """`[comparable]`: the fields that must be equal in candidate and baseline.

    Fields are `params.<key>` and `datasets.<context>`; `*`, `?` and `[...]` make patterns. The data
    behind each judged metric must also be equal, unless `allow_differ` has
    `data.<prefix of its key>`.
    """

    require_equal: tuple[str, ...] = Field(default=("datasets.*",), strict=False)
    """All runs must have the same value. The default leaves out the training data unless a metric
    `train/...` is judged: to train on other data is a change that the gate is there to judge."""
    allow_differ: tuple[str, ...] = Field(default=(), strict=False)
    """Fields that are ignored, even if a pattern in `require_equal` matches them. The report notes
    differences in fields that neither list names."""
    vary_within: tuple[str, ...] = Field(default=(), strict=False)
    """Params that may differ between the runs of one side; the seeds, the fields of `paired_by` and
    `output_dir` always may."""

    @field_validator("vary_within")
    @classmethod
    def _params(cls, fields: tuple[str, ...]) -> tuple[str, ...]:
        for field in fields:
            if not re.fullmatch(r"params\..+", field, re.DOTALL):
                raise ValueError(f"{field!r} is not a param: write params.<key>")
        return fields

    @field_validator("require_equal", "allow_differ")
    @classmethod
    def _fields(cls, fields: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        required = info.field_name == "require_equal"
        for field in fields:
            if required and field.startswith("data."):
                raise ValueError(f"{field!r} is always required to be equal: remove it")
            if not re.fullmatch(r"(params|datasets|data)\..+", field, re.DOTALL):
                also = "" if required else ", or data.<prefix of metrics>"
                raise ValueError(
                    f"{field!r} is not a field: write params.<key> or datasets.<context>{also}"
                )
        return fields

    @model_validator(mode="after")
    def _no_contradiction(self) -> Self:
        for field in self.require_equal:
            if "require_equal" in self.model_fields_set and field in self.allow_differ:
                raise ValueError(f"{field!r} is in require_equal and in allow_differ: remove one")
        return self

    def varies(self, field: str) -> bool:
        """Whether a param may differ within a side although it is no seed."""
        return field.rpartition(".")[2] == "output_dir" or covers(self.vary_within, field)
