"""Whether runs may be compared at all: what must be equal, and is not."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from orbiter_mlflow import names
from orbiter_mlflow.gate.model import ALL_OTHERS, Difference, GateRun
from orbiter_mlflow.gate.policy import Policy, has_pattern
from orbiter_mlflow.text.escaping import shortened

__all__ = ["Comparability", "compare_data", "compare_fields", "fields_of"]

_MAX_NOTED = 8
_MAX_VALUE = 40


@dataclass(frozen=True, slots=True)
class Comparability:
    """What the fields of the runs say.

    Attributes:
        differences: fields that must be equal and are not.
        problems: why the runs cannot be compared, one sentence each.
        notes: what differs and is asked about nowhere, as one sentence, or nothing.
    """

    differences: tuple[Difference, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def fields_of(run: GateRun) -> dict[str, str]:
    """The fields of a run by the names that a policy has for them."""
    params = {f"params.{key}": value for key, value in run.params.items()}
    return params | {f"datasets.{context}": value for context, value in run.datasets.items()}


def compare_fields(
    policy: Policy, candidate: Sequence[GateRun], baseline: Sequence[GateRun]
) -> Comparability:
    """Hold the fields of all runs against the policy's `[comparable]`.

    A field that must be equal has one value in all runs, of both sides; a run that lacks it differs
    from one that has it. A full name in `require_equal` goes before a pattern in `allow_differ`.
    """
    first, second = ([fields_of(run) for run in side] for side in (candidate, baseline))
    every = sorted({name for fields in (*first, *second) for name in fields})
    required, problems = _required(policy, every)
    differences, noted = [], []
    paired = {metric.paired_by for metric in policy.metrics.values()}
    for name in every:
        found = Difference(name, _values(first, name), _values(second, name))
        if name in required:
            if len({*found.candidate, *found.baseline}) > 1:
                differences.append(found)
        elif not (
            name in paired
            or _covers(policy.comparable.allow_differ, name)
            or not (first and second)
            or {*found.candidate} & {*found.baseline}
        ):
            noted.append(_shown(found))
    if differences:
        unequal = ", ".join(one.field for one in differences)
        problems.append(
            f"the runs differ where they must be equal, in {unequal}: narrow the baseline down to "
            "runs like the candidate, or change comparable.require_equal"
        )
    notes = []
    if noted:
        more = f", and {len(noted) - _MAX_NOTED} more" if len(noted) > _MAX_NOTED else ""
        notes.append(
            f"candidate and baseline also differ in {', '.join(noted[:_MAX_NOTED])}{more}: "
            "put each into comparable.require_equal or comparable.allow_differ"
        )
    return Comparability(tuple(differences), tuple(problems), tuple(notes))


def compare_data(
    policy: Policy, key: str, candidate: Sequence[GateRun], baseline: Sequence[GateRun]
) -> str:
    """Why a metric cannot be compared for the data it was measured on; empty where it can.

    Runs of both sides must have measured it on data of one digest, unless the policy's
    `allow_differ` has `data.<prefix>`. Where no run says on which data, nothing is asked.
    """
    prefix = _prefix_of(key, [*candidate, *baseline])
    field = f"{_DATA}{prefix}"
    if not prefix or _covers(policy.comparable.allow_differ, field):
        return ""

    def seen(side: Sequence[GateRun]) -> tuple[str | None, ...]:
        found = {_measured_on(run, prefix, key) for run in side if key in run.metrics}
        return tuple(sorted(found, key=_last_if_none))

    found = Difference(field, seen(candidate), seen(baseline))
    if len({_digests(value) for value in (*found.candidate, *found.baseline)}) < 2:
        return ""
    return (
        f"not compared: {prefix}/ was measured on other data, {_shown(found)}: evaluate on the "
        f"same, or put {field} into comparable.allow_differ"
    )


_DATA = "data."


def _prefix_of(key: str, runs: Collection[GateRun]) -> str:
    """The longest prefix of `key` that stands for data in any run; empty where none does."""
    known = {prefix for run in runs for prefix in run.data}
    found = max((one for one in known if key.startswith(f"{one}/")), key=len, default="")
    if ALL_OTHERS in known and key.startswith(f"{names.EVAL}/"):
        return found or key.rpartition("/")[0]
    return found


def _measured_on(run: GateRun, prefix: str, key: str) -> str | None:
    """The data behind a metric of a run; None where the run does not say it."""
    if ALL_OTHERS in run.data and prefix != key.rpartition("/")[0]:
        return f"unknown in run {run.run_id}"  # its own prefix may be one that had no room
    if prefix in run.data:
        return run.data[prefix]
    if ALL_OTHERS in run.data:
        return f"unknown in run {run.run_id}"
    only = run.datasets.get(names.EVAL, ",")
    # A run that says nothing, of an older version or of others: what it evaluated on if that is one
    return only if not run.data and prefix == names.EVAL and "," not in only else None


def _digests(value: str | None) -> tuple[str, ...]:
    """What must be equal of a value: a name may change."""
    return () if value is None else tuple(one.rpartition(":")[2] for one in value.split(","))


def _last_if_none(value: str | None) -> tuple[bool, str]:
    return value is None, value or ""


def _required(policy: Policy, fields: Collection[str]) -> tuple[set[str], list[str]]:
    """The fields that must be equal, and a problem for each entry that no run has."""
    comparable, required = policy.comparable, set[str]()
    problems = []
    for entry in comparable.require_equal:
        if has_pattern(entry):
            matching = {name for name in fields if fnmatchcase(name, entry)}
            required |= {name for name in matching if not _covers(comparable.allow_differ, name)}
        else:
            matching = {entry} & set(fields)
            required |= matching - set(comparable.allow_differ)
        if not matching and "require_equal" in comparable.model_fields_set:
            problems.append(
                f"no run has the field {entry}, which must be equal: check its spelling in "
                "comparable.require_equal, or that the runs have logged it"
            )
    return required, problems


def _covers(patterns: Collection[str], name: str) -> bool:
    return any(name == pattern or fnmatchcase(name, pattern) for pattern in patterns)


def _values(runs: Sequence[Mapping[str, str]], name: str) -> tuple[str | None, ...]:
    """What the runs have in that field, each value once; None for those that lack it."""
    found = {fields.get(name) for fields in runs}
    return tuple(sorted(found, key=_last_if_none))


def _shown(found: Difference) -> str:
    sides = [
        " | ".join("missing" if value is None else shortened(value, _MAX_VALUE) for value in side)
        for side in (found.candidate, found.baseline)
    ]
    return f"{found.field} ({'; '.join(shortened(side, 2 * _MAX_VALUE) for side in sides)})"
