"""The report as JSON, for programs: everything the gate found, in schema 1.

```
schema          1; increases with any change that could break a reader; new keys do not.
outcome         pass | warn | regression | cannot compare | inconclusive
exit_code       of `orbiter-mlflow check`, in the order of the outcomes: 0, 0, 1, 3, 4
headline        the outcome in one sentence
bootstrap       whether there was no baseline and --bootstrap let the bounds alone decide
policy, policy_digest, alpha, correction
baseline_source {described, changed}
problems, notes [text]
metrics         one object for each, in the policy's order: all fields of `MetricResult`;
                `candidate` and `baseline` in it are {n, mean, values: {run id: number}, missing}
examples        one object for each comparison example by example: all fields of `ExamplesResult`
differences     [{field, candidate: [text or null], baseline: [...]}]
candidate, baseline   the runs: all fields of `GateRun`; start_time in ms since the epoch
left_out        [{run_id, name, reason, side}]
approvals       [{metric, until, reason, by, status}]; status: used | unused | expired
policy_change   null, or {ref, accepted, diff: [text]}
drift           the trend of each metric, if the policy asks for it: all fields of `DriftResult`
history         the last blessings, the oldest first: all fields of `PastBlessing`; `metrics` in it
                is {key: {n, mean, sd}}
age             {at, days, commits, warnings} of the baseline, or null
links           {title: address}
```

A number that JSON lacks is the string "NaN", "Infinity" or "-Infinity". The text is ASCII; lone
surrogates, on which parsers disagree, are spelled out (`\\ud800`). The order of keys is fixed.
"""

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from math import isfinite, isnan
from typing import Any

from orbiter_mlflow.gate.model import GateReport, Sample
from orbiter_mlflow.gate.reports import figures, wording
from orbiter_mlflow.text.escaping import in_json

__all__ = ["SCHEMA", "render"]

SCHEMA = 1


def render(report: GateReport) -> str:
    """The report as strict JSON; the docstring of this module describes its structure."""
    content = {
        "schema": SCHEMA,
        "outcome": report.outcome,
        "exit_code": report.outcome.exit_code,
        "headline": wording.headline(report),
        "bootstrap": report.bootstrap,
        "policy": report.policy,
        "policy_digest": report.policy_digest,
        "alpha": report.alpha,
        "correction": report.correction,
        "baseline_source": report.source,
        "problems": report.problems,
        "notes": report.notes,
        "metrics": report.metrics,
        "examples": report.examples,
        "differences": report.differences,
        "candidate": report.candidate,
        "baseline": report.baseline,
        "left_out": report.left_out,
        "drift": report.drift,
        "history": report.history,
        "age": report.age,
        "links": report.links or {},
        "approvals": report.approvals,
        "policy_change": report.policy_change,
    }
    return in_json(json.dumps(_plain(content), indent=2, allow_nan=False)) + "\n"


def _plain(value: Any) -> Any:
    """Convert dataclasses and their values to JSON's types."""
    if isinstance(value, Sample):
        return {"n": value.n, "mean": _plain(figures.mean(value))} | _fields(value)
    if is_dataclass(value) and not isinstance(value, type):
        return _fields(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, float) and not isfinite(value):
        return "NaN" if isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {_plain(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
