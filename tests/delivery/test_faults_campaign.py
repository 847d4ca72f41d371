"""Ten random trials of each kind; `make campaign` runs any number."""

import os
import subprocess
from pathlib import Path

import pytest

from campaign import KINDS, Kind, can_mount, run_campaign, table

pytestmark = pytest.mark.server

TRIALS = 10


def seed_of_the_commit() -> int:
    """A seed that changes with each commit and stays the same for one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short=7", "HEAD"]
    found = subprocess.run(command, capture_output=True, text=True)
    return int(os.environ.get("SEED") or int(found.stdout.strip() or "0", 16) % 10_000)


@pytest.mark.parametrize("kind", KINDS)
def test_random_faults_lose_nothing_duplicate_nothing_and_leave_the_true_status(
    kind: Kind, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "disk" and not can_mount():
        pytest.skip("no file system can be mounted here, so no disk can be filled")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    outcomes = list(run_campaign(TRIALS, seed_of_the_commit(), empty_store, (kind,)))
    assert sum(outcome.points for outcome in outcomes) > 0
    assert not [one for one in outcomes if one.problems], "\n" + table(outcomes)
