"""The policy of the gate: which metrics count, what they are compared with, and the limits.

A policy is a TOML file and is validated strictly: a typo that could make the gate pass is an error
that names the key and the correction.
"""

import hashlib
import re
import tomllib
from collections.abc import Collection
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from orbiter_mlflow.errors import PolicyError
from orbiter_mlflow.gate.model import Direction, Severity
from orbiter_mlflow.gate.policy_error import one_line, policy_error, quoted
from orbiter_mlflow.gate.statistics import MAX_VALUE, RequestedTest

__all__ = [
    "Baseline",
    "Comparable",
    "Gate",
    "MetricPolicy",
    "Policy",
    "PolicyError",
    "expand",
    "has_pattern",
    "load_policy",
]

Limit = Annotated[float, Field(ge=0)]
_IN_CODE = "the policy given in code"


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Gate(_Table):
    """`[gate]`: settings of the policy as a whole."""

    version: int = Field(alias="schema", ge=1, le=1)
    """Version of the policy's format; 1."""
    alpha: float = Field(default=0.05, gt=0, le=0.5)
    """Probability of a false alarm over all metrics judged, by Holm's method."""
    on_inconclusive: Literal["warn", "fail"] = "warn"
    """Whether a metric past tolerance fails the build when it has too few runs to be sure."""


class Baseline(_Table):
    """`[baseline]`: the runs to compare with, as exactly one of `run`, `filter` and `file`.

    `Policy.for_one` sets none of them: its caller has the runs.
    """

    run: str | None = Field(default=None, min_length=1)
    """One run: its id, the start of its id, or its name."""
    filter: str | None = Field(default=None, min_length=1)
    """An MLflow search filter: `tags.baseline = 'main'`."""
    file: str | None = Field(default=None, min_length=1)
    """A file that `orbiter-mlflow bless --file` wrote."""
    last: int = Field(default=10, ge=1)
    """With a filter: the number of runs to take, the latest first."""
    min_runs: int = Field(default=3, ge=1)
    """Minimum number of runs for a baseline; with `run`, one is enough."""

    @model_validator(mode="after")
    def _one_source(self, info: ValidationInfo) -> Self:
        if info.context == _IN_CODE:
            return self
        sources = [name for name in ("run", "filter", "file") if getattr(self, name) is not None]
        if len(sources) != 1:
            found = " and ".join(sources) if sources else "none of them"
            raise ValueError(f"needs one of run, filter and file, but has {found}")
        if self.filter is not None and self.last < self.min_runs:
            raise ValueError(
                f"last = {self.last} takes fewer runs than min_runs = {self.min_runs} needs: "
                "raise last or lower min_runs"
            )
        return self

    @property
    def needed(self) -> int:
        """Number of runs that make a baseline: `min_runs`, or 1 with `run`."""
        return 1 if self.run is not None else self.min_runs


class Comparable(_Table):
    """`[comparable]`: the fields that must be equal in candidate and baseline.

    Fields are `params.<key>` and `datasets.<context>`; `*`, `?` and `[...]` make patterns. The data
    behind each judged metric must also be equal, unless `allow_differ` has
    `data.<prefix of its key>`.
    """

    require_equal: tuple[str, ...] = Field(default=("datasets.eval",), strict=False)
    """All runs must have the same value. The default applies only if a run has that dataset."""
    allow_differ: tuple[str, ...] = Field(default=(), strict=False)
    """Fields that are ignored, even if a pattern in `require_equal` matches them. The report notes
    differences in fields that neither list names."""

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


