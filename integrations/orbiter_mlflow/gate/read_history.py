"""Read a metric over the blessings, from a store or a baseline file."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from orbiter_mlflow import names
from orbiter_mlflow.errors import CannotCompareError, PolicyError
from orbiter_mlflow.gate import baseline_file, run_selection
from orbiter_mlflow.gate.attempts import newest_attempts
from orbiter_mlflow.gate.baseline_runs import find_baseline
from orbiter_mlflow.gate.lineage import PastBlessing
from orbiter_mlflow.gate.past import past_of_file, past_of_runs
from orbiter_mlflow.gate.policy import Policy
from orbiter_mlflow.gate.policy.baseline import Baseline
from orbiter_mlflow.settings import MLflowSettings
from orbiter_mlflow.text.suggestions import did_you_mean

__all__ = ["HistoryRequest", "read_history"]


@dataclass(frozen=True, slots=True)
class HistoryRequest:
    """The metric to read, and the blessings.

    Attributes:
        last: the number of blessings, the newest.
        policy: names the baseline, and the point of the metric's history that counts.
        policy_file: the path of the policy.
        filter: an MLflow filter, instead of a policy's; None for that of `bless`.
        file: a baseline file, instead of a filter.
    """

    metric: str
    settings: MLflowSettings
    last: int
    policy: Policy | None = None
    policy_file: Path | None = None
    filter: str | None = None
    file: Path | None = None


def read_history(request: HistoryRequest) -> list[PastBlessing]:
    """The blessings that have the metric, the oldest first; each has this metric alone.

    Raises:
        CannotCompareError: no blessing has the metric, or the file is no baseline file.
        FilterError: MLflow does not understand the filter.
        PolicyError: the policy does not have the metric, or its baseline is a single run.
        StoreError: the store cannot be read.
    """
    policy = None if request.policy is None else _of_metric(request.policy, request.metric)
    file = request.file
    if file is None and policy is not None and policy.baseline.file is not None:
        file = (request.policy_file or Path()).parent / policy.baseline.file
    if file is not None:
        found, keys, where = _from_file(file, policy)
    else:
        found, keys, where = _from_store(request, policy)
    having = [one for one in found if request.metric in one.metrics]
    if not having:
        near = did_you_mean(request.metric, {key: repr(key) for key in keys})
        none = f"no blessing of {where} has the metric {request.metric!r}" if found else ""
        raise CannotCompareError(f"{none or f'there is no blessing: {where} finds no run'}{near}")
    return having[: request.last][::-1]


def _of_metric(policy: Policy, metric: str) -> Policy:
    """The policy with this metric only."""
    if policy.baseline.run is not None:
        raise PolicyError(
            f"{policy.path}: baseline.run is a single run, without a history: name the blessings "
            "with --filter or --file"
        )
    matching = [one for key, one in policy.metrics.items() if fnmatchcase(metric, key)]
    expected = policy.metrics.get(metric) or next(iter(matching), None)
    if expected is None:
        near = did_you_mean(metric, {key: key for key in policy.metrics})
        raise PolicyError(f"{policy.path}: has no metric {metric}{near}")
    return policy.model_copy(update={"metrics": {metric: expected}})


def _from_file(file: Path, policy: Policy | None) -> tuple[list[PastBlessing], set[str], str]:
    content = baseline_file.load_baseline(file)
    if content is None:
        raise CannotCompareError(
            f"there is no file {file}: write it with `orbiter-mlflow bless RUN... --file`"
        )
    found = past_of_file(policy, content)
    return found, {key for one in found for key in one.metrics}, f"file {file}"


def _from_store(
    request: HistoryRequest, policy: Policy | None
) -> tuple[list[PastBlessing], set[str], str]:
    # Imported here because it takes seconds.
    from orbiter_mlflow.runs.store import RunStore

    store = RunStore(request.settings.tracking_uri)
    experiment = run_selection.experiment_of(request.settings, store)
    text = request.filter or f"tags.{names.BASELINE} = '{names.BASELINE_NAME}'"
    if request.filter is None and policy is not None:
        text = policy.baseline.filter or text
    waiting = run_selection.waiting_here(*request.settings.spool_folders)
    found = find_baseline(
        store,
        Baseline(filter=text, last=request.last),
        {store.experiment_id(experiment): experiment},
        candidates=(),
        waiting=waiting,
    )
    batches = (*found.pooled, *found.former)
    stored = list({run.run_id: run for batch in batches for run in batch.runs}.values())
    read, _ = run_selection.gate_runs(store, policy, stored, (), waiting, also={request.metric})
    runs = {run.run_id: run for run in read}
    past = []
    for batch in batches:
        counted, _ = newest_attempts(policy, [runs[run.run_id] for run in batch.runs], "baseline")
        past.append(past_of_runs(None, batch, counted, (), [request.metric]))
    keys = {key for run in read for key in run.metrics}
    return past, keys, f"filter {text} in experiment {experiment}"
