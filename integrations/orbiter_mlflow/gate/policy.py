"""The policy of the gate: which metrics count, what they are compared with, what is too much.

It is a TOML file, read strictly: what could make the gate pass because of a slip of the pen is
refused, with the key and the way out.
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
from orbiter_mlflow.gate.policy_error import one_line, quoted, told

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
    """`[gate]`: what holds for the policy as a whole."""

    version: int = Field(alias="schema", ge=1, le=1)
    """Of the policy's format; 1."""
    alpha: float = Field(default=0.05, gt=0, le=0.5)
    """Chance of a false alarm over all metrics judged; they share it by Holm's method."""
    on_inconclusive: Literal["warn", "fail"] = "warn"
    """Whether a metric that is past tolerance, but by too few runs to tell, fails the build."""


class Baseline(_Table):
    """`[baseline]`: the runs to compare with, by exactly one of `run`, `filter` and `file`.

    None of them stands in a policy of `Policy.for_one`, whose caller has the runs.
    """

    run: str | None = Field(default=None, min_length=1)
    """One run, by its id, the start of it, or its name."""
    filter: str | None = Field(default=None, min_length=1)
    """A search filter of MLflow's: `tags.baseline = 'main'`."""
    file: str | None = Field(default=None, min_length=1)
    """A file that `orbiter-mlflow bless --file` has written."""
    last: int = Field(default=10, ge=1)
    """With a filter: how many of the runs it finds are taken, the latest first."""
    min_runs: int = Field(default=3, ge=1)
    """Fewer runs than these are no baseline. A `run` stands for itself."""

    @model_validator(mode="after")
    def _one_source(self, info: ValidationInfo) -> Self:
        if info.context == _IN_CODE:
            return self
        given = [name for name in ("run", "filter", "file") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) if given else "none of them"
            raise ValueError(f"needs one of run, filter and file, but has {found}")
        if self.filter is not None and self.last < self.min_runs:
            raise ValueError(
                f"last = {self.last} takes fewer runs than min_runs = {self.min_runs} asks for: "
                "raise the one or lower the other"
            )
        return self

    @property
    def needed(self) -> int:
        """How many runs make a baseline: `min_runs`, or 1 where one run was named."""
        return 1 if self.run is not None else self.min_runs


