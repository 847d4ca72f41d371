"""Rank the configs of a sweep by a metric over their seeds. Pure: reads no store."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from orbiter_mlflow import names
from orbiter_mlflow.errors import CannotCompareError
from orbiter_mlflow.gate.attempts import incompleteness, newest_attempts
from orbiter_mlflow.gate.comparability import data_note, fields_of
from orbiter_mlflow.gate.lineage import Summary
from orbiter_mlflow.gate.model import GateRun, LeftOut, counted
from orbiter_mlflow.gate.past import summary_of
from orbiter_mlflow.gate.policy import Comparable
from orbiter_mlflow.gate.statistics import to_losses
from orbiter_mlflow.gate.statistics.significance import Student
from orbiter_mlflow.text.suggestions import did_you_mean

__all__ = ["CONFIDENCE", "Group", "Ranking", "rank"]

CONFIDENCE = 0.95
"""Confidence of the intervals, two-sided."""
_PARAMS = "params."


@dataclass(frozen=True, slots=True)
class Group:
    """The runs of one config.

    Attributes:
        fields: name -> value of what the group has in common; None for runs without the field.
        runs: by the metric, the best first.
        summary: n, mean and standard deviation of the values; None if a value is not finite or too
            large for the statistics.
        interval: the confidence interval of the mean, by Student's t-distribution; None without
            `summary`, for a single run, or if all values are equal: they show no spread.
    """

    fields: Mapping[str, str | None]
    runs: tuple[GateRun, ...]
    summary: Summary | None
    interval: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Ranking:
    """Groups, the best mean first; those without a mean come last.

    Attributes:
        by: the fields that make the groups, as a policy names them: `params.learning_rate`.
        by_request: whether the user named them.
        left_out: runs that do not count, and why.
        notes: remarks for the reader, one sentence each.
    """

    metric: str
    direction: Literal["higher", "lower"]
    by: tuple[str, ...]
    by_request: bool
    groups: tuple[Group, ...]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]


def rank(
    runs: Sequence[GateRun],
    metric: str,
    direction: Literal["higher", "lower"],
    by: Sequence[str] = (),
) -> Ranking:
    """Group runs and rank the groups by the mean of a metric.

    Only runs count that are FINISHED, complete and have the metric; of several attempts of one
    seed, the newest.

    Args:
        by: fields that make the groups. Without any: all params in which the runs differ, but for
            seeds and `output_dir`, so that each group is the seeds of one config.

    Raises:
        CannotCompareError: no run counts, or none has a field of `by`.
    """
    whole, left_out = _usable(runs, metric)
    ranked, repeated = newest_attempts(None, whole, "candidate")
    fields = {run.run_id: fields_of(run) for run in ranked}
    known = {name for one in fields.values() for name in one}
    for name in by:
        if name not in known:
            near = did_you_mean(name, {one: one for one in sorted(known)})
            raise CannotCompareError(f"no run that counts has the field {name!r}{near}")
    chosen = tuple(dict.fromkeys(by)) or _differing(list(fields.values()))
    members: dict[tuple[str | None, ...], list[GateRun]] = {}
    for run in ranked:
        identity = tuple(fields[run.run_id].get(name) for name in chosen)
        members.setdefault(identity, []).append(run)
    groups = [
        _group(dict(zip(chosen, identity, strict=True)), found, metric, direction)
        for identity, found in members.items()
    ]
    groups.sort(key=lambda group: _place(group, direction))
    note = data_note(metric, ranked)
    return Ranking(
        metric,
        direction,
        chosen,
        bool(by),
        tuple(groups),
        (*left_out, *repeated),
        (note,) if note else (),
    )


def _usable(runs: Sequence[GateRun], metric: str) -> tuple[list[GateRun], list[LeftOut]]:
    whole, left_out = [], []
    for run in runs:
        reason = incompleteness(run) or ("" if metric in run.metrics else f"it has no {metric}")
        if reason:
            left_out.append(LeftOut(run.run_id, run.name, reason, "candidate"))
        else:
            whole.append(run)
    if not runs:
        raise CannotCompareError("there are no runs: check the experiment and the filter")
    if not whole:
        keys = {key for run in runs for key in run.metrics}
        near = "" if metric in keys else did_you_mean(metric, {key: key for key in sorted(keys)})
        raise CannotCompareError(
            f"of {counted(len(runs), 'run')} none is FINISHED and complete and has the metric "
            f"{metric!r}{near}"
        )
    return whole, left_out


def _differing(fields: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    """The params, but for those that may vary among the seeds of one config, that differ."""
    comparable = Comparable()
    found = dict.fromkeys(name for one in fields for name in one if name.startswith(_PARAMS))
    return tuple(
        name
        for name in found
        if not names.is_seed(name)
        and not comparable.varies(name)
        and len({one.get(name) for one in fields}) > 1
    )


def _group(
    fields: Mapping[str, str | None],
    runs: Sequence[GateRun],
    metric: str,
    direction: Literal["higher", "lower"],
) -> Group:
    sign = -1.0 if direction == "higher" else 1.0
    ordered = sorted(
        runs,
        key=lambda run: (math.isnan(run.metrics[metric]), sign * run.metrics[metric], run.run_id),
    )
    values = [run.metrics[metric] for run in runs]
    summary = summary_of(values)
    constant = summary is None or to_losses(values, "lower").constant
    interval = None if summary is None or constant else _interval(summary)
    return Group(fields, tuple(ordered), summary, interval)


def _interval(summary: Summary) -> tuple[float, float] | None:
    if summary.sd is None:
        return None
    error = summary.sd / math.sqrt(summary.n)
    mean = Student(summary.mean, error, summary.n - 1)
    level = (1 - CONFIDENCE) / 2
    return float(mean.at_least(level)), float(mean.at_most(level))


def _place(group: Group, direction: str) -> tuple[bool, float, tuple[str, ...]]:
    texts = tuple(text or "" for text in group.fields.values())
    if group.summary is None:
        return True, 0.0, texts
    mean = group.summary.mean
    return False, -mean if direction == "higher" else mean, texts
