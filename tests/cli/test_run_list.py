"""`orbiter-mlflow runs`: the runs of an experiment, with the columns in which they differ."""

import json
import math
from pathlib import Path

import pytest

from gate_runs import Shelf
from orbiter_mlflow import names
from orbiter_mlflow.runs.store import RunStore
from orbiter_mlflow.ui.columns import shared_view


@pytest.fixture(scope="module")
def shelf(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    made = Shelf.fresh(empty_store, tmp_path_factory.mktemp("shelf"))
    for seed in range(3):
        made.add(
            f"run-{seed}",
            {
                "eval/accuracy": [0.5, 0.9 + seed / 100],
                "train/loss": math.nan if seed == 2 else 0.25,
                "train/steps": 100.0,
                names.system_metric("cpu_utilization_percentage"): 50.0,
            },
            experiment="sweep",
            params={"learning_rate": "0.1", "seed": str(seed), "prompt": "x" * (100 + seed)},
            status="FAILED" if seed == 1 else "FINISHED",
        )
    made.experiment("empty")
    return made


def test_the_table_has_the_columns_of_the_uis_view(shelf: Shelf) -> None:
    code, out = shelf.call("runs", "--experiment", "sweep")
    assert code == 0, out
    shown = ["run", "id", "status", "started", "(UTC)"]
    prefixes, header, _, *rows = [line.split() for line in out.splitlines() if line.strip()]
    assert prefixes == ["eval/", "train/"]
    assert header == [*shown, "seed", "accuracy", "loss"]
    runs = list(RunStore(shelf.uri).search("", [shelf.experiment("sweep")]))
    columns = json.loads(shared_view(runs))["selectedColumns"]
    assert columns[:-1] == ["params.`seed`", "metrics.`eval/accuracy`", "metrics.`train/loss`"]
    assert [(row[0], row[2], *row[-3:]) for row in rows] == [
        ("run-2", "FINISHED", "2", "0.92", "NaN"),
        ("run-1", "FAILED", "1", "0.91", "0.25"),
        ("run-0", "FINISHED", "0", "0.9", "0.25"),
    ]
    assert rows[0][1] == shelf.ids["run-2"][:8]


def test_json_has_all_params_and_metrics(shelf: Shelf) -> None:
    code, out = shelf.call("runs", "--experiment", "sweep", "--format", "json", "--last", 2)
    assert code == 0, out
    content = json.loads(out)
    assert (content["schema"], content["experiment"], content["more"]) == (1, "sweep", True)
    assert content["columns"] == {"params": ["seed"], "metrics": ["eval/accuracy", "train/loss"]}
    first, second = content["runs"]
    assert (first["run_id"], second["name"]) == (shelf.ids["run-2"], "run-1")
    assert first["params"] == {"learning_rate": "0.1", "seed": "2", "prompt": "x" * 102}
    assert first["metrics"]["train/loss"] == "nan"
    assert first["metrics"]["system/cpu_utilization_percentage"] == 50.0
    assert first["end_time"] > first["start_time"]


def test_a_filter_and_a_number_choose_the_runs(shelf: Shelf) -> None:
    code, out = shelf.call("runs", "--experiment", "sweep", "--last", 1)
    assert (code, "run-2" in out, "run-1" in out) == (0, True, False)
    assert "older runs are left out: --last shows more" in out
    code, out = shelf.call("runs", "--experiment", "sweep", "--filter", "params.seed = '0'")
    assert (code, "run-0" in out, "run-1" in out, "--last" in out) == (0, True, False, False)
    assert "learning_rate" in out  # nothing differs, so the first params are shown


def test_no_runs_and_no_experiment_are_told_apart(shelf: Shelf) -> None:
    assert shelf.call("runs", "--experiment", "empty") == (0, "experiment empty: no runs\n")
    code, out = shelf.call("runs", "--experiment", "empty", "--format", "json")
    assert (code, json.loads(out)["runs"]) == (0, [])
    code, out = shelf.call("runs", "--experiment", "swep")
    assert (code, "did you mean 'sweep'?" in out) == (1, True)
    code, out = shelf.call("runs", "--experiment", "sweep", "--filter", "nonsense =")
    assert (code, "the filter 'nonsense ='" in out) == (2, True)
