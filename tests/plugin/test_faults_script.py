"""Random trials of each kind with a plain MLflow script; `make campaign` runs any number."""

from pathlib import Path

import pytest

from campaign import KINDS, Kind, can_mount, run_campaign, table

pytestmark = pytest.mark.server

TRIALS = 3
SEED = 3


@pytest.mark.parametrize("kind", KINDS)
def test_random_faults_cost_a_plain_script_nothing(
    kind: Kind, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "disk" and not can_mount():
        pytest.skip("no file system can be mounted here, so no disk can be filled")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    outcomes = list(run_campaign(TRIALS, SEED, empty_store, (kind,), "script"))
    assert sum(outcome.points for outcome in outcomes) > 0
    assert not [one for one in outcomes if one.problems], "\n" + table(outcomes)
