"""Read the values of former blessings from a store, as far as drift and history need them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from orbiter_mlflow.gate import run_selection
from orbiter_mlflow.gate.attempts import newest_attempts
from orbiter_mlflow.gate.baseline_runs import FoundBaseline
from orbiter_mlflow.gate.lineage import PastBlessing
from orbiter_mlflow.gate.model import GateRun
from orbiter_mlflow.gate.past import past_of_runs
from orbiter_mlflow.gate.policy import Policy, expand

if TYPE_CHECKING:
    from orbiter_mlflow.runs.store import RunStore

__all__ = ["read_past"]


def read_past(
    store: "RunStore",
    policy: Policy,
    found: FoundBaseline,
    baseline: Sequence[GateRun],
    waiting: Mapping[str, Path],
    *,
    also: Collection[str],
) -> list[PastBlessing]:
    """The blessings that were found, the newest first, with the metrics of the policy.

    The value of a former run at another point than the last takes a request, so it is read only if
    the policy judges drift.

    Args:
        baseline: the runs of `found.runs`, as they were read for the comparison.
        waiting: from `run_selection.waiting_here`.
        also: further metric keys that a pattern of the policy may match: the candidate's.

    Raises:
        StoreError: the store cannot be read.
    """
    known = {run.run_id: run for run in baseline}
    former = {run.run_id: run for batch in found.former for run in batch.runs}
    others = [run for run_id, run in former.items() if run_id not in known]
    keys = {key for run in baseline for key in run.metrics}
    keys = keys.union(also, *(run.metrics for run in others))
    drift = policy.baseline.drift
    read, _ = run_selection.gate_runs(
        store, policy if drift else None, others, (), waiting, also=keys
    )
    known |= {run.run_id: run for run in read}
    expected = expand(policy, keys)
    last = [key for key, one in expected.items() if one.at == "last"]
    listed = []
    for index, batch in enumerate((*found.pooled, *found.former)):
        kept = list(expected) if drift or index < len(found.pooled) else last
        every = [replace(known[run.run_id], batch="") for run in batch.runs]
        runs, _ = newest_attempts(policy, every, "baseline")
        listed.append(past_of_runs(policy if drift else None, batch, runs, baseline, kept))
    return listed
