"""The policy of the gate: which metrics count, what they are compared with, and the limits."""

from orbiter_mlflow.gate.policy.accept import Acceptance
from orbiter_mlflow.gate.policy.baseline import Baseline
from orbiter_mlflow.gate.policy.comparable import Comparable
from orbiter_mlflow.gate.policy.document import (
    Gate,
    Policy,
    expand,
    load_policy,
    parse_policy,
    require_known,
)
from orbiter_mlflow.gate.policy.examples import ExamplesPolicy
from orbiter_mlflow.gate.policy.metric import MetricPolicy
from orbiter_mlflow.gate.policy.table import has_pattern

__all__ = [
    "Acceptance",
    "Baseline",
    "Comparable",
    "ExamplesPolicy",
    "Gate",
    "MetricPolicy",
    "Policy",
    "expand",
    "has_pattern",
    "load_policy",
    "parse_policy",
    "require_known",
]