class MetricPolicy(_Table):
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
    """The same as a fraction of the baseline's absolute mean; 1 at most, as 2 would mean 200%."""
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
        if self.max_drop_rel is not None and self.max_drop_rel > 1:
            raise ValueError(
                f"max_drop_rel = {self.max_drop_rel:g} is more than the whole baseline: "
                "write a fraction (0.02 for 2%), or max_drop for a larger loss"
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
        if self.test == "paired" and self.paired_by is None:
            raise ValueError("test = 'paired' needs paired_by = 'params.<key>'")
        if self.paired_by is not None and self.test not in ("auto", "paired"):
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


class Policy(_Table):
    """The requirements on a candidate.

    Raises:
        pydantic.ValidationError: a value is invalid; `load_policy` and `for_one` raise a
            `PolicyError` with a message of one line instead.
    """

    gate: Gate
    baseline: Baseline
    comparable: Comparable = Comparable()
    metrics: dict[str, MetricPolicy] = Field(min_length=1)
    """Key or pattern -> its limits, in the order of the file."""

    _path: str = PrivateAttr(default=_IN_CODE)
    _text: str | None = PrivateAttr(default=None)

    @property
    def path(self) -> str:
        """The path of the policy, for people."""
        return self._path

    @property
    def digest(self) -> str:
        """SHA-256, in hex, of the file's text; without a file, of the content as JSON."""
        text = self.model_dump_json(by_alias=True) if self._text is None else self._text
        return hashlib.sha256(text.encode()).hexdigest()

    @classmethod
    def for_one(cls, metric: str, *, direction: Direction, **limits: Any) -> Self:
        """A policy for one metric, with a baseline that the caller has; one run is enough.

        Args:
            metric: its key, or a pattern.
            limits: any field of `MetricPolicy`.

        Raises:
            PolicyError: a limit is invalid.
        """
        content = {
            "gate": {"schema": 1},
            "baseline": {"min_runs": 1},
            "metrics": {metric: {"direction": direction, **limits}},
        }
        try:
            return cls.model_validate(content, context=_IN_CODE)
        except ValidationError as error:
            raise policy_error(_IN_CODE, error, _TABLES) from error


def load_policy(path: Path) -> Policy:
    """Read a policy.

    Raises:
        PolicyError: the file cannot be read, is not TOML, or is not a valid policy; the message
            names the file, the line or key, the value and the correction.
    """
    shown = str(path)
    try:
        text = path.read_bytes().decode()
        content = tomllib.loads(text)
    except OSError as error:
        raise PolicyError(f"{shown}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise PolicyError(f"{shown}: is not UTF-8 text (byte {error.start})") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise PolicyError(f"{shown}: is not TOML: {one_line(str(error))}") from error
    except ValueError as error:  # an impossible date, a number of thousands of digits
        raise PolicyError(f"{shown}: has an invalid value: {one_line(str(error))}") from error
    try:
        policy = Policy.model_validate(content)
    except ValidationError as error:
        raise policy_error(shown, error, _TABLES) from error
    policy._path, policy._text = shown, text
    return policy


def expand(policy: Policy, keys: Collection[str]) -> dict[str, MetricPolicy]:
    """Expand the policy's patterns to metric keys.

    A full name overrides a pattern, and an earlier pattern a later one. A full name that no run has
    is kept, so that the gate reports the missing metric.

    Args:
        keys: the metric keys of all runs.

    Raises:
        PolicyError: a pattern matches no key.
    """
    found: dict[str, MetricPolicy] = {}
    for pattern, expected in policy.metrics.items():
        matching = [key for key in sorted(keys) if fnmatchcase(key, pattern)]
        if not has_pattern(pattern):
            found[pattern] = expected
        elif not matching:
            raise PolicyError(
                f"{policy.path}: metrics.{quoted(pattern)}: no run has a metric that matches: "
                "check the pattern, and that the metrics were logged"
            )
        else:
            for key in matching:
                if key not in policy.metrics:
                    found.setdefault(key, expected)
    return found


def has_pattern(text: str) -> bool:
    """Whether a name in the policy is a pattern."""
    return any(mark in text for mark in "*?[")


_TABLES: dict[str, type[BaseModel]] = {
    "": Policy,
    "gate": Gate,
    "baseline": Baseline,
    "comparable": Comparable,
    "metrics": MetricPolicy,
}
