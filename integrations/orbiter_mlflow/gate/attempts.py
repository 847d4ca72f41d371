"""Attempts: all runs of one seed count as one run, the newest that is whole.

A job that is run again logs the same seeds again. If both attempts counted, the same values would
be a larger sample, and seeds that occur twice cannot be paired. So a verdict does not change when
the same work is done twice.
"""

from collections.abc import Mapping, Sequence

from orbiter_mlflow import names
from orbiter_mlflow.gate.comparability import param_of
from orbiter_mlflow.gate.model import GateRun, LeftOut, Side, counted
from orbiter_mlflow.gate.policy import Comparable, Policy
from orbiter_mlflow.text.shortening import shortened

__all__ = [
    "incompleteness",
    "missing_seeds",
    "newest_attempts",
    "not_finished",
    "seed_of",
    "seed_words",
]

_MAX_TEXT = 40
_MAX_SEEDS = 8

_Identity = tuple[tuple[str, str], ...]
"""Name -> value of what tells the runs of a side apart."""


def not_finished(status: str) -> str:
    """Why a run with this status is not used; empty if it is FINISHED."""
    return "" if status == "FINISHED" else f"it is {status}, not FINISHED"


def incompleteness(run: GateRun) -> str:
    """Why a run is incomplete; empty if it is complete."""
    return not_finished(run.status) or run.undelivered


def newest_attempts(
    policy: Policy | None, runs: Sequence[GateRun], side: Side
) -> tuple[list[GateRun], list[LeftOut]]:
    """One run for each seed: the newest that is whole, else the newest; and the others.

    Runs are attempts of one seed if they have the same values of the policy's `paired_by`. Without
    any of these fields: if they recorded the same seeds, and their commit and all params are equal
    but those that may vary. Runs without a known seed are never attempts of each other, nor are
    runs of different batches.

    Args:
        policy: None for one without `paired_by` and with the default of what may vary.
    """
    paired_by = () if policy is None else policy.paired_by
    comparable = Comparable() if policy is None else policy.comparable
    attempts: dict[_Identity, list[GateRun]] = {}
    seeds: dict[_Identity, str] = {}
    for run in runs:
        seed = seed_of(run, paired_by)
        identity = _identity(paired_by, comparable, run, seed)
        seeds[identity] = seed_words(seed)
        attempts.setdefault(identity, []).append(run)
    left_out: dict[str, LeftOut] = {}
    for identity, same in attempts.items():
        # Two attempts may start in the same millisecond: the id makes the choice reproducible.
        ranked = sorted(same, key=lambda run: (not incompleteness(run), run.start_time, run.run_id))
        for run in ranked[:-1]:
            fault = incompleteness(run)
            reason = f"an earlier attempt of {seeds[identity]}"
            if fault:
                reason = f"another attempt of {seeds[identity]} counts: {fault}"
            left_out[run.run_id] = LeftOut(run.run_id, run.name, reason, side)
    return [run for run in runs if run.run_id not in left_out], list(left_out.values())


def seed_of(run: GateRun, paired_by: Sequence[str] = ()) -> dict[str, str]:
    """The params that tell a run from others of its side; empty if none is known."""
    values = {name: param_of(run, name) for name in paired_by}
    paired = {name: value for name, value in values.items() if value is not None}
    if paired:
        return paired
    return {f"params.{key}": run.params[key] for key in sorted(run.params) if names.is_seed(key)}


def _identity(
    paired_by: Sequence[str], comparable: Comparable, run: GateRun, seed: Mapping[str, str]
) -> _Identity:
    if not seed:
        return (("run", run.run_id),)
    same = {"batch": run.batch, **seed}
    if not seed.keys() & set(paired_by):
        params = {f"params.{key}": text for key, text in run.params.items()}
        same |= {name: text for name, text in params.items() if not comparable.varies(name)}
        same["commit"] = run.commit
    return tuple(sorted(same.items()))


def seed_words(seed: Mapping[str, str]) -> str:
    """`seed 0`: the last part of the name, and the value."""
    shown = (
        f"{shortened(name.rpartition('.')[2], _MAX_TEXT)} {shortened(value, _MAX_TEXT)}"
        for name, value in seed.items()
    )
    return ", ".join(shown)


def missing_seeds(
    paired_by: str, metric: str, candidate: Sequence[GateRun], baseline: Sequence[GateRun]
) -> str:
    """Why a metric cannot be compared by pairs: the baseline has seeds that the candidate lacks.

    Of a baseline of several batches, the newest counts: a candidate is paired with one.

    Returns:
        The reason, which names the seeds; empty if none is missing.
    """
    runs = [run for run in baseline if metric in run.metrics]
    newest = max(runs, key=lambda run: (run.start_time, run.batch), default=None)
    if newest is None:
        return ""
    expected = [param_of(run, paired_by) for run in runs if run.batch == newest.batch]
    if unknown := expected.count(None):
        return (
            f"not compared: {unknown} of {counted(len(expected), 'baseline run')} did not log "
            f"{paired_by}, which pairs runs: correct the name, or bless runs that log it"
        )
    found = {param_of(run, paired_by) for run in candidate}
    lacking = sorted({value for value in expected if value is not None and value not in found})
    if not lacking:
        return ""
    more = f" and {len(lacking) - _MAX_SEEDS} more" if len(lacking) > _MAX_SEEDS else ""
    shown = ", ".join(shortened(value, _MAX_TEXT) for value in lacking[:_MAX_SEEDS])
    return (
        f"not compared: no candidate run has {paired_by} = {shown}{more}, which the baseline has: "
        "run the missing seeds too, or bless a baseline without them"
    )
