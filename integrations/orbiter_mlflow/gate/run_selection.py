"""Runs of a store as the gate sees them: the candidates, the baseline, and what of them is missing.

It reads no more of a store than it takes: pages as they are needed, a history only where the
policy asks for another than the latest value.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from orbiter_mlflow import names
from orbiter_mlflow.delivery import spool
from orbiter_mlflow.delivery.ack import read_ack
from orbiter_mlflow.delivery.journal_reader import read_head
from orbiter_mlflow.errors import CannotCompareError, FilterError
from orbiter_mlflow.gate.model import ALL_OTHERS, LARGEST, GateRun, LeftOut
from orbiter_mlflow.gate.policy import MetricPolicy, Policy, expand
from orbiter_mlflow.runs.model import StoredRun
from orbiter_mlflow.settings import MLflowSettings

if TYPE_CHECKING:
    from orbiter_mlflow.runs.store import RunStore

MAX_CANDIDATES = 1000
"""A filter that finds more of them was not meant so."""
LOOKED_AT = 1000
"""Runs met that are not taken, before the search for a baseline ends: a store in which thousands
of runs never finished costs neither their time nor their memory."""

_DEFAULT_EXPERIMENT = "Default"
"""MLflow's, where no experiment is named."""

_ENTITY = r"(?:metrics?|param(?:eter)?s?|tags?|attr(?:ibutes?)?|run|datasets?)\s*\."
_ATTRIBUTE = (
    r"(?:run_id|run_name|status|start_time|end_time|user_id|artifact_uri|lifecycle_stage|created)"
)
_FILTER = re.compile(
    rf"\s*(?:{_ENTITY}.*?|{_ATTRIBUTE}\s*)(?:[=<>]|!=|\b(?:NOT|I?LIKE|IN|IS)\b)",
    re.IGNORECASE | re.DOTALL,
)


def is_filter(text: str) -> bool:
    """Whether a text is a search filter of MLflow's: `tags.candidate = 'yes'`.

    Anything else is the name of a run, `learning_rate=0.5` too.
    """
    return _FILTER.match(text) is not None


def experiment_of(settings: MLflowSettings, store: "RunStore") -> str:
    """The name of the experiment in which names and filters are looked up.

    Raises:
        StoreError: there is no experiment of the id that the settings name.
    """
    if settings.experiment is None and settings.experiment_id is not None:
        return store.experiment_name(settings.experiment_id)
    return settings.experiment or _DEFAULT_EXPERIMENT


def named(store: "RunStore", texts: Iterable[str], *, experiment: str) -> list[StoredRun]:
    """The runs that are meant, each once.

    Args:
        store: where they are.
        texts: an id, the start of one, a name, or a search filter each.
        experiment: where names and filters are looked up.

    Raises:
        CannotCompareError: a filter finds nothing, or far too much.
        FilterError: MLflow does not understand a filter.
        StoreError: a run is not there, or the store cannot be read.
    """
    found: dict[str, StoredRun] = {}
    for text in texts:
        if not is_filter(text):
            runs = [store.find(text, experiment=experiment)]
        else:
            matching = store.search(text, [store.experiment_id(experiment)])
            try:
                runs = list(islice(matching, MAX_CANDIDATES + 1))
            except FilterError as error:
                raise FilterError(f"{error} (a run of such a name is given by its id)") from error
            if not runs:
                raise CannotCompareError(
                    f"no run of experiment {experiment!r} in {store.shown_uri} matches {text!r}: "
                    "check that training has logged there, and the filter"
                )
            if len(runs) > MAX_CANDIDATES:
                raise CannotCompareError(
                    f"more than {MAX_CANDIDATES} runs match {text!r}: narrow it down"
                )
        found |= {run.run_id: run for run in runs}
    return list(found.values())


@dataclass(frozen=True, slots=True)
class Found:
    """The runs that a filter gave, those met on the way that are not taken, and what was asked."""

    runs: Sequence[StoredRun]
    left_out: Sequence[LeftOut]
    described: str


