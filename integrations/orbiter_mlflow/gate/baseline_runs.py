"""Find the baseline that a policy's filter means: its newest blessing, and those before it.

Reads no more than it needs: the runs blessed last come first, and the search ends with the oldest
blessing that is asked for.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

from orbiter_mlflow import names
from orbiter_mlflow.gate import blessings
from orbiter_mlflow.gate.attempts import not_finished
from orbiter_mlflow.gate.blessings import Batch
from orbiter_mlflow.gate.judge import IS_CANDIDATE
from orbiter_mlflow.gate.model import LeftOut, counted
from orbiter_mlflow.gate.policy.baseline import Baseline
from orbiter_mlflow.gate.run_selection import undelivered
from orbiter_mlflow.runs.model import StoredRun

if TYPE_CHECKING:
    from orbiter_mlflow.runs.store import RunStore

__all__ = ["FoundBaseline", "find_baseline", "newest_blessing"]

MAX_SKIPPED = 1000
"""Runs that the search for a baseline skips before it gives up: thousands of unfinished runs in a
store must cost neither time nor memory."""
MAX_BATCH = 1000
"""Runs of one commit that are compared with at most."""

_ITS_CODE = "its commit is the candidate's own"
_COMMIT = re.compile(r"[0-9a-fA-F]{1,64}")


@dataclass(frozen=True, slots=True)
class FoundBaseline:
    """The baseline that a filter found.

    Attributes:
        pooled: the batches to compare with, the newest first, without unusable runs.
        former: the batches before them, likewise.
        left_out: unusable runs of `pooled`, and runs that were skipped in search of them.
        described: the search and what it found, for people.
    """

    pooled: Sequence[Batch]
    former: Sequence[Batch]
    left_out: Sequence[LeftOut]
    described: str

    @property
    def runs(self) -> list[StoredRun]:
        """The runs to compare with, each once."""
        return list({run.run_id: run for one in self.pooled for run in one.runs}.values())

    def batch_of(self, run_id: str) -> str:
        """The label of the newest batch that a run of `runs` belongs to."""
        return next(b.label for b in self.pooled if any(run.run_id == run_id for run in b.runs))


def find_baseline(
    store: "RunStore",
    source: Baseline,
    experiments: Mapping[str, str],
    *,
    candidates: Sequence[StoredRun],
    waiting: Mapping[str, Path],
    max_skipped: int = MAX_SKIPPED,
) -> FoundBaseline:
    """The newest blessing among the runs that the filter matches.

    If none of them was ever blessed, it is the newest batch of FINISHED, complete runs of one
    commit; runs that recorded no commit are a batch each.

    Args:
        source: `[baseline]` of the policy, with a filter.
        experiments: id -> name of the experiments to search.
        candidates: the runs to judge; they are no part of the baseline, and a blessing of nothing
            but candidates is passed over.
        waiting: from `waiting_here`.
        max_skipped: number of skipped runs after which a search without blessings ends.

    Raises:
        FilterError: MLflow does not understand the filter.
        StoreError: the store cannot be read.
    """
    page = min(MAX_SKIPPED, source.last * max(3, source.min_runs) + len(candidates) + 1)
    text = source.filter or ""
    matching = store.search(text, list(experiments), page=page, by_tag=names.BLESSED_AT)
    ids = {run.run_id for run in candidates}
    where = f"filter {text} in experiment {', '.join(experiments.values())}"
    blessed, rest = _blessed(matching, source.last, ids)
    if not blessed:
        found = _never_blessed(
            store, source, experiments, rest, candidates, waiting, max_skipped=max_skipped
        )
        return replace(found, described=f"{where}, {found.described}")
    usable, left_out = [], list[LeftOut]()
    for index, batch in enumerate(blessed):
        reasons = {run.run_id: _unfit(run, ids, waiting) for run in batch.runs}
        usable.append(replace(batch, runs=tuple(r for r in batch.runs if not reasons[r.run_id])))
        if index < source.pool:
            left_out += [
                LeftOut(run.run_id, run.name, reasons[run.run_id])
                for run in batch.runs
                if reasons[run.run_id]
            ]
    pooled = usable[: source.pool]
    return FoundBaseline(
        pooled,
        usable[source.pool :],
        left_out,
        f"{where}, {_blessing_words(pooled)}",
    )


def newest_blessing(store: "RunStore", name: str, experiment_ids: Collection[str]) -> Batch | None:
    """The newest blessing under a name; None if there is none.

    Raises:
        StoreError: the store cannot be read.
    """
    text = f"tags.{names.BASELINE} = '{name}'"
    matching = store.search(text, list(experiment_ids), page=20, by_tag=names.BLESSED_AT)
    found, _ = _blessed(matching, 1, ())
    return found[0] if found else None


def _blessed(
    matching: Iterator[StoredRun], last: int, candidates: Collection[str]
) -> tuple[list[Batch], Iterator[StoredRun]]:
    """The `last` newest blessings; if there are none, the runs instead.

    Blessings of nothing but candidates do not count, and are not returned. The runs come in the
    order of their newest blessing: once one is older than the last blessing that counts, all runs
    of those are known.
    """
    runs: list[StoredRun] = []
    counting: set[tuple[str, str, str]] = set()
    withdrawn: list[StoredRun] = []  # a person removed their tag `baseline`
    oldest = ""
    for run in matching:
        at = blessings.blessed_at(run)
        if not at and run.tags.get(names.BLESSED_AT):
            withdrawn.append(run)
            continue
        if not at and not runs:
            return [], chain(withdrawn, [run], matching)
        if not at or at < oldest:
            break
        runs.append(run)
        if run.run_id not in candidates:
            counting |= {entry.key for entry in blessings.entries(run)}
            if len(counting) >= last:
                oldest = sorted(counting, reverse=True)[last - 1][0]
    found = [
        batch
        for batch in blessings.batches(runs)
        if any(run.run_id not in candidates for run in batch.runs)
    ]
    return found[:last], iter(() if runs else withdrawn)


def _never_blessed(
    store: "RunStore",
    source: Baseline,
    experiments: Mapping[str, str],
    matching: Iterator[StoredRun],
    candidates: Sequence[StoredRun],
    waiting: Mapping[str, Path],
    *,
    max_skipped: int,
) -> FoundBaseline:
    ids = {run.run_id for run in candidates}
    commits = {_commit(run) for run in candidates} - {""}
    runs, codes, left_out = list[StoredRun](), set[str](), list[LeftOut]()
    given_up = ""
    for run in matching:
        if reason := _unfit(run, ids, waiting):
            if len(left_out) == max_skipped:
                seen = len(runs) + len(left_out)
                given_up = f" (only {len(runs)} found among the latest {seen} that match)"
                break
            left_out.append(LeftOut(run.run_id, run.name, reason))
            continue
        code = set() if _commit(run) in commits else {blessings.code_of(run)}
        if len(codes | code) > source.last:
            break
        codes |= code
        runs.append(run)
    if any(one.run_id in ids for one in left_out):
        # The filter matches candidates, and so their earlier attempts: no baseline for them.
        own = [run for run in runs if _commit(run) in commits]
        left_out += [LeftOut(run.run_id, run.name, _ITS_CODE) for run in own]
        runs = [run for run in runs if run not in own]
    found = blessings.by_code(runs)[: source.last]
    for index, batch in enumerate(found[: source.pool]):
        # Older runs of the same commit may come after those of others.
        if _COMMIT.fullmatch(batch.commit):
            text = f"{source.filter} AND tags.`{names.GIT_COMMIT}` = '{batch.commit}'"
            every = store.search(text, list(experiments), page=MAX_BATCH)
            whole = [run for run in islice(every, MAX_BATCH) if not _unfit(run, ids, waiting)]
            found[index] = replace(batch, runs=tuple(whole) or batch.runs)
    pooled = found[: source.pool]
    words = " and ".join(batch.label for batch in pooled)
    described = f"{words}, never blessed" if pooled else "which finds no run"
    return FoundBaseline(pooled, found[source.pool :], left_out, described + given_up)


def _commit(run: StoredRun) -> str:
    return run.tags.get(names.GIT_COMMIT, "")


def _unfit(run: StoredRun, candidates: Collection[str], waiting: Mapping[str, Path]) -> str:
    if run.run_id in candidates:
        return IS_CANDIDATE
    return not_finished(run.status) or undelivered(run, waiting)


def _blessing_words(pooled: Sequence[Batch]) -> str:
    newest = pooled[0]
    at = newest.entry.at if newest.entry is not None else ""
    by = f" by {newest.by}" if newest.by else ""
    reason = f": {newest.reason}" if newest.reason else ""
    if len(pooled) == 1:
        return f"blessed {at}{by}{reason}"
    return f"{counted(len(pooled), 'blessing')} as one, the newest of {at}{by}{reason}"
