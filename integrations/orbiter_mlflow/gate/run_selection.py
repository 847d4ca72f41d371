"""Read candidates and baseline from a store, and find out which runs are incomplete.

Reads no more than it needs: pages on demand, and the history of a metric only if the policy uses
another value than the last.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import filterfalse, islice
from pathlib import Path
from typing import TYPE_CHECKING

from orbiter_mlflow import names
from orbiter_mlflow.delivery import spool
from orbiter_mlflow.delivery.ack import read_ack
from orbiter_mlflow.delivery.journal_reader import read_head
from orbiter_mlflow.errors import CannotCompareError, FilterError
from orbiter_mlflow.gate.model import ALL_OTHERS, LARGEST, GateRun
from orbiter_mlflow.gate.policy import MetricPolicy, Policy, expand
from orbiter_mlflow.runs.model import MetricPoint, StoredRun
from orbiter_mlflow.settings import MLflowSettings

if TYPE_CHECKING:
    from orbiter_mlflow.runs.store import RunStore

MAX_CANDIDATES = 1000
"""A filter that matches more runs is taken for a mistake."""

_DEFAULT_EXPERIMENT = "Default"
"""MLflow's experiment for runs that name none."""

_ENTITY = r"(?:metrics?|param(?:eter)?s?|tags?|attr(?:ibutes?)?|run|datasets?)\s*\."
_ATTRIBUTE = (
    r"(?:run_id|run_name|status|start_time|end_time|user_id|artifact_uri|lifecycle_stage|created)"
)
_FILTER = re.compile(
    rf"\s*(?:{_ENTITY}.*?|{_ATTRIBUTE}\s*)(?:[=<>]|!=|\b(?:NOT|I?LIKE|IN|IS)\b)",
    re.IGNORECASE | re.DOTALL,
)


def is_filter(text: str) -> bool:
    """Whether a text is an MLflow search filter, such as `tags.candidate = 'yes'`.

    Anything else is the name of a run, even `learning_rate=0.5`.
    """
    return _FILTER.match(text) is not None


def is_parent(run: StoredRun) -> bool:
    """Whether a run is the parent of a sweep, which has the tags of its children but no result: a
    filter does not mean it."""
    return names.SWEEP_CHILDREN in run.tags


def experiment_of(settings: MLflowSettings, store: "RunStore") -> str:
    """The name of the experiment in which names and filters are looked up.

    Raises:
        StoreError: there is no experiment with the id in the settings.
    """
    if settings.experiment is None and settings.experiment_id is not None:
        return store.experiment_name(settings.experiment_id)
    return settings.experiment or _DEFAULT_EXPERIMENT


def find_runs(store: "RunStore", texts: Iterable[str], *, experiment: str) -> list[StoredRun]:
    """Find runs by what the user typed; each run is returned once.

    Args:
        texts: each is an id, the start of an id, a name, or a search filter.
        experiment: the experiment in which names and filters are looked up.

    Raises:
        CannotCompareError: a filter matches no run, or too many.
        FilterError: MLflow does not understand a filter.
        StoreError: there is no such run, or the store cannot be read.
    """
    found: dict[str, StoredRun] = {}
    for text in texts:
        if not is_filter(text):
            runs = [store.find(text, experiment=experiment)]
        else:
            matching = store.search(text, [store.experiment_id(experiment)])
            try:
                runs = list(islice(filterfalse(is_parent, matching), MAX_CANDIDATES + 1))
            except FilterError as error:
                raise FilterError(
                    f"{error} (to name a run that looks like a filter, give its id)"
                ) from error
            if not runs:
                raise CannotCompareError(
                    f"no run of experiment {experiment!r} in {store.shown_uri} matches {text!r}: "
                    "check the filter, and that training logged there"
                )
            if len(runs) > MAX_CANDIDATES:
                raise CannotCompareError(
                    f"more than {MAX_CANDIDATES} runs match {text!r}: use a narrower filter"
                )
        found |= {run.run_id: run for run in runs}
    return list(found.values())


def waiting_here(*folders: Path) -> dict[str, Path]:
    """Journals with undelivered records in these folders: id of run or journal -> path."""
    found: dict[str, Path] = {}
    for journal in (one for folder in folders for one in spool.journals(folder)):
        if not spool.undelivered_bytes(journal):
            continue
        ids = {read_ack(journal).run_id}
        try:
            head = read_head(journal)
            ids |= {head.uid, head.run_id, head.run_uid}
        except (OSError, ValueError):
            pass  # delivered meanwhile, or unreadable: `status` shows it
        found |= {id_: journal for id_ in ids if id_}
    return found


