"""A baseline as a file to be reviewed and committed: JSON, sorted, one value a line.

It names each run by its seed where the seeds tell them apart, so that a later blessing changes
the values and little else. Reading it checks what was written by hand.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from orbiter_mlflow.errors import CannotCompareError
from orbiter_mlflow.gate.model import GateRun
from orbiter_mlflow.gate.policy import MetricPolicy
from orbiter_mlflow.gate.statistics import mean_of
from orbiter_mlflow.redaction.redactor import Redactor

_Text = Annotated[str, Field(min_length=1)]
_Value = Annotated[float, Field(allow_inf_nan=False)]
_SEEDS = ("seed", "extra.seed")
"""Params that hold the seed where no policy says which does."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Blessing(_Part):
    """Who made runs the baseline, when (UTC, ISO 8601), why, and by which policy.

    `policy` is the SHA-256 of its text, None where none was named.
    """

    at: _Text
    by: _Text
    reason: _Text
    policy: str | None = None


class BlessedRun(_Part):
    """A run of the baseline; `start_time` in milliseconds since the epoch."""

    run_id: _Text
    name: str
    start_time: int
    params: dict[str, str]
    datasets: dict[str, str]
    data: dict[str, str] = {}
    """Prefix of metric keys -> the data they were measured on, as in `GateRun`."""


class BlessedMetric(_Part):
    """The values of a metric, each under the key of its run in `runs`.

    `point` says which value of a run it is, as `point_of` does.
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
                f"n = {self.n} and mean = {self.mean} are not those of its values "
                f"({len(self.values)}, {mean}): it was changed by hand, bless the runs again"
            )
        return self


class BaselineFile(_Part):
    """What `bless --file` writes and `baseline.file` of a policy names."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    blessed: Blessing
    runs: dict[str, BlessedRun] = Field(min_length=1)
    metrics: dict[str, BlessedMetric]

    @model_validator(mode="after")
    def _is_whole(self) -> "BaselineFile":
        for key, metric in self.metrics.items():
            if strangers := metric.values.keys() - self.runs.keys():
                raise ValueError(f"{key} has values of {sorted(strangers)}, which are not in runs")
        if len({run.run_id for run in self.runs.values()}) < len(self.runs):
            raise ValueError("two of the runs are one: each counts once")
        return self

    def text(self) -> str:
        """As it is written: the same content gives the same text."""
        content = self.model_dump(mode="json", by_alias=True)
        return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"

    def gate_runs(self) -> list[GateRun]:
        """The runs as the gate compares with them."""
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


def of_runs(
    runs: Sequence[GateRun],
    metrics: Mapping[str, MetricPolicy | None],
    blessing: Blessing,
    *,
    paired_by: str | None = None,
) -> BaselineFile:
    """The file of these runs.

    Args:
        metrics: the keys to keep, with what the policy says of each, None where it says nothing.
        paired_by: the field that tells the runs apart, as in a policy: `params.seed`.
    """
    labels = _labels(runs, paired_by)
    kept: dict[str, BlessedMetric] = {}
    for key, wanted in metrics.items():
        pairs = zip(labels, runs, strict=True)
        values = {label: run.metrics[key] for label, run in pairs if key in run.metrics}
        if values:
            mean = mean_of([*values.values()])
            kept[key] = BlessedMetric(
                point=point_of(wanted), n=len(values), mean=mean, values=values
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


def point_of(wanted: MetricPolicy | None) -> str:
    """Which value of a run's history a policy asks for, in words."""
    if wanted is None or wanted.at != "best":
        return "last" if wanted is None else wanted.at
    aim = f"target {wanted.target}" if wanted.direction == "target" else wanted.direction
    return f"best ({aim})"


def read(content: bytes, shown: str) -> BaselineFile:
    """The baseline in a file.

    Args:
        content: of the file.
        shown: where it lies, for messages.

    Raises:
        CannotCompareError: it is no such file, or does not add up.
    """
    try:
        return BaselineFile.model_validate_json(content)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        what = fault["msg"].removeprefix("Value error, ")
        raise CannotCompareError(
            f"{shown} is no baseline file: {f'{where}: ' if where else ''}{what} "
            "(`orbiter-mlflow bless RUN... --file` writes one)"
        ) from error


def difference(there: BaselineFile, here: BaselineFile) -> str:
    """What the file here says otherwise than the one there, in words; empty where nothing."""
    changes = [
        f"{key} {_summary(there.metrics.get(key))} there, {_summary(here.metrics.get(key))} here"
        for key in sorted(there.metrics.keys() | here.metrics.keys())
        if there.metrics.get(key) != here.metrics.get(key)
    ]
    ids = [{run.run_id for run in file.runs.values()} for file in (there, here)]
    if ids[0] != ids[1]:
        changes.append(f"{len(ids[1] - ids[0])} runs added, {len(ids[0] - ids[1])} removed")
    if not changes and there.runs != here.runs:
        changes.append("what it says of the runs")
    more = len(changes) - _CHANGES
    return "; ".join(changes[:_CHANGES] + ([f"and {more} more"] if more > 0 else []))


_CHANGES = 5


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
    """The params, for a file that many will read: the store may hold those of other tools too."""
    redactor = Redactor()
    return {
        redactor.text(key): redactor.value(key.rpartition(".")[2], text)
        for key, text in params.items()
    }


def load(file: Path) -> BaselineFile | None:
    """The baseline in a file on disk; None where there is no such file.

    Raises:
        CannotCompareError: it cannot be read.
    """
    try:
        return read(file.read_bytes(), str(file))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CannotCompareError(f"{file} cannot be read: {error.strerror}") from error
