"""Comparability: values that cannot be judged, and fields that must be equal and are not."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from orbiter_mlflow import names
from orbiter_mlflow.gate.model import ALL_OTHERS, LARGEST, FieldDifference, GateRun, Sample, Side
from orbiter_mlflow.gate.policy import Policy, has_pattern
from orbiter_mlflow.gate.policy.comparable import covers
from orbiter_mlflow.gate.statistics import MAX_VALUE
from orbiter_mlflow.text.shortening import shortened

__all__ = [
    "Comparability",
    "compare_data",
    "compare_fields",
    "data_note",
    "fields_of",
    "mixed_params",
    "param_of",
    "shown_ids",
    "unusable_values",
]

_MAX_NOTED = 8
_MAX_TEXT = 40
_MAX_IDS = 5


@dataclass(frozen=True, slots=True)
class Comparability:
    """The result of comparing the fields of all runs.

    Attributes:
        differences: fields that must be equal and are not.
        problems: why the runs cannot be compared, one sentence each.
        notes: one sentence that lists the differing fields the policy does not mention, or none.
    """

    differences: tuple[FieldDifference, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def unusable_values(sample: Sample) -> str:
    """Why some values cannot be judged, and which runs have them; empty if all can."""
    wrong = {run_id: _fault(value) for run_id, value in sample.values.items()}
    wrong = {run_id: fault for run_id, fault in wrong.items() if fault}
    if not wrong:
        return ""
    faults = " or ".join(sorted(set(wrong.values())))
    return f"value is {faults} in {len(wrong)} of {sample.n} runs: {shown_ids([*wrong])}"


def _fault(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if abs(value) >= LARGEST:
        return "-inf" if value < 0 else "inf"
    if abs(value) > MAX_VALUE:
        return f"beyond {MAX_VALUE:g}, too large for the statistics,"
    return ""


def shown_ids(run_ids: Sequence[str]) -> str:
    """Some of the ids, and how many more there are."""
    more = f" and {len(run_ids) - _MAX_IDS} more" if len(run_ids) > _MAX_IDS else ""
    return ", ".join(run_ids[:_MAX_IDS]) + more


def fields_of(run: GateRun) -> dict[str, str]:
    """The fields of a run under the names that a policy uses."""
    params = {f"params.{key}": value for key, value in run.params.items()}
    return params | {f"datasets.{context}": value for context, value in run.datasets.items()}


def param_of(run: GateRun, field: str) -> str | None:
    """The value of a field `params.<key>`, without building all fields; None if it is missing."""
    return run.params.get(field.removeprefix("params."))


def compare_fields(
    policy: Policy, candidate: Sequence[GateRun], baseline: Sequence[GateRun]
) -> Comparability:
    """Check the fields of all runs against the policy's `[comparable]`.

    A field that must be equal has the same value in all runs of both sides; a run without it
    differs from one that has it. A full name in `require_equal` overrides a pattern in
    `allow_differ`.
    """
    first, second = ([fields_of(run) for run in side] for side in (candidate, baseline))
    names_seen = sorted({name for fields in (*first, *second) for name in fields})
    required, problems = _required(policy, names_seen)
    if "require_equal" not in policy.comparable.model_fields_set:
        keys = {key for run in (*candidate, *baseline) for key in run.metrics}
        required -= set() if _judges_training(policy, keys) else _TRAINING_DATA
    differences, noted = [], []
    paired = policy.paired_by
    for name in names_seen:
        field = FieldDifference(name, _values(first, name), _values(second, name))
        if name in required:
            if len({*field.candidate, *field.baseline}) > 1:
                differences.append(field)
        elif not (
            name in paired
            or (name.startswith("params.") and names.is_seed(name))
            or covers(policy.comparable.allow_differ, name)
            or not (first and second)
            or {*field.candidate} & {*field.baseline}
        ):
            noted.append(_shown(field))
    if differences:
        unequal = ", ".join(difference.field for difference in differences)
        problems.append(
            f"the runs differ in {unequal}, which must be equal: restrict the baseline to runs "
            "like the candidate, or change comparable.require_equal"
        )
    notes = []
    if noted:
        more = f", and {len(noted) - _MAX_NOTED} more" if len(noted) > _MAX_NOTED else ""
        notes.append(
            f"candidate and baseline also differ in {', '.join(noted[:_MAX_NOTED])}{more}: "
            "add each to comparable.require_equal or comparable.allow_differ"
        )
    return Comparability(tuple(differences), tuple(problems), tuple(notes))


_TRAINING_DATA = {f"datasets.{names.TRAIN}", "datasets.training"}
"""The fields with the data that runs were trained on; MLflow's own examples write `training`."""


def _judges_training(policy: Policy, keys: Collection[str]) -> bool:
    """Whether the policy judges a metric that was measured on the training data."""
    judged = [name for name, metric in policy.metrics.items() if metric.severity != "info"]
    return any(names.is_train_key(key) and covers(judged, key) for key in keys)