def undelivered(run: StoredRun, waiting: Mapping[str, Path]) -> str:
    """Why a run lacks something that was logged; empty if nothing indicates that."""
    if run.deleted:
        return "it is deleted: restore it in MLflow, or name another run"
    journal = waiting.get(run.run_id) or waiting.get(run.tags.get(names.UID, ""))
    if journal is not None:
        return f"part of it waits on this machine: orbiter-mlflow sync {journal}"
    for tag, what in _INCOMPLETE.items():
        count = run.tags.get(tag, "0")
        if count != "0":
            return f"{count} {what} (tag {tag})"
    return ""


_INCOMPLETE = {
    names.LOST: "records were not taken by the disk of the training machine",
    names.DAMAGED: "lines of its journal could not be read",
    names.QUARANTINED: "entries were refused by MLflow",
}


def gate_runs(
    store: "RunStore",
    policy: Policy | None,
    candidate: Sequence[StoredRun],
    baseline: Sequence[StoredRun],
    waiting: Mapping[str, Path],
    *,
    also: Collection[str] = (),
) -> tuple[list[GateRun], list[GateRun]]:
    """Candidates and baseline with the values that the policy uses; without one, the last values.

    Args:
        policy: None to take the last value of each metric.
        waiting: from `waiting_here`.
        also: further metric keys that a pattern of the policy may match.

    Raises:
        PolicyError: a pattern of the policy matches no metric.
        StoreError: the store cannot be read.
    """
    runs = [*candidate, *baseline]
    keys = {key for run in runs for key in run.metrics}.union(also)
    metrics = {} if policy is None else expand(policy, keys)
    elsewhere = {key: expected for key, expected in metrics.items() if expected.at != "last"}
    read = [_gate_run(store, run, elsewhere, waiting) for run in runs]
    return read[: len(candidate)], read[len(candidate) :]


def _gate_run(
    store: "RunStore",
    run: StoredRun,
    elsewhere: Mapping[str, MetricPolicy],
    waiting: Mapping[str, Path],
) -> GateRun:
    metrics = dict(run.metrics)
    evaluations: dict[str, int] = {}
    for key in elsewhere.keys() & metrics.keys():
        expected = elsewhere[key]
        points = store.history(run.run_id, key)
        if expected.at == "best":
            evaluations[key] = len(points)
        value = _value_at(points, expected)
        del metrics[key]
        if value is not None:
            metrics[key] = value
    return GateRun(
        run_id=run.run_id,
        name=run.name,
        status=run.status,
        params=run.params,
        datasets=_datasets(run),
        metrics=metrics,
        undelivered=undelivered(run, waiting),
        start_time=run.start_time,
        data=_data(run.tags),
        commit=run.tags.get(names.GIT_COMMIT, ""),
        dirty=run.tags.get(names.GIT_DIRTY) == "true",
        evaluations=evaluations,
    )


def _value_at(points: Sequence[MetricPoint], expected: MetricPolicy) -> float | None:
    """The best value, or the value at a step; None if there is no such step.

    If one value is NaN or infinite, it is the result: a run that diverged has no best value.
    """
    if expected.at != "best":
        step = int(expected.at.removeprefix("step="))
        here = [point.value for point in points if point.step == step]
        return here[-1] if here else None
    values = [point.value for point in points]
    diverged = [value for value in values if not abs(value) < LARGEST]
    if diverged:
        return diverged[0]
    if expected.direction == "target":
        target = expected.target or 0.0
        return min(values, key=lambda value: abs(value - target), default=None)
    return (max if expected.direction == "higher" else min)(values, default=None)


def _datasets(run: StoredRun) -> dict[str, str]:
    by_context: dict[str, set[str]] = {}
    for one in run.datasets:
        by_context.setdefault(one.context, set()).add(f"{one.name}:{one.digest}")
    return {context: ",".join(sorted(found)) for context, found in by_context.items()}


def _data(tags: Mapping[str, str]) -> dict[str, str]:
    """The data behind each prefix of metric keys, from the tags of a run and its resumptions."""
    found: dict[str, dict[str, str]] = {}
    for tag, text in tags.items():
        if tag != names.EVALUATED_DATA and not tag.startswith(f"{names.EVALUATED_DATA}."):
            continue
        try:
            table = json.loads(text)
            for prefix, data in table.items():
                if prefix != ALL_OTHERS:
                    found.setdefault(prefix, {})[str(data["digest"])] = str(data["name"])
                else:
                    found.setdefault(prefix, {})
        except (ValueError, TypeError, KeyError, AttributeError):  # edited by hand: unknown
            found.setdefault(ALL_OTHERS, {})
    return {
        prefix: ",".join(sorted(f"{name}:{digest}" for digest, name in data.items()))
        for prefix, data in found.items()
    }
