"""Run selection in a real store: candidates, the baseline, values, and incomplete runs."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gate_runs import Shelf, names_of
from journals import HEAD, journal_of
from orbiter_mlflow import names
from orbiter_mlflow.delivery.ack import Ack, write_ack
from orbiter_mlflow.delivery.records import Metrics, Record, Status
from orbiter_mlflow.errors import CannotCompareError, FilterError, PolicyError, RunNotFoundError
from orbiter_mlflow.gate import run_selection
from orbiter_mlflow.gate.policy import Policy
from orbiter_mlflow.runs.model import StoredRun
from orbiter_mlflow.runs.store import RunStore
from orbiter_mlflow.settings import MLflowSettings

HOSTILE = "a|b\n[red]`x`\x1b[31m<b>"


@pytest.fixture(scope="module")
def shelf(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    made = Shelf.fresh(empty_store, tmp_path_factory.mktemp("shelf"))
    main = {"baseline": "main"}
    for n in range(6):
        made.add(f"old {n}", {"eval/accuracy": 0.9 + n / 100}, tags=main, params={"seed": f"{n}"})
    made.add("died", {"eval/accuracy": 0.1}, tags=main, status="KILLED")
    made.add("goes on", {"eval/accuracy": 0.2}, tags=main, status="RUNNING")
    made.add("lossy", {"eval/accuracy": 0.3}, tags=main | {names.LOST: "7"})
    made.add("kept", {"eval/accuracy": 0.3}, tags={names.LOST: "0", names.QUARANTINED: "2"})
    made.add("damaged", {"eval/accuracy": 0.3}, tags={names.DAMAGED: "1"})
    made.add("gone", {"eval/accuracy": 0.4}, tags=main)
    made.client.delete_run(made.ids["gone"])
    made.add(
        "curve",
        {"score": [0.1, 0.9, 0.5], "loss": [2.0, 0.5, 1.0], "sick": [0.1, math.nan, 0.3]},
        data={"train": ("x", "1"), "eval": ("y", "2")},
    )
    made.add("burst", {"loss": [0.5, math.inf, 0.3], "score": [0.5, -math.inf, 0.7]})
    made.add("learning_rate=0.5 seed=0", {"eval/accuracy": 0.5}, tags={"x": "it's"})
    made.add(HOSTILE, {"eval/accuracy": 0.5})
    made.add("twin", {"eval/accuracy": 0.5})
    made.add("twin", {"eval/accuracy": 0.6})
    made.add("far", {"eval/accuracy": 0.7}, experiment="elsewhere", tags=main)
    return made


@pytest.fixture(scope="module")
def store(shelf: Shelf) -> RunStore:
    return RunStore(shelf.uri)


def found(shelf: Shelf, store: RunStore, *texts: str, experiment: str = "Default") -> list[str]:
    runs = run_selection.find_runs(store, texts, experiment=experiment)
    return names_of(shelf, [run.run_id for run in runs])


def policy(**metrics: dict[str, Any]) -> Policy:
    return Policy.model_validate(
        {"gate": {"schema": 1}, "baseline": {"filter": "x"}, "metrics": metrics}
    )


# -- which runs are meant --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "tags.baseline = 'main'",
        "metrics.`eval/accuracy` > 0.5",
        "metrics.a>1 and params.b LIKE 'x'",
        "attributes.status != 'FAILED'",
        " status = 'FINISHED'",
        "run_id IN ('a', 'b')",
        "run_name ilike '%x%'",
        "tags.x IS NULL",
        "datasets.name = 'd'",
        "start_time >= 5",
        "tags.'a b' =\n'c'",
    ],
)
def test_a_filter_is_distinguished_from_a_name(text: str) -> None:
    assert run_selection.is_filter(text)


@pytest.mark.parametrize(
    "text",
    ["3f2a", "learning_rate=0.5 seed=0", "run.5", "tags.x", "a = 'b'", "status", "", "my run > 5"],
)
def test_a_name_is_not_a_filter(text: str) -> None:
    assert not run_selection.is_filter(text)


def test_runs_are_found_by_id_start_name_and_filter_each_once(
    shelf: Shelf, store: RunStore
) -> None:
    first = shelf.ids["old 0"]
    texts = [first, first[:12], "old 0", "params.seed = '0'", "learning_rate=0.5 seed=0", HOSTILE]
    assert found(shelf, store, *texts) == ["old 0", "learning_rate=0.5 seed=0", HOSTILE]
    assert found(shelf, store, 'tags.x = "it\'s"') == ["learning_rate=0.5 seed=0"]
    assert found(shelf, store, "far", experiment="elsewhere") == ["far"]
    assert found(shelf, store, shelf.ids["far"]) == ["far"]


def test_missing_or_ambiguous_runs_are_reported(shelf: Shelf, store: RunStore) -> None:
    with pytest.raises(RunNotFoundError, match=r"no run of experiment 'Default' .* 'nobody'"):
        found(shelf, store, "nobody")
    with pytest.raises(RunNotFoundError, match="matches "):
        found(shelf, store, "twin")
    with pytest.raises(CannotCompareError, match=r"no run .* matches \"params.seed = '99'\""):
        found(shelf, store, "params.seed = '99'")
    for wrong in ("tags.a == 'b'", "params.a = 1", "tags.a = 'b' OR tags.a = 'c'", "status = 5"):
        with pytest.raises(FilterError) as told:
            found(shelf, store, wrong)
        assert repr(wrong) in str(told.value)


def test_the_experiment_is_that_of_the_settings(shelf: Shelf, store: RunStore) -> None:
    def of(**given: str) -> str:
        return run_selection.experiment_of(MLflowSettings.model_validate(given), store)

    assert of() == "Default"
    assert of(experiment="mine") == "mine"
    assert of(experiment_id=shelf.experiment("elsewhere")) == "elsewhere"


# -- values ----------------------------------------------------------------------------------------


def values(shelf: Shelf, store: RunStore, name: str, asked: Policy | None) -> dict[str, float]:
    runs = [store.get(shelf.ids[name])]
    (run,), _ = run_selection.gate_runs(store, asked, runs, [], {})
    return dict(run.metrics)


def test_the_value_is_the_latest_the_best_or_that_of_a_step(shelf: Shelf, store: RunStore) -> None:
    latest_ones = values(shelf, store, "curve", None)
    assert latest_ones == {"score": 0.5, "loss": 1.0, "sick": 0.3}
    best = policy(
        score={"direction": "higher", "min": 0, "at": "best"},
        loss={"direction": "lower", "max": 9, "at": "best"},
    )
    assert values(shelf, store, "curve", best) == {"score": 0.9, "loss": 0.5, "sick": 0.3}
    near = policy(score={"direction": "target", "target": 0.4, "max_drop": 1, "at": "best"})
    assert values(shelf, store, "curve", near)["score"] == 0.5
    at_step = policy(score={"direction": "higher", "min": 0, "at": "step=0"})
    assert values(shelf, store, "curve", at_step)["score"] == 0.1


def test_the_evaluations_behind_a_best_value_are_counted(shelf: Shelf, store: RunStore) -> None:
    asked = policy(
        score={"direction": "higher", "min": 0, "at": "best"},
        loss={"direction": "lower", "max": 9, "at": "step=1"},
    )
    runs = [store.get(shelf.ids["curve"])]
    (run,), _ = run_selection.gate_runs(store, asked, runs, [], {})
    assert run.evaluations == {"score": 3}


def test_a_step_that_is_not_there_is_a_metric_that_is_missing(
    shelf: Shelf, store: RunStore
) -> None:
    asked = policy(score={"direction": "higher", "min": 0, "at": "step=7"})
    assert "score" not in values(shelf, store, "curve", asked)


def test_a_history_with_nan_has_no_best_value(shelf: Shelf, store: RunStore) -> None:
    for direction in ("higher", "lower"):
        asked = policy(sick={"direction": direction, "min": 0, "at": "best"})
        assert math.isnan(values(shelf, store, "curve", asked)["sick"])


def test_an_infinity_on_the_way_is_the_best_value(shelf: Shelf, store: RunStore) -> None:
    asked = policy(
        loss={"direction": "lower", "max": 9, "at": "best"},
        score={"direction": "higher", "min": 0, "at": "best"},
    )
    got = values(shelf, store, "burst", asked)
    assert min(got["loss"], -got["score"]) > 1.797e308


def test_a_pattern_that_matches_nothing_is_refused(shelf: Shelf, store: RunStore) -> None:
    asked = Policy.for_one("nothing/*", direction="higher", min=0)
    with pytest.raises(PolicyError, match="nothing/"):
        values(shelf, store, "curve", asked)
    runs = [store.get(shelf.ids["curve"])]
    run_selection.gate_runs(store, asked, runs, [], {}, also={"nothing/at all"})


def test_datasets_are_grouped_by_context(shelf: Shelf, store: RunStore) -> None:
    (run,), _ = run_selection.gate_runs(store, None, [store.get(shelf.ids["curve"])], [], {})
    assert run.datasets == {"train": "x:1", "eval": "y:2"}


# -- incomplete runs -------------------------------------------------------------------------------


def undelivered(run: StoredRun, spool: Path) -> str:
    return run_selection.undelivered(run, run_selection.waiting_here(spool))


def test_tags_show_which_records_are_missing(shelf: Shelf, store: RunStore, tmp_path: Path) -> None:
    said = {
        name: undelivered(store.get(shelf.ids[name]), tmp_path)
        for name in ("old 0", "kept", "damaged", "gone")
    }
    assert said.pop("old 0") == ""
    assert "2 entries were refused by MLflow (tag orbiter.quarantined)" in said.pop("kept")
    assert "1 lines of its journal" in said.pop("damaged")
    assert "it is deleted" in said.pop("gone")


@pytest.mark.parametrize("known_by", ["ack", "head", "uid"])
def test_a_journal_that_waits_here_makes_its_run_incomplete(
    shelf: Shelf, store: RunStore, tmp_path: Path, known_by: str
) -> None:
    run = store.get(shelf.ids["old 0"])
    head = HEAD if known_by != "head" else replace(HEAD, run_id=run.run_id)
    if known_by == "uid":
        run = replace(run, tags={names.UID: HEAD.uid})
    records: list[Record] = [Status("FINISHED", 1), Metrics(9, 9, {"eval/accuracy": 0.5})]
    journal = journal_of(tmp_path / "a.jsonl", records, head)
    ack = Ack(offset=10, run_id=run.run_id if known_by == "ack" else None)
    write_ack(journal, ack)
    told = undelivered(run, tmp_path)
    assert told == f"part of it waits on this machine: orbiter-mlflow sync {journal}"
    assert undelivered(store.get(shelf.ids["old 1"]), tmp_path) == ""

    write_ack(journal, replace(ack, offset=journal.stat().st_size))
    assert undelivered(run, tmp_path) == ""


def test_other_files_in_the_spool_are_ignored(
    shelf: Shelf, store: RunStore, tmp_path: Path
) -> None:
    (tmp_path / "b.jsonl").write_text("no journal\n")
    assert undelivered(store.get(shelf.ids["old 0"]), tmp_path) == ""
    assert run_selection.waiting_here(tmp_path / "nowhere") == {}
