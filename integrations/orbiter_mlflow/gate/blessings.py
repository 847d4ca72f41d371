"""Group runs into blessings: the runs that one call of `bless` made the baseline together.

Pure. A baseline is the newest blessing. Each run lists its blessings in a tag, so that it may
belong to several; runs blessed before that tag existed share the time of their call instead.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from orbiter_mlflow import names
from orbiter_mlflow.runs.model import StoredRun

__all__ = ["Batch", "Entry", "batches", "blessed_at", "by_code", "code_of", "entries", "tag_with"]

MAX_ENTRIES = 50
"""Blessings that a run remembers, the newest."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One blessing, as a run's tag names it.

    Two calls of `bless` differ in `call` even within the same millisecond.

    Attributes:
        name: the baseline's name, the value of the tag `baseline`.
        at: UTC, in ISO 8601.
        call: a random text, the same in all runs of one call; empty for a blessing that was made
            before there were such texts.
        lowered: metrics that this blessing was allowed to lower past their tolerance.
    """

    name: str
    at: str
    call: str = ""
    lowered: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str, str]:
        """Sorts blessings by time, and is the same in all runs of one."""
        return self.at, self.call, self.name


@dataclass(frozen=True, slots=True)
class Batch:
    """Runs that are compared with together: a blessing, or runs of one commit never blessed.

    Attributes:
        label: for people, unique among the batches of a search.
        entry: None if the runs were never blessed.
        by: the person who blessed them; empty if that is not known.
        commit: the git commit of all its runs; empty if they have none, or several.
    """

    label: str
    runs: tuple[StoredRun, ...]
    entry: Entry | None = None
    by: str = ""
    reason: str = ""

    @property
    def commit(self) -> str:
        found = {run.tags.get(names.GIT_COMMIT, "") for run in self.runs}
        return found.pop() if len(found) == 1 else ""


def blessed_at(run: StoredRun) -> str:
    """When a run was last blessed; empty if it is not blessed."""
    return run.tags.get(names.BLESSED_AT, "") if names.BASELINE in run.tags else ""


def entries(run: StoredRun) -> list[Entry]:
    """The blessings of a run under its present name, the newest first."""
    name, at = run.tags.get(names.BASELINE), blessed_at(run)
    if not name or not at:
        return []
    found = [entry for entry in _remembered(run.tags) if entry.name == name]
    # An older version blessed it without the tag, or after a newer one had written it.
    return found if any(entry.at == at for entry in found) else [Entry(name, at), *found]


def tag_with(run: StoredRun, entry: Entry) -> str:
    """The tag `names.BLESSINGS` of a run that is blessed once more."""
    known = [one for one in _remembered(run.tags) if one.key != entry.key]
    kept = [entry, *[one for one in entries(run) if one.key != entry.key]]
    kept += [one for one in known if one not in kept]
    kept = kept[:MAX_ENTRIES]
    while len(text := _text(kept)) > names.MAX_DATA_TAG and len(kept) > 1:
        kept.pop()
    return text


def batches(runs: Iterable[StoredRun]) -> list[Batch]:
    """The blessings of these runs, the newest first; runs without a blessing are in none."""
    members: dict[tuple[str, str, str], list[tuple[Entry, StoredRun]]] = {}
    for run in runs:
        for entry in entries(run):
            members.setdefault(entry.key, []).append((entry, run))
    found = []
    for key in sorted(members, reverse=True):
        (entry, _), *_ = members[key]
        told = [run for one, run in members[key] if blessed_at(run) == one.at]
        found.append(
            Batch(
                label=f"{entry.at} {entry.call}".rstrip(),
                runs=tuple(run for _, run in members[key]),
                entry=entry,
                by=told[0].tags.get(names.BLESSED_BY, "") if told else "",
                reason=told[0].tags.get(names.BLESSED_REASON, "") if told else "",
            )
        )
    return found


def by_code(runs: Sequence[StoredRun]) -> list[Batch]:
    """Runs that were never blessed, as batches of one commit, in the order of their first runs."""
    members: dict[str, list[StoredRun]] = {}
    for run in runs:
        members.setdefault(code_of(run), []).append(run)
    return [Batch(label, tuple(found)) for label, found in members.items()]


def code_of(run: StoredRun) -> str:
    """The label of a run's batch: its commit, or the run itself if it recorded none."""
    commit = run.tags.get(names.GIT_COMMIT, "")
    return f"commit {commit}" if commit else f"run {run.run_id}"


def _remembered(tags: Mapping[str, str]) -> list[Entry]:
    """The entries of the tag; none of one that somebody has edited into something else."""
    try:
        return [
            Entry(
                str(one["name"]),
                str(one["at"]),
                str(one["call"]),
                tuple(map(str, one.get("lowered", ()))),
            )
            for one in json.loads(tags.get(names.BLESSINGS, "[]"))
        ]
    except (ValueError, TypeError, KeyError, AttributeError):
        return []


def _text(found: Sequence[Entry]) -> str:
    listed = [
        {"name": one.name, "at": one.at, "call": one.call}
        | ({"lowered": list(one.lowered)} if one.lowered else {})
        for one in found
    ]
    return json.dumps(listed, ensure_ascii=False)
