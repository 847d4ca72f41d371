"""The options that judge runs: the command has them as they are, pytest as `--orbiter-...`."""

from dataclasses import dataclass
from typing import Literal

REPORTS = {
    "markdown": "For a comment on a change; added to what is there in $GITHUB_STEP_SUMMARY.",
    "junit": "JUnit's XML: failure = regression, error = cannot compare, skipped = inconclusive.",
    "json": "All that was found, for programs.",
    "html": "One page for people, with each metric's values plotted.",
}
"""Kind of report -> what it is for; there is an option of that name for the file of each."""


@dataclass(frozen=True, slots=True)
class Option:
    """An option by its name, without dashes; `metavar` stands for its value in the help."""

    name: str
    help: str
    kind: Literal["text", "path", "flag"] = "text"
    metavar: str | None = None

    @property
    def variable(self) -> str:
        """Its name in code."""
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
        "Where there is no baseline yet, let the bounds alone decide; the report says so.",
        kind="flag",
    ),
    Option(
        "baseline-ref",
        "Read the baseline file as it is at that git ref, so that a change is not judged by its "
        "own; the report says where file or policy differ.",
        metavar="GITREF",
    ),
    *(Option(kind, use, kind="path", metavar="FILE") for kind, use in REPORTS.items()),
)
