"""Read the tables of examples that a policy compares from the store."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from orbiter_mlflow import names
from orbiter_mlflow.errors import CannotCompareError, StoreError
from orbiter_mlflow.gate.attempts import newest_attempts
from orbiter_mlflow.gate.examples.judge import MAX_RUNS, ExampleTables
from orbiter_mlflow.gate.examples.table import (
    MAX_BYTES,
    ExampleTable,
    parse_rollouts,
    parse_table,
)
from orbiter_mlflow.gate.judge import usable_runs
from orbiter_mlflow.gate.model import GateRun
from orbiter_mlflow.gate.policy import ExamplesPolicy, Policy
from orbiter_mlflow.runs.rollouts import steps_of

if TYPE_CHECKING:
    from orbiter_mlflow.runs.store import RunStore

__all__ = ["read_tables"]


def read_tables(
    store: "RunStore",
    policy: Policy,
    candidate: Sequence[GateRun],
    baseline: Sequence[GateRun],
) -> dict[str, ExampleTables]:
    """The tables of each comparison of the policy.

    Those of all candidates, and of as many runs of the baseline, the newest that have one: with
    equal numbers the two sides are exchangeable if nothing has changed, which the tests assume.
    A table that is missing or unusable is the reason instead; nothing is raised.
    """
    if not policy.examples:
        return {}
    usable, _ = usable_runs(policy, candidate, baseline)
    judged, _ = newest_attempts(policy, candidate, "candidate")
    return {
        name: ExampleTables(
            candidate=_tables(store, expected, judged, MAX_RUNS + 1),
            baseline=_tables(store, expected, usable, min(len(judged), MAX_RUNS)),
        )
        for name, expected in policy.examples.items()
    }


def _tables(
    store: "RunStore", expected: ExamplesPolicy, runs: Sequence[GateRun], most: int
) -> dict[str, ExampleTable | str]:
    """The tables of the newest runs, until `most` are found."""
    found: dict[str, ExampleTable | str] = {}
    for run in sorted(runs, key=lambda run: run.start_time, reverse=True):
        found[run.run_id] = _table(store, expected, run)
        if sum(isinstance(one, ExampleTable) for one in found.values()) == most:
            break
    return found


def _table(store: "RunStore", expected: ExamplesPolicy, run: GateRun) -> ExampleTable | str:
    path = expected.path
    id_column, score, slices = expected.id_column, expected.score_column, expected.slices
    try:
        if expected.rollouts:
            _require_all_rollouts(store, run.run_id)
            steps = steps_of(store, run.run_id, names.EVAL)
            if not steps:
                return (
                    "it has no rollouts of an evaluation: report them with "
                    f"trainer.report_rollouts(..., phase={names.EVAL!r}), and deliver them "
                    "(orbiter-mlflow sync)"
                )
            newest = steps[max(steps)]
            contents = [store.artifact(run.run_id, one, max_bytes=MAX_BYTES) for one in newest]
            return parse_rollouts(
                [one or b"" for one in contents], id_column=id_column, score=score, slices=slices
            )
        content = store.artifact(run.run_id, path, max_bytes=MAX_BYTES)
        if content is None:
            return (
                f"it has no table {path}: log it with trainer.log_eval_table, and deliver it "
                "(orbiter-mlflow sync)"
            )
        return parse_table(content, id_column=id_column, score=score, slices=slices)
    except CannotCompareError as error:
        return f"its table {path} {error}"
    except StoreError as error:
        return f"its table {path} cannot be read: {error}"


def _require_all_rollouts(store: "RunStore", run_id: str) -> None:
    """Raise if tables of rollouts are missing: the newest one there may be of an older policy."""
    for tag, text in store.get(run_id).tags.items():
        of_a_life = names.is_of_any_life(tag, names.ROLLOUTS_MISSING)
        if of_a_life and names.lacks_tables(text):
            raise CannotCompareError(
                f"may not be that of the newest evaluation, because rollouts are missing (tag "
                f"{tag}: {text}): deliver them with orbiter-mlflow sync on the machine of the "
                "training, or delete the tag to compare what is there"
            )
