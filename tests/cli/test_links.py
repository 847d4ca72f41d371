"""Addresses of pages and the views they open; another test opens them in a browser."""

import json

import pytest

from example_store import EXAMPLE
from orbiter_mlflow import names
from orbiter_mlflow.runs.model import StoredRun
from orbiter_mlflow.runs.store import RunStore
from orbiter_mlflow.ui.columns import shared_view
from orbiter_mlflow.ui.links import compare_page, run_page, runs_page, traces_page
from orbiter_mlflow.ui.pages import pages, server_command, ui_address
from servers import free_port
from trainers import stored, tracked, trained

SIDE = "workflowType=machine_learning"


def a_run(params: dict[str, str], metrics: dict[str, float]) -> StoredRun:
    return StoredRun("id", "name", "1", "FINISHED", 0, 1, params, {}, metrics, ())


def columns(*runs: StoredRun) -> list[str]:
    found: list[str] = json.loads(shared_view(runs))["selectedColumns"]
    return found


@pytest.mark.parametrize("base", ["http://host:5000", "http://host:5000/", "https://host/ml/flow"])
def test_pages_keep_the_path_of_the_address(base: str) -> None:
    start = f"{base.rstrip('/')}/#/"
    assert runs_page(base, "7") == f"{start}experiments/7/runs?{SIDE}"
    assert run_page(base, "7", "abc") == f"{start}experiments/7/runs/abc?{SIDE}"
    charts = runs_page(base, "7", shared_view="v", charts=True)
    expected = f"{start}experiments/7/runs?{SIDE}&viewStateShareKey=v&compareRunsMode=CHART"
    assert charts == expected
    compared = compare_page(base, ["7", "7"], ["a", "b"])
    runs, experiments = "%5B%22a%22%2C%22b%22%5D", "%5B%227%22%5D"
    assert compared == f"{start}compare-runs?runs={runs}&experiments={experiments}&{SIDE}"
    shown = "trace_name%3A%3A%3D%3A%3Atrain%2F000300%3A%3A"
    found = traces_page(base, "7", "abc", "train/000300")
    assert found == f"{start}experiments/7/runs/abc/traces?filter={shown}"


def test_a_server_is_its_own_address_and_a_file_gets_a_local_one() -> None:
    assert ui_address("https://ada:secret@host/x") == "https://host/x"
    assert server_command("https://host/x") is None
    assert ui_address("sqlite:////a/b.db") == "http://127.0.0.1:5000"
    assert "--backend-store-uri sqlite:////a/b.db" in (server_command("sqlite:////a/b.db") or "")
    assert "--backend-store-uri 'sqlite:////a b.db'" in (server_command("sqlite:////a b.db") or "")


def test_columns_are_the_params_that_differ_and_the_main_metrics() -> None:
    one = a_run({"lr": "1", "seed": "0", "note": "x" * 500}, {"train/x": 1.0, "eval/steps": 2.0})
    two = a_run({"lr": "1", "seed": "1", "note": "y"}, {"eval/loss": 1.0, "train/loss": 1.0})
    assert columns(one, two) == [
        "params.`seed`",
        "metrics.`eval/loss`",
        "metrics.`train/loss`",
        "metrics.`train/x`",
        f"tags.`{names.STATE}`",
    ]


def test_a_parent_without_params_does_not_make_all_params_differ() -> None:
    runs = [a_run({"rate": "0.1", "size": size}, {}) for size in ("1", "2")]
    assert columns(*runs, a_run({}, {}))[:-1] == ["params.`size`"]


def test_metrics_of_the_system_take_no_column() -> None:
    run = a_run({}, {names.system_metric("cpu_utilization_percentage"): 50.0, "eval/loss": 0.5})
    assert columns(run) == ["metrics.`eval/loss`", f"tags.`{names.STATE}`"]


def test_columns_of_one_run_and_of_no_run() -> None:
    many = a_run({f"p{i}": "1" for i in range(20)}, {})
    assert columns(many)[:-1] == [f"params.`p{i}`" for i in range(5)]
    assert columns() == [f"tags.`{names.STATE}`"]


async def test_the_pages_of_a_store_that_takes_no_view_are_plain(sqlite_uri: str) -> None:
    run = stored(sqlite_uri, await trained(tracked(sqlite_uri)))

    class ReadOnly(RunStore):
        def share_view(self, experiment_id: str, view: str) -> bool:
            return False

    found = pages(ReadOnly(sqlite_uri), run.info.experiment_id)
    assert found["See the runs"] == f"http://127.0.0.1:5000/#/experiments/0/runs?{SIDE}"
    assert "Compare them" not in found


async def test_a_trainer_knows_its_page(sqlite_uri: str) -> None:
    assert tracked(sqlite_uri).run_url is None
    trainer = await trained(tracked(sqlite_uri))
    page = f"http://127.0.0.1:5000/#/experiments/0/runs/{trainer.run_id}?{SIDE}"
    assert trainer.run_url == page
    nowhere = tracked(f"http://127.0.0.1:{free_port()}", enabled=False)
    assert nowhere.run_url is None


def test_the_examples_page_leads_to_the_runs() -> None:
    assert SIDE in (EXAMPLE / "README.md").read_text("utf-8")
