"""Find what differs between runs. Pure: reads no store.

Runs are compared as they were recorded. Values that a run did not record, or that were redacted,
are reported as unknown and never count as equal.
"""

import json
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from orbiter_mlflow import names
from orbiter_mlflow.config.codec.splitting import join_values
from orbiter_mlflow.config.codec.tree import different_orders
from orbiter_mlflow.config.display import as_python, is_redacted
from orbiter_mlflow.errors import ConfigError
from orbiter_mlflow.runs.model import StoredRun

__all__ = ["CODE", "MACHINE", "Change", "Difference", "MetricDifference", "RunDiff"]
__all__ += ["diff_runs", "differing", "packages_differ", "parse_requirements"]

CODE = {
    "config class": names.CONFIG_TYPE,
    "trainer": names.TRAINER,
    "program": names.SOURCE_NAME,
    "repository": names.GIT_REPO_URL,
    "branch": names.GIT_BRANCH,
    "commit": names.GIT_COMMIT,
    "dirty": names.GIT_DIRTY,
    "uncommitted diff": names.GIT_DIFF,
    "changed submodules": names.GIT_SUBMODULES,
    "command": names.COMMAND,
}
"""Facts about a run's code: name in a report -> tag."""
MACHINE = {
    "Python": names.PYTHON,
    "platform": names.PLATFORM,
    "CPU": names.CPU,
    "GPU": names.GPU,
}
"""Facts about a run's machine: name in a report -> tag."""

_PINNED = re.compile(r"(?:# )?([A-Za-z0-9][\w.-]*)(?:==| @ )(.+)")


@dataclass(frozen=True, slots=True)
class Difference:
    """A value in which runs differ.

    Attributes:
        name: the path of a value in the config, the name of a package, and so on.
        values: one for each run, in the order of the runs; None for a run without it.
    """

    name: str
    values: tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """The change of a metric against the first run; says nothing about better or worse.

    Attributes:
        percent: percent of the first run's absolute value; None if that is zero, or if one of the
            values is not finite.
        direction: None if the values are equal, or cannot be compared.
    """

    percent: float | None = None
    direction: Literal["up", "down"] | None = None


@dataclass(frozen=True, slots=True)
class MetricDifference:
    """The latest values of a metric, None for a run without it; changes are against the first."""

    name: str
    values: tuple[float | None, ...]
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class RunDiff:
    """All differences between runs, by section.

    Attributes:
        runs: in the order of the request, like all values.
        redacted: config paths with a secret in some run and no visible difference.
        notes: sentences about what is unknown.
    """

    runs: tuple[StoredRun, ...]
    status: tuple[Difference, ...]
    config: tuple[Difference, ...]
    code: tuple[Difference, ...]
    machine: tuple[Difference, ...]
    packages: tuple[Difference, ...]
    datasets: tuple[Difference, ...]
    metrics: tuple[MetricDifference, ...]
    redacted: tuple[str, ...]
    notes: tuple[str, ...]


def diff_runs(
    runs: Sequence[StoredRun], requirements: Mapping[str, str | None] | None = None
) -> RunDiff:
    """Compare two or more runs.

    Args:
        requirements: run id -> text of its `requirements.txt`, None if it has none; needed only if
            `packages_differ`.
    """
    config, redacted = _config(runs)
    packages, package_notes = _packages(runs, requirements or {})
    return RunDiff(
        runs=tuple(runs),
        status=differing([{"status": run.status} for run in runs]),
        config=config,
        code=differing([_tagged(run, CODE) for run in runs]),
        machine=differing([_tagged(run, MACHINE) for run in runs]),
        packages=packages,
        datasets=differing([_datasets(run) for run in runs]),
        metrics=tuple(_metrics(runs)),
        redacted=redacted,
        notes=(*_config_notes(runs), *_code_notes(runs), *package_notes),
    )


def differing(columns: Sequence[Mapping[str, str]]) -> tuple[Difference, ...]:
    """The names for which the columns have different texts, in order of appearance."""
    rows = (
        Difference(name, tuple(column.get(name) for column in columns))
        for name in dict.fromkeys(name for column in columns for name in column)
    )
    return tuple(row for row in rows if len(set(row.values)) > 1)


# -- config --------------------------------------------------------------------------------------


def _config(runs: Sequence[StoredRun]) -> tuple[tuple[Difference, ...], tuple[str, ...]]:
    columns = [_joined(run.params) for run in runs]
    rows = [_as_python(row) for row in differing(columns) if row.name != names.KEY_ORDER]
    # Version 1 of the codec recorded no order.
    ordered = [
        {} if run.tags.get(names.CONFIG_CODEC) == "1" else column
        for run, column in zip(runs, columns, strict=True)
    ]
    for path, orders in different_orders(ordered).items():
        values = tuple(None if keys is None else ", ".join(keys) for keys in orders)
        rows.append(Difference(f"{path} (order)", values))
    rows.sort(key=lambda row: row.name)
    known = {row.name for row in rows}
    secret = {path for column in columns for path, text in column.items() if is_redacted(text)}
    return tuple(rows), tuple(sorted(secret - known))


def _joined(params: Mapping[str, str]) -> Mapping[str, str]:
    try:
        return join_values(params)
    except ConfigError:  # pieces are missing: compare each piece
        return params


def _as_python(row: Difference) -> Difference:
    values = tuple(None if text is None else as_python(text) for text in row.values)
    # Texts of other tools may be equal as Python values: `1e-5` and `1e-05`.
    return Difference(row.name, values if _distinguishes(values, row.values) else row.values)


