"""Random trials of each kind, with a trainer and a plain MLflow script; `make campaign` runs any
number."""

import os
import subprocess
from pathlib import Path

import pytest

from campaign import KINDS, Kind, Program, can_mount, run_campaign, table

pytestmark = pytest.mark.server


def seed_of_the_commit() -> int:
    """A seed that changes with each commit and stays the same for one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short=7", "HEAD"]
    found = subprocess.run(command, capture_output=True, text=True)
    return int(os.environ.get("SEED") or int(found.stdout.strip() or "0", 16) % 10_000)


TRIALS: dict[Program, tuple[int, int]] = {"trainer": (10, seed_of_the_commit()), "script": (3, 3)}
"""Program -> number of trials, and their seed."""


@pytest.mark.parametrize("program", TRIALS)
@pytest.mark.parametrize("kind", KINDS)
def test_random_faults_lose_nothing_duplicate_nothing_and_leave_the_true_status(
    kind: Kind, program: Program, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "disk" and not can_mount():
        pytest.skip("no file system can be mounted here, so no disk can be filled")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    trials, seed = TRIALS[program]
    outcomes = list(run_campaign(trials, seed, empty_store, (kind,), program))
    assert sum(outcome.points for outcome in outcomes) > 0
    assert not [one for one in outcomes if one.problems], "\n" + table(outcomes)
