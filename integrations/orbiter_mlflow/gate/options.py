"""The options of `orbiter-mlflow check`; pytest has the same as `--orbiter-...`.

Plain data without click, because pytest loads this module in every test run.
"""

from dataclasses import dataclass
from typing import Literal

from orbiter_mlflow.gate.reports.formats import FORMATS


@dataclass(frozen=True, slots=True)
class Option:
    """An option; `name` is without dashes, `metavar` stands for the value in the help."""

    name: str
    help: str
    kind: Literal["text", "path", "flag"] = "text"
    metavar: str | None = None

    @property
    def variable(self) -> str:
        """The name of its value in code."""
        return self.name.replace("-", "_")


TRACKING_URI = Option("tracking-uri", "The store.  [default: $MLFLOW_TRACKING_URI or mlflow.db]")
STORE = (
    TRACKING_URI,
    Option(
        "experiment",
        "Where names and filters are looked up.  [default: $MLFLOW_EXPERIMENT_NAME, else Default; "
        "for a policy's filter, else the experiments of the candidates]",
    ),
)
JUDGING = (
    Option(
        "bootstrap",
        "If there is no baseline yet, let the bounds alone decide; the report says so.",
        kind="flag",
    ),
    Option(
        "baseline-ref",
        "Read baseline file and policy at this git ref, so that a change is not judged by its own "
        "baseline alone; where the policy differs, the stricter of both decides.",
        metavar="GITREF",
    ),
    Option(
        "accept-policy-change",
        "With --baseline-ref: let the policy here decide alone; the report says so.",
        kind="flag",
    ),
    *(Option(one.name, one.help, kind="path", metavar="FILE") for one in FORMATS),
)
