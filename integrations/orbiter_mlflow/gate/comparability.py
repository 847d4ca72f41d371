"""Whether runs may be compared at all: what must be equal, and is not."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from orbiter_mlflow.escaping import shortened
from orbiter_mlflow.gate.model import Difference, GateRun
from orbiter_mlflow.gate.policy import Policy, has_pattern

__all__ = ["Comparability", "compare_fields", "fields_of"]

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
    names = sorted({name for fields in (*first, *second) for name in fields})
    required, problems = _required(policy, names)
    differences, noted = [], []
    paired = {metric.paired_by for metric in policy.metrics.values()}
    for name in names:
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


def _required(policy: Policy, names: Collection[str]) -> tuple[set[str], list[str]]:
    """The fields that must be equal, and a problem for each entry that no run has."""
    comparable, required = policy.comparable, set[str]()
    problems = []
    for entry in comparable.require_equal:
        if has_pattern(entry):
            matching = {name for name in names if fnmatchcase(name, entry)}
            required |= {name for name in matching if not _covers(comparable.allow_differ, name)}
        else:
            matching = {entry} & set(names)
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
    return tuple(sorted(found, key=lambda value: (value is None, value or "")))


def _shown(found: Difference) -> str:
    sides = [
        " | ".join("missing" if value is None else shortened(value, _MAX_VALUE) for value in side)
        for side in (found.candidate, found.baseline)
    ]
    return f"{found.field} ({'; '.join(shortened(side, 2 * _MAX_VALUE) for side in sides)})"