def _distinguishes(shown_as: Sequence[str | None], texts: Sequence[str | None]) -> bool:
    return len(set(shown_as)) == len(set(texts))


def _config_notes(runs: Iterable[StoredRun]) -> list[str]:
    notes = []
    for run in runs:
        own = {tag: text for tag, text in run.tags.items() if tag.startswith(names.CONFIG_CHANGED)}
        if own:
            paths = ", ".join(
                sorted({path for text in _joined(own).values() for path in _keys(text)})
            )
            what = f": {paths}" if paths else ""
            notes.append(f"{_short(run)} was resumed with params that it does not show{what}")
    return notes


def _keys(text: str) -> list[str]:
    try:
        changed = json.loads(text)
    except ValueError:
        return []
    return list(changed) if type(changed) is dict else []


# -- code, machine, packages ---------------------------------------------------------------------


def _tagged(run: StoredRun, tags: Mapping[str, str]) -> dict[str, str]:
    """The values of these tags in a run, including those of its later lives."""
    found = {}
    for name, tag in tags.items():
        if tag in run.tags:
            found[name] = run.tags[tag]
        later = (
            key.removeprefix(f"{tag}.") for key in run.tags
        )  # some lives may not have recorded it
        for life in sorted(int(text) for text in later if re.fullmatch(r"[1-9][0-9]{0,2}", text)):
            found[f"{name}, life {life}"] = run.tags[names.in_life(tag, life)]
    return found


def _code_notes(runs: Iterable[StoredRun]) -> list[str]:
    notes = []
    for run in runs:
        if names.GIT_COMMIT not in run.tags:
            notes.append(f"{_short(run)} recorded no commit: its code is unknown")
        elif run.tags.get(names.GIT_DIRTY) != "false" and names.GIT_DIFF not in run.tags:
            notes.append(
                f"{_short(run)} may have had uncommitted changes that it did not record: its code "
                "is unknown"
            )
        if submodules := run.tags.get(names.GIT_SUBMODULES):
            notes.append(
                f"{_short(run)} had uncommitted changes inside submodules, which are not recorded: "
                f"{submodules}"
            )
    return notes


def packages_differ(runs: Sequence[StoredRun]) -> bool:
    """Whether the lists of packages must be compared."""
    return len({run.tags.get(names.PACKAGES) for run in runs}) > 1


def _packages(
    runs: Sequence[StoredRun], requirements: Mapping[str, str | None]
) -> tuple[tuple[Difference, ...], list[str]]:
    unrecorded = [run for run in runs if names.PACKAGES not in run.tags]
    notes = [f"{_short(run)} recorded no packages" for run in unrecorded]
    digests = [_tagged(run, {"all": names.PACKAGES}) for run in runs]
    if not packages_differ(runs):
        return differing(digests), notes  # the digests of later lives may differ
    lists = [requirements.get(run.run_id) for run in runs]
    lost = [
        run for run, text in zip(runs, lists, strict=True) if text is None and run not in unrecorded
    ]
    notes += [f"{_short(run)} has lost the list of its packages" for run in lost]
    if unrecorded or lost:
        return differing(digests), notes
    rows = differing([parse_requirements(text or "") for text in lists])
    later = [row for row in differing(digests) if row.name != "all"]
    return (*sorted(rows, key=lambda row: row.name.lower()), *later), notes


def parse_requirements(text: str) -> dict[str, str]:
    """Parse a `requirements.txt`: name -> version or origin.

    A line that pins no package is kept as a name: `# local: mine`.
    """
    found: dict[str, str] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        pinned = _PINNED.fullmatch(line)
        name, version = (pinned[1], pinned[2]) if pinned else (line, "listed")
        found[name] = f"{found[name]}, {version}" if name in found else version
    return found


# -- datasets and metrics ------------------------------------------------------------------------


def _datasets(run: StoredRun) -> dict[str, str]:
    """`train: digits` -> digest; datasets with the same name are listed with all digests."""
    found: dict[str, set[str]] = {}
    for dataset in run.datasets:
        name = f"{dataset.context}: {dataset.name}" if dataset.context else dataset.name
        found.setdefault(name, set()).add(dataset.digest)
    return {name: ", ".join(sorted(found[name])) for name in sorted(found)}


def _metrics(runs: Sequence[StoredRun]) -> Iterable[MetricDifference]:
    for name in sorted({name for run in runs for name in run.metrics}):
        if names.is_system_key(name):  # their latest values are of one moment: they always differ
            continue
        values = tuple(_value(run.metrics.get(name)) for run in runs)
        if any(not _same(values[0], value) for value in values):
            changes = tuple(_change(values[0], value) for value in values)
            yield MetricDifference(name, values, changes)


def _value(value: float | None) -> float | None:
    """A value as it was logged: a store keeps infinity as the largest finite float."""
    if value is None or abs(value) < sys.float_info.max:
        return value
    return math.nan if math.isnan(value) else math.copysign(math.inf, value)


def _same(a: float | None, b: float | None) -> bool:
    return a == b or (a is not None and b is not None and math.isnan(a) and math.isnan(b))


def _change(base: float | None, value: float | None) -> Change:
    if base is None or value is None or math.isnan(base) or math.isnan(value) or base == value:
        return Change()
    percent = None
    if base and math.isfinite(base) and math.isfinite(value):
        percent = (value - base) / abs(base) * 100
        percent = percent if math.isfinite(percent) else None
    return Change(percent, "up" if value > base else "down")


def _short(run: StoredRun) -> str:
    return f"run {run.run_id[:8]}"
