"""Make runs the baseline: by tags that a policy's filter finds, or as a file to review.

Runs that the gate would have to leave out, or could not compare with, are refused here, where a
person can do something about it.
"""

import getpass
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orbiter_mlflow import names
from orbiter_mlflow.delivery.files.atomic_write import replace_file
from orbiter_mlflow.errors import BlessError
from orbiter_mlflow.gate import baseline_file, git, run_selection
from orbiter_mlflow.gate.attempts import newest_attempts
from orbiter_mlflow.gate.baseline_file import DEFAULT_LAST, Blessing, comparable_values
from orbiter_mlflow.gate.baseline_runs import newest_blessing
from orbiter_mlflow.gate.blessings import Batch, Entry, tag_with
from orbiter_mlflow.gate.comparability import compare_fields, fields_of, param_of, unusable_values
from orbiter_mlflow.gate.lowered import (
    compare_means,
    describe_changes,
    require_not_lower,
    values_of,
)
from orbiter_mlflow.gate.model import GateRun, Sample, counted
from orbiter_mlflow.gate.policy import MetricPolicy, Policy, expand
from orbiter_mlflow.redaction.redactor import Redactor
from orbiter_mlflow.runs.model import StoredRun
from orbiter_mlflow.settings import MLflowSettings
from orbiter_mlflow.text.clock import now, utc
from orbiter_mlflow.text.suggestions import did_you_mean
from orbiter_mlflow.text.values import tag_value

if TYPE_CHECKING:
    from orbiter_mlflow.runs.store import RunStore


@dataclass(frozen=True, slots=True)
class BlessRequest:
    """The runs to bless, and how.

    Attributes:
        runs: ids, starts of ids, names, or filters.
        reason: why these runs are the baseline; secrets in it are redacted.
        settings: tracking URI, experiment and spool.
        name: the baseline's name, the value of the tag `baseline`.
        file: write the runs to this file instead of tagging them.
        policy: says which metrics, and which of their values, the runs need.
        accept_lower: metrics that may be worse than the present baseline by more than their
            tolerance.
    """

    runs: Sequence[str]
    reason: str
    settings: MLflowSettings
    name: str = names.BASELINE_NAME
    file: Path | None = None
    policy: Policy | None = None
    accept_lower: Sequence[str] = ()


def bless_runs(request: BlessRequest) -> list[str]:
    """Bless all runs or none; returns lines that say what was done.

    Raises:
        BlessError: the runs cannot be a baseline, or are worse than the present one.
        CannotCompareError: a filter finds no run, or `file` exists and is not a baseline file.
        FilterError: MLflow does not understand a filter.
        OSError: the file cannot be written.
        PolicyError: a pattern of the policy matches no metric.
        StoreError: a run is missing, or the store does not answer.
    """
    # Imported here because it takes seconds.
    from orbiter_mlflow.runs.store import RunStore

    store = RunStore(request.settings.tracking_uri)
    experiment = run_selection.experiment_of(request.settings, store)
    stored = run_selection.find_runs(store, request.runs, experiment=experiment)
    waiting = run_selection.waiting_here(*request.settings.spool_folders)
    every, _ = run_selection.gate_runs(store, request.policy, stored, (), waiting)
    runs, earlier = newest_attempts(request.policy, every, "baseline")
    metrics = require_fit(runs, request.policy)
    _require_known(request.accept_lower, metrics)
    blessing = _blessing(request)
    if request.file is None:
        kept = {run.run_id for run in runs}
        newest = [run for run in stored if run.run_id in kept]
        lines = _bless_by_tags(store, request, newest, runs, metrics, blessing)
    else:
        lines = _bless_by_file(request.file, request, runs, metrics, blessing)
    return [*(f"run {one.run_id} is left out: {one.reason}" for one in earlier), *lines]


def _require_known(accepted: Sequence[str], metrics: Mapping[str, MetricPolicy | None]) -> None:
    for key in accepted:
        if key not in metrics:
            near = did_you_mean(key, {one: one for one in metrics})
            raise BlessError(f"--accept-lower {key}: the policy gates no such metric{near}")


def _bless_by_tags(
    store: "RunStore",
    request: BlessRequest,
    stored: Sequence[StoredRun],
    runs: Sequence[GateRun],
    metrics: Mapping[str, MetricPolicy | None],
    blessing: Blessing,
) -> list[str]:
    homes = sorted({run.experiment_id for run in stored})
    newest = newest_blessing(store, request.name, homes)
    finds = f"a policy finds it by: filter = \"tags.{names.BASELINE} = '{request.name}'\""
    if newest is not None and {one.run_id for one in newest.runs} == {r.run_id for r in stored}:
        return [*_again(store, newest, blessing, request.name), finds]
    before = [] if newest is None else list(newest.runs)
    old, _ = run_selection.gate_runs(store, request.policy, before, (), {}, also=metrics)
    old, _ = newest_attempts(request.policy, old, "baseline")
    changes = compare_means(metrics, values_of(old, metrics), values_of(runs, metrics))
    lowered = require_not_lower(changes, request.accept_lower)
    entry = Entry(request.name, blessing.at, secrets.token_hex(4), tuple(lowered))
    lines = []
    for run in stored:
        tags = {
            names.BASELINE: request.name,
            names.BLESSED_AT: blessing.at,
            names.BLESSED_BY: blessing.by,
            names.BLESSED_REASON: blessing.reason,
            names.BLESSED_POLICY: blessing.policy or "",
            names.BLESSINGS: tag_with(run, entry),
        }
        store.set_tags(run.run_id, tags)
        former = run.tags.get(names.BASELINE, request.name)
        moved = "" if former == request.name else f", and no longer of {former}"
        lines.append(f"run {run.run_id} is now part of the baseline {request.name}{moved}")
    if before:
        former = counted(len(before), "run")
        lines.append(f"{counted(len(stored), 'run')} replace the former blessing of {former}")
    return [*lines, *describe_changes(changes), finds]


