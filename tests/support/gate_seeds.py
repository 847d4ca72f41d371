"""Seeds of a candidate and of a baseline, built by hand, and the gate's report about them."""

from collections.abc import Mapping, Sequence
from typing import Any

from orbiter_mlflow.gate.judge import judge
from orbiter_mlflow.gate.model import BaselineSource, GateReport, GateRun
from orbiter_mlflow.gate.policy import Policy


def seeds(
    name: str, values: Mapping[int, float], start: int = 0, commit: str = "c1", **fields: Any
) -> list[GateRun]:
    """A run for each seed, all started at once."""
    params = fields.pop("params", {})
    return [
        GateRun(
            **{
                "run_id": f"{name}{seed}",
                "name": f"{name} {seed}",
                "status": "FINISHED",
                "params": {"seed": str(seed), "lr": "0.1", **params},
                "datasets": {},
                "metrics": {"m": value},
                "start_time": start,
                "commit": commit,
                **fields,
            }
        )
        for seed, value in values.items()
    ]


def judged(
    candidate: Sequence[GateRun], baseline: Sequence[GateRun], by: Policy, **more: Any
) -> GateReport:
    return judge(by, candidate, baseline, source=BaselineSource("made up for the test"), **more)
