"""Makes runs the baseline: by tags that a policy's filter finds, or as a file to be reviewed.

Only runs that any later candidate can be held against are taken: what the gate would have to
leave out, or could not compare with, is refused here, where a person can see to it.
"""

import getpass
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orbiter_mlflow import names
from orbiter_mlflow.delivery.files.atomic_write import replace_file
from orbiter_mlflow.errors import BlessError
from orbiter_mlflow.gate import baseline_file, git, run_selection
from orbiter_mlflow.gate.baseline_file import Blessing
from orbiter_mlflow.gate.comparability import compare_fields, fields_of
from orbiter_mlflow.gate.model import LARGEST, GateRun
from orbiter_mlflow.gate.policy import MetricPolicy, Policy, expand
from orbiter_mlflow.gate.reports.wording import counted
from orbiter_mlflow.redaction.redactor import Redactor
from orbiter_mlflow.runs.model import StoredRun
from orbiter_mlflow.settings import MLflowSettings
from orbiter_mlflow.text.clock import now, utc
from orbiter_mlflow.text.values import tag_value

if TYPE_CHECKING:
    from orbiter_mlflow.runs.store import RunStore


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be blessed.

    Attributes:
        runs: ids, starts of ids, names, or filters.
        reason: why; secrets in it are redacted.
        name: of the baseline, as the tag `baseline` has it.
        file: write the runs there instead of tagging them.
        policy: whose metrics are needed, and which of their values.
        settings: where the store, the experiment and the spool are.
    """

    runs: Sequence[str]
    reason: str
    settings: MLflowSettings
    name: str = names.BASELINE_NAME
    file: Path | None = None
    policy: Policy | None = None


def carry_out(order: Order) -> list[str]:
    """Bless the runs, all or none; gives what was done, a line each.

    Raises:
        BlessError: they make no baseline.
        CannotCompareError: a filter finds none, or there is another file in the place of the
            baseline's.
        FilterError: MLflow does not understand a filter.
        OSError: the file cannot be written.
        PolicyError: a pattern of the policy matches no metric.
        StoreError: a run is not there, or the store does not answer.
    """
    # Here: a store costs seconds of imports.
    from orbiter_mlflow.runs.store import RunStore

    store = RunStore(order.settings.tracking_uri)
    experiment = run_selection.experiment_of(order.settings, store)
    stored = run_selection.named(store, order.runs, experiment=experiment)
    waiting = run_selection.waiting_here(*order.settings.spool_folders)
    runs, _ = run_selection.gate_runs(store, order.policy, stored, (), waiting)
    metrics = require_fit(runs, order.policy)
    blessing = _blessing(order)
    if order.file is None:
        return _tag(store, stored, blessing, order.name)
    fresh = _write(order.file, runs, metrics, blessing)
    holds = f"{counted(len(runs), 'run')} and {counted(len(metrics), 'metric')}"
    if not fresh:
        return [f"{order.file} is as it was: it holds these {holds} already"]
    return [f"{order.file} now holds {holds}: review and commit it"]


def _blessing(order: Order) -> Blessing:
    return Blessing(
        at=utc(now()),
        by=tag_value(git.user() or _login()),
        reason=tag_value(Redactor().text(order.reason)),
        policy=None if order.policy is None else order.policy.digest,
    )


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return "unknown"


def require_fit(
    runs: Sequence[GateRun], policy: Policy | None
) -> Mapping[str, MetricPolicy | None]:
    """The metrics for which these runs are a baseline: those of the policy, else all they have.

    Raises:
        BlessError: they are none.
        PolicyError: a pattern of the policy matches no metric.
    """
    keys = sorted({key for run in runs for key in run.metrics})
    wanted: Mapping[str, MetricPolicy | None] = (
        dict.fromkeys(keys) if policy is None else expand(policy, keys)
    )
    faults = [f"{_shown(run)} {fault}" for run in runs for fault in _faults(run, wanted, policy)]
    faults += _mixed(runs, policy)
    if faults:
        raise BlessError("\n".join(faults))
    return wanted


def _faults(
    run: GateRun, wanted: Mapping[str, MetricPolicy | None], policy: Policy | None
) -> Iterator[str]:
    if run.status != "FINISHED":
        yield f"is {run.status}: only FINISHED runs make a baseline"
    if run.undelivered:
        yield f"is not whole: {run.undelivered}"
    if not run.metrics:
        yield "has no metrics"
    for key in wanted:
        value = run.metrics.get(key)
        if value is None:
            if policy is not None:
                yield f"has no {key}, which the policy gates"
        elif not abs(value) < LARGEST:
            yield f"has {key} = {value}: nothing can be compared with that"


def _mixed(runs: Sequence[GateRun], policy: Policy | None) -> Iterator[str]:
    """What must be equal between candidate and baseline, but is not among these runs."""
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
                f"the runs differ in {field} ({shown}), so they are no single baseline: bless "
                "those that agree in it, or name with --policy what must be equal"
            )


def _shown(run: GateRun) -> str:
    return f"run {run.run_id} ({run.name})" if run.name else f"run {run.run_id}"


def _tag(store: "RunStore", runs: Sequence[StoredRun], blessing: Blessing, name: str) -> list[str]:
    lasting = {
        names.BASELINE: name,
        names.BLESSED_REASON: blessing.reason,
        names.BLESSED_POLICY: blessing.policy or "",
    }
    told = []
    for run in runs:
        if any(run.tags.get(key) != text for key, text in lasting.items()):
            when = {names.BLESSED_AT: blessing.at, names.BLESSED_BY: blessing.by}
            store.set_tags(run.run_id, lasting | when)
            former = run.tags.get(names.BASELINE, name)
            no_more = "" if former == name else f", and no more of {former}"
            told.append(f"run {run.run_id} is now part of the baseline {name}{no_more}")
        else:
            told.append(f"run {run.run_id} was part of the baseline {name} already")
    return [*told, f"a policy finds it by: filter = \"tags.{names.BASELINE} = '{name}'\""]


def _write(
    file: Path,
    runs: Sequence[GateRun],
    metrics: Mapping[str, MetricPolicy | None],
    blessing: Blessing,
) -> bool:
    """Write the file; False where it says the same already, who blessed and when apart."""
    fields = {one.paired_by for one in metrics.values() if one is not None and one.paired_by}
    paired_by = fields.pop() if len(fields) == 1 else None
    fresh = baseline_file.of_runs(runs, metrics, blessing, paired_by=paired_by)
    before = baseline_file.load(file)
    if before is not None:
        blessed = before.blessed.model_copy(update={"at": blessing.at, "by": blessing.by})
        if before.model_copy(update={"blessed": blessed}) == fresh:
            return False
    if not file.absolute().parent.is_dir():
        raise FileNotFoundError(f"{file} cannot be written: there is no folder {file.parent}")
    replace_file(file, fresh.text().encode())
    return True