class Comparable(_Table):
    """`[comparable]`: what candidate and baseline must have in common.

    Fields are `params.<key>` and `datasets.<context>`; `*`, `?` and `[...]` are patterns. The data
    behind a metric that is judged must be the same besides, unless `allow_differ` has
    `data.<prefix of its key>`.
    """

    require_equal: tuple[str, ...] = Field(default=("datasets.eval",), strict=False)
    """All runs must have one and the same value. The default asks it of runs that have one."""
    allow_differ: tuple[str, ...] = Field(default=(), strict=False)
    """Not looked at, even where a pattern of `require_equal` covers it. What neither list names
    is mentioned in the report where it differs."""

    @field_validator("require_equal", "allow_differ")
    @classmethod
    def _fields(cls, fields: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        required = info.field_name == "require_equal"
        for field in fields:
            if required and field.startswith("data."):
                raise ValueError(f"{field!r} must be equal without being named: take it out")
            if not re.fullmatch(r"(params|datasets|data)\..+", field, re.DOTALL):
                also = "" if required else ", or data.<prefix of metrics>"
                raise ValueError(
                    f"{field!r} is no field: write params.<key> or datasets.<context>{also}"
                )
        return fields

    @model_validator(mode="after")
    def _no_contradiction(self) -> Self:
        for field in self.require_equal:
            if "require_equal" in self.model_fields_set and field in self.allow_differ:
                raise ValueError(
                    f"{field!r} stands in require_equal and in allow_differ: take one out"
                )
        return self


class MetricPolicy(_Table):
    """`[metrics."<key or pattern>"]`: what is asked of a metric.

    A loss is what `direction` calls worse: a fall where higher is better, a rise where lower is,
    a growth of the distance to `target`. Being past any one limit is past tolerance.
    """

    direction: Direction
    target: float | None = None
    """The value to be near to, where `direction` is target."""
    min: float | None = None
    """Least mean of the candidate's runs; holds with no baseline at all."""
    max: float | None = None
    """Largest mean of the candidate's runs; holds with no baseline at all."""
    max_drop: Limit | None = None
    """Largest loss against the baseline's mean, in the metric's own unit."""
    max_drop_rel: Limit | None = None
    """The same as a fraction of the baseline's absolute mean; 1 at most: 2 was meant as 2%."""
    test: Literal["auto", "none", "welch", "paired"] = "auto"
    """How a loss is told from chance; `auto` takes what the number of runs permits."""
    paired_by: str | None = None
    """Field that pairs runs of both sides, such as `params.extra.seed`."""
    severity: Severity = "fail"
    at: str = Field(default="last", pattern=r"^(last|best|step=[0-9]{1,18})$")
    """The value that counts: the latest, the best by `direction`, or that of a step."""

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.direction == "target" and self.target is None:
            raise ValueError("direction = 'target' needs the target: add target = <number>")
        if self.direction != "target" and self.target is not None:
            raise ValueError(
                f"target = {self.target:g} belongs to direction = 'target', "
                f"not to {self.direction!r}: take it out, or change the direction"
            )
        if self.max_drop_rel is not None and self.max_drop_rel > 1:
            raise ValueError(
                f"max_drop_rel = {self.max_drop_rel:g} is more than all of the baseline: "
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
        if self.test in ("welch", "paired") and not self.compared and bounded:
            raise ValueError(f"test = {self.test!r} needs max_drop or max_drop_rel")
        if self.test == "paired" and self.paired_by is None:
            raise ValueError("test = 'paired' needs paired_by = 'params.<key>'")
        if self.paired_by is not None and self.test not in ("auto", "paired"):
            raise ValueError(f"paired_by means nothing with test = {self.test!r}: take one out")
        return self

    @field_validator("paired_by")
    @classmethod
    def _param(cls, field: str | None) -> str | None:
        if field is not None and (not field.startswith("params.") or has_pattern(field)):
            raise ValueError(f"{field!r} names no param: write params.<key>")
        return field

    @property
    def compared(self) -> bool:
        """Whether a limit needs a baseline."""
        return self.max_drop is not None or self.max_drop_rel is not None

    @property
    def limits(self) -> tuple[str, ...]:
        """The limits in the words of the policy: `min = 0.8`."""
        found = ((name, getattr(self, name)) for name in ("min", "max", "max_drop", "max_drop_rel"))
        return tuple(f"{name} = {value:.12g}" for name, value in found if value is not None)


class Policy(_Table):
    """What the gate asks of a candidate.

    Raises:
        pydantic.ValidationError: a value is wrong; `load_policy` and `for_one` make one line of it.
    """

    gate: Gate
    baseline: Baseline
    comparable: Comparable = Comparable()
    metrics: dict[str, MetricPolicy] = Field(min_length=1)
    """By key or pattern, in the file's order."""

    _path: str = PrivateAttr(default=_IN_CODE)
    _text: str | None = PrivateAttr(default=None)

    @property
    def path(self) -> str:
        """Where the policy was read, for people."""
        return self._path

    @property
    def digest(self) -> str:
        """SHA-256, in hex, of the file's text; of the content where there is no file."""
        text = self.model_dump_json(by_alias=True) if self._text is None else self._text
        return hashlib.sha256(text.encode()).hexdigest()

    @classmethod
    def for_one(cls, metric: str, *, direction: Direction, **limits: Any) -> Self:
        """The policy for one metric, whose baseline the caller has; one run is enough for it.

        Args:
            metric: its key, or a pattern.
            limits: any field of `MetricPolicy`.

        Raises:
            PolicyError: a limit is wrong.
        """
        content = {
            "gate": {"schema": 1},
            "baseline": {"min_runs": 1},
            "metrics": {metric: {"direction": direction, **limits}},
        }
        try:
            return cls.model_validate(content, context=_IN_CODE)
        except ValidationError as error:
            raise told(_IN_CODE, error, _TABLES) from error


def load_policy(path: Path) -> Policy:
    """Read a policy.

    Raises:
        PolicyError: the file cannot be read, is no TOML, or is no policy; the message names the
            file, the line or key, the value and the way out.
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
        raise PolicyError(f"{shown}: is no TOML: {one_line(str(error))}") from error
    except ValueError as error:  # a date that is none, a number of thousands of digits
        raise PolicyError(f"{shown}: holds a value that is none: {one_line(str(error))}") from error
    try:
        policy = Policy.model_validate(content)
    except ValidationError as error:
        raise told(shown, error, _TABLES) from error
    policy._path, policy._text = shown, text
    return policy


def expand(policy: Policy, keys: Collection[str]) -> dict[str, MetricPolicy]:
    """The metrics that the policy means, among `keys` and by their full names.

    A full name goes before a pattern; of patterns the first in the file counts. A full name that
    nobody has is kept: that the metric is missing is for the gate to judge.

    Raises:
        PolicyError: a pattern matches no key.
    """
    found: dict[str, MetricPolicy] = {}
    for pattern, wanted in policy.metrics.items():
        matching = [key for key in sorted(keys) if fnmatchcase(key, pattern)]
        if not has_pattern(pattern):
            found[pattern] = wanted
        elif not matching:
            raise PolicyError(
                f"{policy.path}: metrics.{quoted(pattern)}: no run has a metric that matches: "
                "check the pattern, or that the metrics were logged"
            )
        else:
            for key in matching:
                if key not in policy.metrics:
                    found.setdefault(key, wanted)
    return found


def has_pattern(text: str) -> bool:
    """Whether a name of the policy stands for all that match it."""
    return any(mark in text for mark in "*?[")


_TABLES: dict[str, type[BaseModel]] = {
    "": Policy,
    "gate": Gate,
    "baseline": Baseline,
    "comparable": Comparable,
    "metrics": MetricPolicy,
}
