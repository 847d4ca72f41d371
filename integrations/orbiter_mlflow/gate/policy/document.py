"""A policy as a whole: read it strictly from TOML, and expand its patterns to metrics.

A typo that could make the gate pass is an error that names the key and the correction.
"""

import hashlib
import tomllib
from collections.abc import Collection
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, PrivateAttr, ValidationError, model_validator

from orbiter_mlflow.errors import PolicyError
from orbiter_mlflow.gate.model import Correction, Direction
from orbiter_mlflow.gate.policy.accept import Acceptance
from orbiter_mlflow.gate.policy.baseline import Baseline
from orbiter_mlflow.gate.policy.comparable import Comparable, covers
from orbiter_mlflow.gate.policy.error import NO_METRICS, one_line, policy_error, quoted
from orbiter_mlflow.gate.policy.examples import ExamplesPolicy
from orbiter_mlflow.gate.policy.metric import MetricPolicy
from orbiter_mlflow.gate.policy.table import IN_CODE, Table, has_pattern
from orbiter_mlflow.text.suggestions import did_you_mean

__all__ = ["Gate", "Policy", "expand", "load_policy", "parse_policy", "require_known"]


class Gate(Table):
    """`[gate]`: settings of the policy as a whole."""

    version: int = Field(alias="schema", ge=1, le=1)
    """Version of the policy's format; 1."""
    alpha: float = Field(default=0.05, gt=0, le=0.5)
    """What `correction` bounds, if nothing has changed."""
    correction: Correction = "holm"
    """`holm`: `alpha` bounds the probability of any false alarm over all metrics tested; `fdr`: the
    expected share of false alarms among the failures."""
    on_inconclusive: Literal["warn", "fail"] = "warn"
    """`warn`: a metric past tolerance that may be chance is a warning, and passes if it is well
    within chance. `fail`: it fails the build with exit code 4 unless it is within tolerance."""
    candidate_runs: int | None = Field(default=None, ge=1)
    """Minimum number of candidate runs; None for as many as the baseline needs."""


class Policy(Table):
    """The requirements on a candidate.

    Raises:
        pydantic.ValidationError: a value is invalid; `load_policy` and `for_one` raise a
            `PolicyError` with a message of one line instead.
    """

    gate: Gate
    baseline: Baseline
    comparable: Comparable = Comparable()
    metrics: dict[str, MetricPolicy] = Field(default_factory=dict)
    """Key or pattern -> its limits, in the order of the file."""
    accept: tuple[Acceptance, ...] = Field(default=(), strict=False)
    """Regressions that people have accepted until a day."""
    examples: dict[str, ExamplesPolicy] = Field(default_factory=dict)
    """Name -> a table of examples and its limits, in the order of the file."""

    @model_validator(mode="after")
    def _judges_something(self) -> Self:
        if not self.metrics and not self.examples:
            raise ValueError(NO_METRICS)
        return self

    _path: str = PrivateAttr(default=IN_CODE)
    _text: str | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _accepts_its_own_metrics(self) -> Self:
        for one in self.accept:
            if not covers(self.metrics, one.metric) and one.metric not in self.examples:
                shown = {key: quoted(key) for key in (*self.metrics, *self.examples)}
                near = did_you_mean(one.metric, shown)
                raise ValueError(
                    f"[[accept]] names {quoted(one.metric)}, which is no metric of this policy"
                    f"{near or ': correct the name, or remove it'}"
                )
        return self

    @cached_property
    def paired_by(self) -> tuple[str, ...]:
        """The fields that pair runs, over all metrics; sorted, each once."""
        fields = {metric.paired_by for metric in self.metrics.values()}
        return tuple(sorted(field for field in fields if field is not None))

    @property
    def candidate_runs(self) -> int:
        """Minimum number of candidate runs; runs of one seed count once."""
        expected = self.gate.candidate_runs
        return self.baseline.needed if expected is None else expected

    @property
    def path(self) -> str:
        """The path of the policy, for people."""
        return self._path

    @property
    def text(self) -> str:
        """The file's text; without a file, the content as JSON."""
        return self.model_dump_json(by_alias=True) if self._text is None else self._text

    @property
    def digest(self) -> str:
        """SHA-256, in hex, of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

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
            return cls.model_validate(content, context=IN_CODE)
        except ValidationError as error:
            raise policy_error(IN_CODE, error, _TABLES) from error


def load_policy(path: Path) -> Policy:
    """Read a policy.

    Raises:
        PolicyError: the file cannot be read, is not TOML, or is not a valid policy; the message
            names the file, the line or key, the value and the correction.
    """
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise PolicyError(f"{path}: cannot be read ({reason})") from error
    return parse_policy(content, str(path))


def parse_policy(encoded: bytes, shown: str) -> Policy:
    """Parse a policy.

    Args:
        encoded: the content of the file.
        shown: the path of the file, for people.

    Raises:
        PolicyError: as `load_policy`.
    """
    try:
        text = encoded.decode()
        content = tomllib.loads(text)
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


def require_known(policy: Policy, keys: Collection[str]) -> None:
    """Check that each metric which the policy names in full is there in some run.

    Args:
        keys: the metric keys of all runs of both sides.

    Raises:
        PolicyError: no run has one of them; the message suggests similar keys.
    """
    for name in policy.metrics:
        if not has_pattern(name) and name not in keys:
            near = did_you_mean(name, {key: quoted(key) for key in keys})
            raise PolicyError(
                f"{policy.path}: metrics.{quoted(name)}: no run has this metric, neither candidate "
                f"nor baseline{near or ': check the name, and that the runs logged it'}"
            )


_TABLES: dict[str, type[BaseModel]] = {
    "": Policy,
    "gate": Gate,
    "baseline": Baseline,
    "comparable": Comparable,
    "metrics": MetricPolicy,
    "accept": Acceptance,
    "examples": ExamplesPolicy,
}
