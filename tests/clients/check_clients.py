"""`make test-integrations`: what the large libraries log to MLflow, unmodified, behind the prefix.

Each program of `support/programs` leaves in the store what it leaves there with the plain URI:
points, params, tags, status, datasets, artifacts and logged models. `make test` does not collect
this file, because of its name.
"""

from pathlib import Path

import pytest
from mlflow import MlflowClient

from client_programs import started
from same_contents import Comparison

CLIENTS = [
    pytest.param(name, marks=pytest.mark.xdist_group(name))
    for name in (
        "transformers_callback",
        "lightning_logger",
        "accelerate_tracker",
        "optuna_callback",
        "sklearn_autolog",
    )
]


@pytest.mark.parametrize("name", CLIENTS)
def test_sqlite_holds_what_it_holds_without_the_prefix(name: str, compared: Comparison) -> None:
    assert compared.on_sqlite(name) == []


@pytest.mark.server
@pytest.mark.parametrize("name", CLIENTS)
def test_a_server_that_was_killed_and_restarted_holds_the_same(
    name: str, compared: Comparison
) -> None:
    assert compared.on_a_server(name) == []


@pytest.mark.xdist_group("transformers_callback")
def test_only_params_that_differ_from_the_trainers_own_are_refused_in_active_run(
    sqlite_uri: str, own_folder: Path
) -> None:
    with started("trl_in_active_run", sqlite_uri, own_folder / "program") as program:
        program.finish()
    (run,) = MlflowClient(sqlite_uri).search_runs(["0"])
    assert run.info.status == "FINISHED"
    assert run.data.params["learning_rate"] == "1e-05"
    assert run.data.params["output_dir"] == "out"
    assert run.data.params["max_steps"] == "4"
    assert len(run.data.params) > 100
    assert {"loss", "grad_norm", "train/loss"} <= run.data.metrics.keys()
    (told,) = (line for line in program.log.splitlines() if "stay as the trainer has" in line)
    assert "output_dir is out, not checkpoints" in told
    assert "learning_rate is 1e-05, not 0.0003" in told