def latest_finished(
    store: "RunStore",
    filter_string: str,
    experiments: Mapping[str, str],
    *,
    last: int,
    candidates: Collection[str],
    waiting: Mapping[str, Path],
    looked_at: int = LOOKED_AT,
) -> Found:
    """The `last` runs that match, by their start, are FINISHED, whole and no candidates.

    Args:
        experiments: where they are, name by id.
        candidates: ids of the runs to judge: one that matches is passed over, so that as many
            others are taken.
        waiting: as `waiting_here` gives it.
        looked_at: runs met that are not taken, before the search ends.

    Raises:
        FilterError: MLflow does not understand the filter.
        StoreError: the store cannot be read.
    """
    runs: list[StoredRun] = []
    left_out: list[LeftOut] = []
    where = ", ".join(experiments.values())
    described = f"filter {filter_string} in experiment {where}, last {last}"
    page = min(LOOKED_AT, last + len(candidates))
    for run in store.search(filter_string, list(experiments), page=page):
        reason = _unfit(run, candidates, waiting)
        if not reason:
            runs.append(run)
        elif len(left_out) < looked_at:
            left_out.append(LeftOut(run.run_id, run.name, reason))
        else:
            described += f" (not found among the latest {len(runs) + len(left_out)} that match)"
            break
        if len(runs) == last:
            break
    return Found(runs, left_out, described)


def _unfit(run: StoredRun, candidates: Collection[str], waiting: Mapping[str, Path]) -> str:
    if run.run_id in candidates:
        return "it is a candidate itself"
    if run.status != "FINISHED":
        return f"it is {run.status}, not FINISHED"
    return undelivered(run, waiting)


def waiting_here(*folders: Path) -> dict[str, Path]:
    """The journals in folders that hold something their store has not got, by the ids of the
    run and of the journal."""
    found: dict[str, Path] = {}
    for journal in (one for folder in folders for one in spool.journals(folder)):
        if not spool.undelivered_bytes(journal):
            continue
        ids = {read_ack(journal).run_id}
        try:
            head = read_head(journal)
            ids |= {head.uid, head.run_id}
        except (OSError, ValueError):
            pass  # delivered meanwhile, or no journal: `status` shows it
        found |= {one: journal for one in ids if one}
    return found


def undelivered(run: StoredRun, waiting: Mapping[str, Path]) -> str:
    """Why a run is not all that was logged; empty where nothing says so."""
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
    """Candidates and baseline with the values that the policy asks for, the latest without one.

    Args:
        also: keys of further metrics that a pattern of the policy may mean.

    Raises:
        PolicyError: a pattern of the policy matches no metric.
        StoreError: the store cannot be read.
    """
    runs = [*candidate, *baseline]
    keys = {key for run in runs for key in run.metrics}.union(also)
    meant = {} if policy is None else expand(policy, keys)
    elsewhere = {key: wanted for key, wanted in meant.items() if wanted.at != "last"}
    seen = [_gate_run(store, run, elsewhere, waiting) for run in runs]
    return seen[: len(candidate)], seen[len(candidate) :]


def _gate_run(
    store: "RunStore",
    run: StoredRun,
    elsewhere: Mapping[str, MetricPolicy],
    waiting: Mapping[str, Path],
) -> GateRun:
    metrics = dict(run.metrics)
    for key in elsewhere.keys() & metrics.keys():
        value = _value_at(store, run.run_id, key, elsewhere[key])
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
    )


def _value_at(store: "RunStore", run_id: str, key: str, wanted: MetricPolicy) -> float | None:
    """The best value, or that at a step; None where there is no such step.

    One NaN or infinity on the way is the best one: what a run that went astray had before is no
    merit.
    """
    points = store.history(run_id, key)
    if wanted.at != "best":
        step = int(wanted.at.removeprefix("step="))
        here = [point.value for point in points if point.step == step]
        return here[-1] if here else None
    values = [point.value for point in points]
    astray = [value for value in values if not abs(value) < LARGEST]
    if astray:
        return astray[0]
    if wanted.direction == "target":
        target = wanted.target or 0.0
        return min(values, key=lambda value: abs(value - target), default=None)
    return (max if wanted.direction == "higher" else min)(values, default=None)


def _datasets(run: StoredRun) -> dict[str, str]:
    by_context: dict[str, set[str]] = {}
    for one in run.datasets:
        by_context.setdefault(one.context, set()).add(f"{one.name}:{one.digest}")
    return {context: ",".join(sorted(found)) for context, found in by_context.items()}


def _data(tags: Mapping[str, str]) -> dict[str, str]:
    """The data behind each prefix of metric keys, as all lives of a run tell it."""
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
        except (ValueError, TypeError, KeyError, AttributeError):  # changed by hand: not known
            found.setdefault(ALL_OTHERS, {})
    return {
        prefix: ",".join(sorted(f"{name}:{digest}" for digest, name in data.items()))
        for prefix, data in found.items()
    }
