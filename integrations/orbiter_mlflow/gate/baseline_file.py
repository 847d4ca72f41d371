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
from orbiter_mlflow.gate.statistics import MAX_VALUE, mean_of, spread_of
from orbiter_mlflow.redaction.redactor import Redactor

_Text = Annotated[str, Field(min_length=1)]


def _comparable(value: float) -> float:
    if abs(value) > MAX_VALUE:
        raise ValueError(f"{value:g} is beyond {MAX_VALUE:g}")
    return value


_Value = Annotated[float, Field(allow_inf_nan=False), AfterValidator(_comparable)]
_SEEDS = ("seed", "extra.seed")
"""Params that may hold the seed, unless the policy names one."""
DEFAULT_LAST = 10
"""Blessings that a file keeps, its newest among them, unless a policy has `baseline.last`."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Blessing(_Part):
    """The record of a blessing: person, time, reason and policy.

    Attributes:
        at: UTC, in ISO 8601.
        policy: SHA-256 of the policy's text; None without a policy.
        commit: the git commit of all its runs; empty if they have none, or several.
        lowered: metrics that it was allowed to lower past their tolerance.
    """

    at: _Text
    by: _Text
    reason: _Text
    policy: str | None = None
    commit: str = ""
    lowered: list[str] = []


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


class FormerMetric(_Part):
    """A metric of a former blessing.

    Attributes:
        sd: standard deviation of its n values; None for a single one.
        point: as in `BlessedMetric`.
    """

    n: int = Field(ge=1)
    mean: _Value
    sd: Annotated[_Value, Field(ge=0)] | None = None
    point: str = "last"


class FormerBlessing(_Part):
    """A blessing that a later one has replaced, for drift and history; `datasets` by context."""

    blessed: Blessing
    datasets: dict[str, list[str]]
    metrics: dict[str, FormerMetric]


class BaselineFile(_Part):
    """The file that `bless --file` writes and `baseline.file` of a policy names.

    Attributes:
        runs: label of each run of the newest blessing -> the run.
        former: the blessings before it, the newest first.
    """

    schema_: Literal[1] = Field(default=1, alias="schema")
    blessed: Blessing
    runs: dict[str, BlessedRun] = Field(min_length=1)
    metrics: dict[str, BlessedMetric]
    former: list[FormerBlessing] = []

    @model_validator(mode="after")
    def _is_whole(self) -> "BaselineFile":
        for key, metric in self.metrics.items():
            if unknown := metric.values.keys() - self.runs.keys():
                raise ValueError(f"{key} has values of {sorted(unknown)}, which are not in runs")
        if len({run.run_id for run in self.runs.values()}) < len(self.runs):
            raise ValueError("has the same run twice")
        return self

    def text(self) -> str:
        """The text of the file; equal content gives equal text.

        A former blessing is one line, so that a review shows few.
        """
        content = self.model_dump(mode="json", by_alias=True, exclude={"former"})
        for key in ("commit", "lowered"):
            if not content["blessed"][key]:
                del content["blessed"][key]
        text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)
        if self.former:
            lines = (
                json.dumps(
                    one.model_dump(mode="json", exclude_defaults=True),
                    sort_keys=True,
                    ensure_ascii=False,
                )
                for one in self.former
            )
            text = text.removesuffix("\n}") + ',\n  "former": [\n    '
            text += ",\n    ".join(lines) + "\n  ]\n}"
        return text + "\n"

    def holds(self, new: "BaselineFile") -> bool:
        """Whether `new` has the same content, apart from the person and the time."""
        given = {"at": new.blessed.at, "by": new.blessed.by, "lowered": new.blessed.lowered}
        blessed = self.blessed.model_copy(update=given)
        return self.model_copy(update={"blessed": blessed, "former": new.former}) == new

    def after(self, old: "BaselineFile | None", *, lowered: list[str], last: int) -> "BaselineFile":
        """This blessing with those before it, `last` in all.

        Args:
            old: the file that it replaces; None without one.
            lowered: metrics that it was allowed to lower.
        """
        blessed = self.blessed.model_copy(update={"lowered": lowered})
        if old is None:
            return self.model_copy(update={"blessed": blessed})
        ids = [{run.run_id for run in file.runs.values()} for file in (self, old)]
        if ids[0] == ids[1]:  # the same blessing, with another reason, policy or set of metrics
            blessed = self.blessed.model_copy(update={"lowered": old.blessed.lowered})
            return self.model_copy(update={"blessed": blessed, "former": old.former})
        former = [old.as_former(), *old.former][: last - 1]
        return self.model_copy(update={"blessed": blessed, "former": former})

    def as_former(self) -> FormerBlessing:
        """This blessing in the form that is kept once another replaces it."""
        datasets: dict[str, set[str]] = {}
        for run in self.runs.values():
            for context, data in run.datasets.items():
                datasets.setdefault(context, set()).add(data)
        return FormerBlessing(
            blessed=self.blessed,
            datasets={context: sorted(data) for context, data in sorted(datasets.items())},
            metrics={
                key: FormerMetric(
                    n=metric.n,
                    mean=metric.mean,
                    sd=spread_of([*metric.values.values()]),
                    point=metric.point,
                )
                for key, metric in self.metrics.items()
            },
        )

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
                commit=self.blessed.commit,
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
    commits = {run.commit for run in runs}
    return BaselineFile(
        blessed=blessing.model_copy(update={"commit": commits.pop() if len(commits) == 1 else ""}),
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


def comparable_values(
    file: BaselineFile, metrics: Mapping[str, MetricPolicy | None]
) -> dict[str, list[float]]:
    """Metric -> its values, for metrics at the point of the history that the policy uses."""
    return {
        key: [*metric.values.values()]
        for key, metric in file.metrics.items()
        if key in metrics and metric.point == point_of(metrics[key])
    }


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
    if not changes and judging.former != here.former:
        changes.append("its former blessings")
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
