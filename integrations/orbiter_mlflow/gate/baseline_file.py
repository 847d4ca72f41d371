"""A baseline as a file to review and commit: JSON, sorted, one value on each line.

Runs are labelled by their seeds if those are unique, so that blessing again changes the values and
little else. Parsing validates the file, as people may edit it.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from orbiter_mlflow.errors import CannotCompareError
from orbiter_mlflow.gate.model import GateRun
from orbiter_mlflow.gate.policy import MetricPolicy
from orbiter_mlflow.gate.statistics import MAX_VALUE, mean_of
from orbiter_mlflow.redaction.redactor import Redactor

_Text = Annotated[str, Field(min_length=1)]


def _comparable(value: float) -> float:
    if abs(value) > MAX_VALUE:
        raise ValueError(f"{value:g} is beyond {MAX_VALUE:g}")
    return value


_Value = Annotated[float, Field(allow_inf_nan=False), AfterValidator(_comparable)]
_SEEDS = ("seed", "extra.seed")
"""Params that may hold the seed, unless the policy names one."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Blessing(_Part):
    """The record of a blessing: person, time, reason and policy.

    Attributes:
        at: UTC, in ISO 8601.
        policy: SHA-256 of the policy's text; None without a policy.
    """

    at: _Text
    by: _Text
    reason: _Text
    policy: str | None = None


class BlessedRun(_Part):
    """A run of the baseline; `start_time` is in milliseconds since the epoch."""

    run_id: _Text
    name: str
    start_time: int
    params: dict[str, str]
    datasets: dict[str, str]
    data: dict[str, str] = {}
    """Prefix of metric keys -> data they were measured on, as in `GateRun`."""


class BlessedMetric(_Part):
    """The values of a metric.

    Attributes:
        point: which value of a run's history it is, as `point_of` words it.
        values: label of the run in `BaselineFile.runs` -> value.
    """

    point: str
    n: int
    mean: _Value
    values: dict[str, _Value]

    @model_validator(mode="after")
    def _adds_up(self) -> "BlessedMetric":
        if not self.values:
            raise ValueError("has no values")
        mean = mean_of([*self.values.values()])
        if self.n != len(self.values) or not math.isclose(self.mean, mean, rel_tol=1e-9):
            raise ValueError(
                f"n = {self.n} and mean = {self.mean} do not match its values "
                f"({len(self.values)}, {mean}): it was edited, so bless the runs again"
            )
        return self


class BaselineFile(_Part):
    """The file that `bless --file` writes and `baseline.file` of a policy names."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    blessed: Blessing
    runs: dict[str, BlessedRun] = Field(min_length=1)
    metrics: dict[str, BlessedMetric]

    @model_validator(mode="after")
    def _is_whole(self) -> "BaselineFile":
        for key, metric in self.metrics.items():
            if unknown := metric.values.keys() - self.runs.keys():
                raise ValueError(f"{key} has values of {sorted(unknown)}, which are not in runs")
        if len({run.run_id for run in self.runs.values()}) < len(self.runs):
            raise ValueError("has the same run twice")
        return self

    def text(self) -> str:
        """The text of the file; equal content gives equal text."""
        content = self.model_dump(mode="json", by_alias=True)
        return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"

    def gate_runs(self) -> list[GateRun]:
        """The runs, as the gate compares with them."""
        return [
            GateRun(
                run_id=run.run_id,
                name=run.name,
                status="FINISHED",
                params=run.params,
                datasets=run.datasets,
                metrics={
                    key: metric.values[label]
                    for key, metric in self.metrics.items()
                    if label in metric.values
                },
                start_time=run.start_time,
                data=run.data,
            )
            for label, run in self.runs.items()
        ]


def make_baseline(
    runs: Sequence[GateRun],
    metrics: Mapping[str, MetricPolicy | None],
    blessing: Blessing,
    *,
    paired_by: str | None = None,
) -> BaselineFile:
    """Make the baseline file of these runs.

    Args:
        metrics: keys to keep -> their entries in the policy; None without a policy.
        paired_by: the field that labels the runs, as in a policy: `params.seed`.
    """
    labels = _labels(runs, paired_by)
    kept: dict[str, BlessedMetric] = {}
    for key, expected in metrics.items():
        pairs = zip(labels, runs, strict=True)
        values = {label: run.metrics[key] for label, run in pairs if key in run.metrics}
        if values:
            mean = mean_of([*values.values()])
            kept[key] = BlessedMetric(
                point=point_of(expected), n=len(values), mean=mean, values=values
            )
    return BaselineFile(
        blessed=blessing,
        runs={
            label: BlessedRun(
                run_id=run.run_id,
                name=run.name,
                start_time=run.start_time,
                params=_without_secrets(run.params),
                datasets=dict(run.datasets),
                data=dict(run.data),
            )
            for label, run in zip(labels, runs, strict=True)
        },
        metrics=kept,
    )


def point_of(expected: MetricPolicy | None) -> str:
    """Which value of a run's history a policy uses, in words."""
    if expected is None or expected.at != "best":
        return "last" if expected is None else expected.at
    aim = f"target {expected.target}" if expected.direction == "target" else expected.direction
    return f"best ({aim})"