def mixed_params(policy: Policy, runs: Sequence[GateRun], side: Side) -> list[str]:
    """Why the runs of a side cannot be taken for seeds of one config, a sentence for each batch.

    All params must be equal but the seeds, the fields that pair runs, and those that the policy
    lets vary.
    """
    batches: dict[str, list[Mapping[str, str]]] = {}
    for run in runs:
        params = {f"params.{key}": text for key, text in run.params.items()}
        batches.setdefault(run.batch, []).append(params)
    found = []
    for batch, group in batches.items():
        differing = [
            f"{name} ({shortened(_side_words(values), 2 * _MAX_TEXT)})"
            for name in sorted({name for params in group for name in params})
            if not (names.is_seed(name) or name in policy.paired_by)
            and not policy.comparable.varies(name)
            and len(values := _values(group, name)) > 1
        ]
        if differing:
            more = f", and {len(differing) - _MAX_NOTED} more" if differing[_MAX_NOTED:] else ""
            where = f" (batch {batch})" if batch else ""
            found.append(
                f"the {side}'s runs{where} are not seeds of one config, they differ in "
                f"{', '.join(differing[:_MAX_NOTED])}{more}: judge one config at a time, or add "
                "the params to comparable.vary_within"
            )
    return found


def compare_data(
    policy: Policy, key: str, candidate: Sequence[GateRun], baseline: Sequence[GateRun]
) -> str:
    """Why the data behind a metric keep it from being compared; empty if they do not.

    All runs must have measured it on data with the same digest, unless the policy's `allow_differ`
    has `data.<prefix>`. If no run recorded its data, nothing is checked.
    """
    difference = _different_data(key, candidate, baseline)
    if difference is None or covers(policy.comparable.allow_differ, difference.field):
        return ""
    return (
        f"not compared: {difference.field.removeprefix(_DATA)}/ was measured on different data, "
        f"{_shown(difference)}: evaluate on the same data, or add {difference.field} to "
        "comparable.allow_differ"
    )


def data_note(key: str, runs: Sequence[GateRun]) -> str:
    """A sentence that a metric was measured on different data in these runs; empty if it was not,
    or if no run recorded its data."""
    difference = _different_data(key, runs, ())
    if difference is None:
        return ""
    shown = shortened(_side_words(difference.candidate), 2 * _MAX_TEXT)
    return f"{key} was measured on different data in these runs: {shown}"


_DATA = "data."


def _different_data(
    key: str, candidate: Sequence[GateRun], baseline: Sequence[GateRun]
) -> FieldDifference | None:
    """The data behind a metric, if they differ."""
    prefix = _prefix_of(key, [*candidate, *baseline])
    if not prefix:
        return None

    def seen(side: Sequence[GateRun]) -> tuple[str | None, ...]:
        values = {_measured_on(run, prefix, key) for run in side if key in run.metrics}
        return tuple(sorted(values, key=_none_last))

    difference = FieldDifference(f"{_DATA}{prefix}", seen(candidate), seen(baseline))
    digests = {_digests(value) for value in (*difference.candidate, *difference.baseline)}
    return difference if len(digests) > 1 else None


def _prefix_of(key: str, runs: Collection[GateRun]) -> str:
    """The longest prefix of `key` for which a run recorded its data; empty if none did."""
    known = {prefix for run in runs for prefix in run.data}
    found = max((one for one in known if key.startswith(f"{one}/")), key=len, default="")
    if ALL_OTHERS in known and names.is_eval_key(key):
        return found or key.rpartition("/")[0]
    return found


def _measured_on(run: GateRun, prefix: str, key: str) -> str | None:
    """The data behind a metric of a run; None if the run did not record them."""
    if ALL_OTHERS in run.data and prefix != key.rpartition("/")[0]:
        return f"unknown in run {run.run_id}"  # its own prefix may be one that did not fit
    if prefix in run.data:
        return run.data[prefix]
    if ALL_OTHERS in run.data:
        return f"unknown in run {run.run_id}"
    only = run.datasets.get(names.EVAL, ",")
    # A run of an older version or another tool recorded none: take its only eval dataset.
    return only if not run.data and prefix == names.EVAL and "," not in only else None


def _digests(value: str | None) -> tuple[str, ...]:
    """The part of a value that must be equal: names may differ."""
    return () if value is None else tuple(one.rpartition(":")[2] for one in value.split(","))


def _none_last(value: str | None) -> tuple[bool, str]:
    return value is None, value or ""


def _required(policy: Policy, fields: Collection[str]) -> tuple[set[str], list[str]]:
    """The fields that must be equal, and a problem for each entry that matches no run."""
    comparable, required = policy.comparable, set[str]()
    problems = []
    for entry in comparable.require_equal:
        if has_pattern(entry):
            matching = {name for name in fields if fnmatchcase(name, entry)}
            required |= {name for name in matching if not covers(comparable.allow_differ, name)}
        else:
            matching = {entry} & set(fields)
            required |= matching - set(comparable.allow_differ)
        if not matching and "require_equal" in comparable.model_fields_set:
            problems.append(
                f"no run has the field {entry}, which must be equal: check its spelling in "
                "comparable.require_equal, and that the runs logged it"
            )
    return required, problems


def _values(runs: Sequence[Mapping[str, str]], name: str) -> tuple[str | None, ...]:
    """The values of a field, each once; None for runs without it."""
    return tuple(sorted({fields.get(name) for fields in runs}, key=_none_last))


def _shown(difference: FieldDifference) -> str:
    sides = [_side_words(side) for side in (difference.candidate, difference.baseline)]
    return f"{difference.field} ({'; '.join(shortened(side, 2 * _MAX_TEXT) for side in sides)})"


def _side_words(values: Sequence[str | None]) -> str:
    return " | ".join("missing" if one is None else shortened(one, _MAX_TEXT) for one in values)
