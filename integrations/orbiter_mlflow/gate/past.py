"""Former blessings as the gate compares with them: summaries of their values, from runs or a file.

Pure.
"""

from collections.abc import Collection, Sequence

from orbiter_mlflow.gate.baseline_file import BaselineFile, Blessing, FormerBlessing, point_of
from orbiter_mlflow.gate.blessings import Batch
from orbiter_mlflow.gate.comparability import compare_data, compare_fields
from orbiter_mlflow.gate.lineage import PastBlessing, Summary
from orbiter_mlflow.gate.model import GateRun
from orbiter_mlflow.gate.policy import Policy, expand
from orbiter_mlflow.gate.statistics import MAX_VALUE, mean_of, spread_of

__all__ = ["past_of_file", "past_of_runs", "summary_of"]


def summary_of(values: Sequence[float]) -> Summary | None:
    """Summarize the values of a metric; None without values, or if one cannot be compared."""
    if not values or not all(abs(value) <= MAX_VALUE for value in values):
        return None
    return Summary(len(values), mean_of(values), spread_of(values))


def past_of_runs(
    policy: Policy | None,
    batch: Batch,
    runs: Sequence[GateRun],
    newest: Sequence[GateRun],
    keys: Collection[str],
) -> PastBlessing:
    """A blessing whose runs are in a store.

    Args:
        policy: says what must be equal in `runs` and `newest`; None if nothing must.
        runs: the usable runs of the batch.
        newest: the runs of the baseline.
        keys: the metrics to keep. With `policy`, those are left out that were measured on other
            data than in `newest`.
    """
    if policy is not None:
        keys = [key for key in keys if not compare_data(policy, key, newest, runs)]
    found = {key: summary_of([r.metrics[key] for r in runs if key in r.metrics]) for key in keys}
    return PastBlessing(
        label=batch.label,
        metrics={key: one for key, one in found.items() if one is not None},
        at="" if batch.entry is None else batch.entry.at,
        by=batch.by,
        reason=batch.reason,
        commit=batch.commit,
        lowered=() if batch.entry is None else batch.entry.lowered,
        differs=() if policy is None else _differences(policy, newest, runs),
    )


def past_of_file(policy: Policy | None, file: BaselineFile) -> list[PastBlessing]:
    """The blessings of a baseline file, the newest first.

    Args:
        policy: says which point of a metric's history counts, and what must be equal; None to take
            the values as they are.
    """
    expected = None if policy is None else expand(policy, file.metrics)
    newest = file.gate_runs()
    found = []
    for index, one in enumerate([file.as_former(), *file.former]):
        kept = {
            key: Summary(metric.n, metric.mean, metric.sd)
            for key, metric in one.metrics.items()
            if expected is None or (key in expected and metric.point == point_of(expected[key]))
        }
        found.append(
            PastBlessing(
                label=_label(one.blessed, index),
                metrics=kept,
                at=one.blessed.at,
                by=one.blessed.by,
                reason=one.blessed.reason,
                commit=one.blessed.commit,
                lowered=tuple(one.blessed.lowered),
                differs=()
                if policy is None
                else _differences(policy, newest, [_as_run(one, newest)]),
            )
        )
    return found


def _label(blessed: Blessing, index: int) -> str:
    return f"{blessed.at} (-{index})" if index else blessed.at


def _as_run(former: FormerBlessing, newest: Sequence[GateRun]) -> GateRun:
    """A run with the former blessing's data; a file keeps no params of former blessings."""
    return GateRun(
        run_id="former",
        name="",
        status="FINISHED",
        params=newest[0].params,
        datasets={context: ",".join(data) for context, data in former.datasets.items()},
        metrics={},
    )


def _differences(
    policy: Policy, newest: Sequence[GateRun], runs: Sequence[GateRun]
) -> tuple[str, ...]:
    return tuple(one.field for one in compare_fields(policy, newest, runs).differences)
