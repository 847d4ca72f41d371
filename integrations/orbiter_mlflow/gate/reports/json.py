"""The report as JSON, for programs: everything the gate found, schema 1.

```
schema          1; grows with any change that could break a reader. New keys alone do not.
outcome         pass | warn | regression | cannot compare | inconclusive
exit_code       of `orbiter-mlflow check`: 0, 0, 1, 3, 4
headline        the answer in one sentence
bootstrap       whether there was no baseline to judge by, and that was allowed
policy, policy_digest, alpha
baseline_source {described, changed}
problems, notes [text]
metrics         one object for each, in the policy's order: all fields of `MetricResult`;
                `candidate` and `baseline` in it are {n, mean, values: {run id: number}, missing}
differences     [{field, candidate: [text or null], baseline: [...]}]
candidate, baseline   the runs: all fields of `GateRun`; start_time in ms since the epoch
left_out        [{run_id, name, reason}]
links           {title: address}
```

A number that JSON lacks is the string "NaN", "Infinity" or "-Infinity". The text is ASCII; lone
surrogates, which no two parsers agree on, are spelt out (`\\ud800`). The order of keys is fixed.
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

__all__ = ["SCHEMA", "to_json"]

SCHEMA = 1


def to_json(report: GateReport) -> str:
    """The report as strict JSON; the structure stands at the top of this module."""
    shown = {
        "schema": SCHEMA,
        "outcome": report.outcome,
        "exit_code": report.outcome.exit_code,
        "headline": wording.headline(report),
        "bootstrap": report.bootstrap,
        "policy": report.policy,
        "policy_digest": report.policy_digest,
        "alpha": report.alpha,
        "baseline_source": report.source,
        "problems": report.problems,
        "notes": report.notes,
        "metrics": report.metrics,
        "differences": report.differences,
        "candidate": report.candidate,
        "baseline": report.baseline,
        "left_out": report.left_out,
        "links": report.links or {},
    }
    return in_json(json.dumps(_plain(shown), indent=2, allow_nan=False)) + "\n"


def _plain(value: Any) -> Any:
    """What JSON has of dataclasses and their values."""
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