def parse_baseline(content: bytes, path: str) -> BaselineFile:
    """Parse and validate a baseline file.

    Args:
        content: the content of the file.
        path: the path of the file, for messages.

    Raises:
        CannotCompareError: it is not a baseline file, or contradicts itself.
    """
    try:
        return BaselineFile.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        reason = first["msg"].removeprefix("Value error, ")
        raise CannotCompareError(
            f"{path} is not a baseline file: {f'{key}: ' if key else ''}{reason} "
            "(`orbiter-mlflow bless RUN... --file` writes one)"
        ) from error


def summarize_changes(judging: BaselineFile, here: BaselineFile) -> str:
    """How the file here differs from the one that judges, in words; empty if it does not."""
    changes = [
        f"{key} {_summary(judging.metrics.get(key))} there, {_summary(here.metrics.get(key))} here"
        for key in sorted(judging.metrics.keys() | here.metrics.keys())
        if judging.metrics.get(key) != here.metrics.get(key)
    ]
    ids = [{run.run_id for run in file.runs.values()} for file in (judging, here)]
    if ids[0] != ids[1]:
        changes.append(f"{len(ids[1] - ids[0])} runs added, {len(ids[0] - ids[1])} removed")
    if not changes and judging.runs != here.runs:
        changes.append("names, params or data of its runs")
    more = len(changes) - _MAX_CHANGES
    return "; ".join(changes[:_MAX_CHANGES] + ([f"and {more} more"] if more > 0 else []))


_MAX_CHANGES = 5


def _summary(metric: BlessedMetric | None) -> str:
    return "absent" if metric is None else f"{metric.mean:.6g} (n = {metric.n}, {metric.point})"


def _labels(runs: Sequence[GateRun], paired_by: str | None) -> list[str]:
    fields = [paired_by.removeprefix("params.")] if paired_by else _SEEDS
    for field in fields:
        seeds = [run.params.get(field) for run in runs]
        if None not in seeds and len(set(seeds)) == len(runs):
            return [f"{field.rpartition('.')[2]} {seed}" for seed in seeds]
    return [run.run_id for run in runs]


def _without_secrets(params: Mapping[str, str]) -> dict[str, str]:
    """Redact the params: many people read the file, and other tools may have logged secrets."""
    redactor = Redactor()
    return {
        redactor.text(key): redactor.value(key.rpartition(".")[2], text)
        for key, text in params.items()
    }


def load_baseline(file: Path) -> BaselineFile | None:
    """Read a baseline file; None if there is no such file.

    Raises:
        CannotCompareError: it cannot be read, or is not a baseline file.
    """
    try:
        return parse_baseline(file.read_bytes(), str(file))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CannotCompareError(f"{file} cannot be read: {error.strerror}") from error
