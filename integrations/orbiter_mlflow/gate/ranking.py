"""Rank the configs of a sweep by a metric over their seeds. Pure: reads no store."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from orbiter_mlflow import names
from orbiter_mlflow.errors import CannotCompareError
from orbiter_mlflow.gate.attempts import incompleteness, newest_attempts, seed_of, seed_words
from orbiter_mlflow.gate.comparability import data_note, fields_of, shown_ids
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
_DATASETS = "datasets."
_COMMIT_SHOWN = 7
_ID_SHOWN = 8


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
    seed, the newest. Runs on different data, or in different groups, are never attempts of one
    another.

    Args:
        by: fields that make the groups. Without any: all params and datasets in which the runs
            differ, but for seeds and `output_dir`, so that each group is the seeds of one config
            on the same data.

    Raises:
        CannotCompareError: no run counts, or none has a field of `by`.
    """
    whole, left_out = _usable(runs, metric)
    fields = {run.run_id: fields_of(run) for run in whole}
    known = {name for one in fields.values() for name in one}
    for name in by:
        if name not in known:
            near = did_you_mean(name, {one: one for one in sorted(known)})
            raise CannotCompareError(f"no run that counts has the field {name!r}{near}")
    chosen = tuple(dict.fromkeys(by)) or _differing(list(fields.values()))
    ranked, repeated = _newest(whole, fields, chosen)
    groups = [
        _group(dict(zip(chosen, identity, strict=True)), found, metric, direction)
        for identity, found in _alike(ranked, fields, chosen).items()
    ]
    groups.sort(key=lambda group: _place(group, direction))
    notes = data_note(metric, ranked), _seeds_note(groups), _commits_note(groups)
    return Ranking(
        metric,
        direction,
        chosen,
        bool(by),
        tuple(groups),
        (*left_out, *repeated),
        tuple(note for note in notes if note),
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


def _newest(
    whole: Sequence[GateRun], fields: Mapping[str, Mapping[str, str]], chosen: Sequence[str]
) -> tuple[list[GateRun], list[LeftOut]]:
    """The newest attempt of each seed, among runs of one group on the same data; and the others."""
    data = {name for one in fields.values() for name in one if name.startswith(_DATASETS)}
    ranked: list[GateRun] = []
    repeated: list[LeftOut] = []
    for runs in _alike(whole, fields, sorted({*chosen, *data})).values():
        newest, earlier = newest_attempts(None, runs, "candidate")
        ranked += newest
        repeated += earlier
    return ranked, repeated


def _alike(
    runs: Sequence[GateRun], fields: Mapping[str, Mapping[str, str]], by: Sequence[str]
) -> dict[tuple[str | None, ...], list[GateRun]]:
    """The runs that have the same values of some fields, by these values."""
    found: dict[tuple[str | None, ...], list[GateRun]] = {}
    for run in runs:
        identity = tuple(fields[run.run_id].get(name) for name in by)
        found.setdefault(identity, []).append(run)
    return found


def _seeds_note(groups: Sequence[Group]) -> str:
    """A sentence that groups hold a seed more than once; empty if none does."""
    examples = []
    for group in groups:
        runs_of: dict[str, list[str]] = {}
        for run in group.runs:
            seed = {key: text for key, text in seed_of(run).items() if key not in group.fields}
            if seed:
                runs_of.setdefault(seed_words(seed), []).append(run.run_id[:_ID_SHOWN])
        repeated = {seed: run_ids for seed, run_ids in runs_of.items() if len(run_ids) > 1}
        for words in sorted(repeated)[:1]:
            examples.append(f"{words} in {shown_ids(sorted(repeated[words]))}")
    if not examples:
        return ""
    return (
        f"{_of(len(examples), len(groups))} the same seed more than once (as {examples[0]}): "
        "values of one seed depend on each other, so the interval is too narrow; choose among "
        "the runs with a filter, or group by what tells them apart"
    )


def _commits_note(groups: Sequence[Group]) -> str:
    """A sentence that groups hold runs of several commits; empty if none does."""
    several = []
    for group in groups:
        commits = sorted({run.commit for run in group.runs if run.commit})
        if len(commits) > 1:
            several.append(shown_ids([commit[:_COMMIT_SHOWN] for commit in commits]))
    if not several:
        return ""
    return (
        f"{_of(len(several), len(groups))} runs of several commits (as {several[0]}): choose those "
        "of one with a filter, if the code matters"
    )


def _of(some: int, groups: int) -> str:
    return f"{some} of {counted(groups, 'row')} {'has' if some == 1 else 'have'}"


def _differing(fields: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    """The params and datasets that differ, but for what may vary among the seeds of a config."""
    comparable = Comparable()
    found = dict.fromkeys(name for one in fields for name in one)
    return tuple(
        name
        for name in found
        if not (name.startswith(_PARAMS) and (names.is_seed(name) or comparable.varies(name)))
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