def _again(store: "RunStore", newest: Batch, blessing: Blessing, name: str) -> list[str]:
    """Bless the newest blessing once more: only another reason or policy is recorded."""
    lasting = {
        names.BLESSED_REASON: blessing.reason,
        names.BLESSED_POLICY: blessing.policy or "",
    }
    lines = []
    for run in newest.runs:
        changed = any(run.tags.get(key) != text for key, text in lasting.items())
        if changed:
            store.set_tags(run.run_id, lasting | {names.BLESSED_BY: blessing.by})
        more = "; its reason and policy are new" if changed else ""
        lines.append(f"run {run.run_id} is already part of the baseline {name}{more}")
    return lines


def _blessing(request: BlessRequest) -> Blessing:
    return Blessing(
        at=utc(now()),
        by=tag_value(git.user_name() or _login()),
        reason=tag_value(Redactor().text(request.reason)),
        policy=None if request.policy is None else request.policy.digest,
    )


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may have no name for its user
        return "unknown"


def require_fit(
    runs: Sequence[GateRun], policy: Policy | None
) -> Mapping[str, MetricPolicy | None]:
    """The metrics of the baseline: those of the policy, else all that the runs have, but for those
    of the system.

    Raises:
        BlessError: the runs cannot be a baseline for them; the message lists all reasons.
        PolicyError: a pattern of the policy matches no metric.
    """
    keys = sorted({key for run in runs for key in run.metrics})
    expected: Mapping[str, MetricPolicy | None] = (
        dict.fromkeys(key for key in keys if not names.is_system_key(key))
        if policy is None
        else expand(policy, keys)
    )
    faults = [f"{_shown(run)} {fault}" for run in runs for fault in _faults(run, expected, policy)]
    faults += _mixed(runs, policy)
    if policy is not None and policy.baseline.pool == 1 and len(runs) < policy.baseline.needed:
        found = counted(len(runs), "run")
        faults.append(
            f"{found} cannot be a baseline: the policy needs {policy.baseline.needed} (min_runs); "
            "bless as many in one call"
        )
    if faults:
        raise BlessError("\n".join(faults))
    return expected


def _faults(
    run: GateRun, expected: Mapping[str, MetricPolicy | None], policy: Policy | None
) -> Iterator[str]:
    if run.status != "FINISHED":
        yield f"is {run.status}: only FINISHED runs can be a baseline"
    if run.undelivered:
        yield f"is incomplete: {run.undelivered}"
    if not run.metrics:
        yield "has no metrics"
    elif policy is None and not run.metrics.keys() & expected.keys():
        yield "has no metrics but those of the system, which count only where a policy names them"
    for field in () if policy is None else policy.paired_by:
        if param_of(run, field) is None:
            yield f"has no {field}, by which the policy pairs runs"
    for key in expected:
        value = run.metrics.get(key)
        if value is None:
            if policy is not None:
                yield f"has no {key}, which the policy gates"
        elif unusable_values(Sample({run.run_id: value})):
            yield f"has {key} = {value}: nothing can be compared with that"


def _mixed(runs: Sequence[GateRun], policy: Policy | None) -> Iterator[str]:
    """Fields that must be equal between candidate and baseline, but differ among these runs."""
    if policy is not None:
        found = {one.field: one.candidate for one in compare_fields(policy, runs, ()).differences}
    else:
        fields = [fields_of(run) for run in runs]
        data = {name for one in fields for name in one if name.startswith("datasets.")}
        found = {name: tuple({one.get(name) for one in fields}) for name in data}
    for field, values in sorted(found.items()):
        if len(values) > 1:
            shown = ", ".join(sorted("none" if text is None else text for text in values))
            yield (
                f"the runs differ in {field} ({shown}), so they are not one baseline: bless "
                "runs that agree in it, or pass the --policy that says what must be equal"
            )


def _shown(run: GateRun) -> str:
    return f"run {run.run_id} ({run.name})" if run.name else f"run {run.run_id}"


def _bless_by_file(
    file: Path,
    request: BlessRequest,
    runs: Sequence[GateRun],
    metrics: Mapping[str, MetricPolicy | None],
    blessing: Blessing,
) -> list[str]:
    fields = {one.paired_by for one in metrics.values() if one is not None and one.paired_by}
    paired_by = fields.pop() if len(fields) == 1 else None
    new = baseline_file.make_baseline(runs, metrics, blessing, paired_by=paired_by)
    old = baseline_file.load_baseline(file)
    content = f"{counted(len(runs), 'run')} and {counted(len(metrics), 'metric')}"
    if old is not None and old.holds(new):
        return [f"{file} is unchanged: it already has these {content}"]
    changes = compare_means(
        metrics,
        {} if old is None else comparable_values(old, metrics),
        values_of(runs, metrics),
    )
    lowered = require_not_lower(changes, request.accept_lower)
    last = DEFAULT_LAST if request.policy is None else request.policy.baseline.last
    new = new.after(old, lowered=lowered, last=last)
    if not file.absolute().parent.is_dir():
        raise FileNotFoundError(f"{file} cannot be written: there is no folder {file.parent}")
    replace_file(file, new.text().encode())
    return [f"{file} now has {content}: review and commit it", *describe_changes(changes)]
