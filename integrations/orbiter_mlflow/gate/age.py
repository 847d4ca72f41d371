"""How old the baseline is, in days and commits, and whether the policy warns of that."""

from datetime import datetime
from pathlib import Path

from orbiter_mlflow.gate import git
from orbiter_mlflow.gate.lineage import BaselineAge
from orbiter_mlflow.gate.model import counted
from orbiter_mlflow.gate.policy.baseline import Baseline
from orbiter_mlflow.text.clock import now

__all__ = ["baseline_age"]

_DAY = 86_400_000
"""In milliseconds."""


def baseline_age(
    source: Baseline, at: str, *, commit: str, candidate: str, folder: Path
) -> BaselineAge | None:
    """The age of a baseline; None if its time cannot be read.

    Args:
        source: `[baseline]` of the policy, with its limits.
        at: when it was blessed, in ISO 8601.
        commit: of the baseline's code; empty if it is not known.
        candidate: likewise.
        folder: a folder in the git repository.
    """
    try:
        blessed = datetime.fromisoformat(at).timestamp() * 1000
    except ValueError:  # edited by hand
        return None
    days = max(0.0, (now() - blessed) / _DAY)
    commits = git.count_commits(commit, candidate, folder) if commit and candidate else None
    warnings = []
    if source.max_age_days is not None and days > source.max_age_days:
        warnings.append(
            f"The baseline is {days:.0f} days old, more than max_age_days = "
            f"{source.max_age_days:g}: bless a newer one."
        )
    if source.max_age_commits is not None and commits is not None:
        if commits > source.max_age_commits:
            warnings.append(
                f"The baseline is {counted(commits, 'commit')} old, more than max_age_commits = "
                f"{source.max_age_commits}: bless a newer one."
            )
    elif source.max_age_commits is not None:
        warnings.append(
            "The age of the baseline in commits is not known, so max_age_commits was not checked: "
            "its runs and the candidate's need their git commit, and git needs both."
        )
    return BaselineAge(at, days, commits, tuple(warnings))
