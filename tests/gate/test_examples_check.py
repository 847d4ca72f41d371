"""`orbiter-mlflow check` with tables of examples, on real stores."""

import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from mlflow import MlflowClient

from gate_runs import Shelf
from orbiter.train import TrainMetrics
from orbiter_mlflow import names
from orbiter_mlflow.cli.main import commands
from orbiter_mlflow.delivery.spool_folder import default_spool
from orbiter_mlflow.gate import example_tables
from orbiter_mlflow.gate.run_selection import waiting_here
from trainers import stored, tracked
from waiting import eventually

# MLflow's log_table, with pandas 3
pytestmark = pytest.mark.filterwarnings("ignore:For backward compatibility, 'str' dtypes")

POLICY = """
[gate]
schema = 1
[baseline]
{baseline}
[examples."eval/accuracy"]
direction = "higher"
score = "correct"
{more}
"""
ANY_DATA = '[comparable]\nallow_differ = ["datasets.eval"]'
Check = Callable[..., tuple[int, str, Any]]


def rows(right: int, n: int = 300, first: int = 0) -> list[dict[str, Any]]:
    """The first `right` examples are right."""
    return [
        {"id": f"q{at}", "correct": at < right, "category": "math" if at % 2 else "code"}
        for at in range(first, n)
    ]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Exit code, output and JSON report of a check."""

    def invoke(uri: str, *candidates: str, baseline: str, more: str = "") -> tuple[int, str, Any]:
        policy = tmp_path / "gate.toml"
        policy.write_text(POLICY.format(baseline=baseline, more=more))
        command = ["check", str(policy), "--candidate", *candidates, "--json", "report.json"]
        result = CliRunner(env={"MLFLOW_TRACKING_URI": uri, "COLUMNS": "200"}).invoke(
            commands, command
        )
        assert isinstance(result.exception, SystemExit | None), result.exc_info
        report = Path("report.json")
        return (
            result.exit_code,
            result.output,
            json.loads(report.read_text()) if report.exists() else None,
        )

    return invoke


async def evaluated(uri: str, table: Any, **settings: Any) -> str:
    """The id of a tracked run that has evaluated and logged its table."""
    trainer = tracked(uri, **settings)
    trainer.scores = TrainMetrics(accuracy=0.5)
    trainer.mark_validated()
    trainer.log_eval_table(table)
    await trainer.train()
    await trainer.evaluate()
    run_id = str(stored(uri, trainer).info.run_id)
    del trainer
    gc.collect()
    eventually(lambda: not waiting_here(default_spool()))  # the end of the run, too
    return run_id


async def test_one_run_a_side_is_judged_by_its_examples(sqlite_uri: str, check: Check) -> None:
    before = await evaluated(sqlite_uri, rows(200))
    same = await evaluated(sqlite_uri, rows(200))
    worse = await evaluated(sqlite_uri, rows(188))
    baseline = f'run = "{before}"'
    code, out, report = check(sqlite_uri, same, baseline=baseline)
    assert (code, report["outcome"]) == (0, "pass"), out
    code, out, report = check(sqlite_uri, worse, baseline=baseline, more='slices = ["category"]')
    assert (code, report["outcome"]) == (1, "regression"), out
    assert out.startswith("REGRESSION: eval/accuracy: past max_drop = 0: worse by 0.04")
    (found,) = report["examples"]
    assert (found["scores"]["broken"], found["scores"]["fixed"]) == (12, 0)
    assert found["scores"]["p_value"] == pytest.approx(0.5**12)
    assert {one["label"] for one in found["slices"]} == {"math", "code"}
    assert found["worst"][0] == {"example": "q188", "baseline": 1.0, "candidate": 0.0}
    assert found["tables"].keys() == {before, worse}


async def talked(uri: str, right: int, *, evaluated: bool = True, **settings: Any) -> str:
    """The id of a run whose newest evaluation got `right` prompts right, each in two completions,
    and its first one none."""
    trainer = tracked(uri, **settings)
    trainer.mark_validated()
    trainer.report_rollouts([{"prompt": "q0", "rewards": {"correct": 0}}], step=1, phase="eval")
    for _ in range(2 if evaluated else 0):
        trainer.report_rollouts(
            [
                {"prompt": f"What is\n{at}?" * 9, "rewards": {"correct": at < right}}
                for at in range(200)
            ],
            step=2,
            phase="eval",
        )
    await trainer.train()
    await trainer.evaluate()
    run_id = str(stored(uri, trainer).info.run_id)
    del trainer
    gc.collect()
    eventually(lambda: not waiting_here(default_spool()))
    return run_id


ROLLOUTS = "rollouts = true"


async def test_rollouts_of_the_newest_evaluation_are_judged_prompt_by_prompt(
    sqlite_uri: str, check: Check
) -> None:
    before = await talked(sqlite_uri, 150)
    worse = await talked(sqlite_uri, 138)
    code, out, report = check(sqlite_uri, worse, baseline=f'run = "{before}"', more=ROLLOUTS)
    (found,) = report["examples"]
    assert (code, found["table"]) == (1, "rollouts/eval"), out
    assert (found["scores"]["n"], found["scores"]["broken"]) == (200, 12)
    assert found["worst"][0]["example"].startswith("What is 138?What is 138?")
    assert len(found["worst"][0]["example"]) < 80
    other = await talked(sqlite_uri, 0, evaluated=False)
    code, _, report = check(sqlite_uri, other, baseline=f'run = "{before}"', more=ROLLOUTS)
    assert code == 3
    assert "only 0 of 201 are in all of them" in report["examples"][0]["reason"]


async def test_a_run_that_lacks_rollouts_is_not_judged_by_older_ones(
    sqlite_uri: str, check: Check
) -> None:
    run_id, other = await talked(sqlite_uri, 150), await talked(sqlite_uri, 150)
    client = MlflowClient(sqlite_uri)
    for life in ("", ".2"):
        tag = f"{names.ROLLOUTS_MISSING}{life}"
        client.set_tag(run_id, tag, "not delivered yet: rollouts/eval/step-3.json")
        code, _, report = check(sqlite_uri, run_id, baseline=f'run = "{other}"', more=ROLLOUTS)
        assert code == 3
        reason = report["examples"][0]["reason"]
        assert f"rollouts are missing (tag {tag}: not delivered yet: rollouts/eval" in reason
        assert "orbiter-mlflow sync" in reason
        client.delete_tag(run_id, tag)
    client.set_tag(run_id, names.ROLLOUTS_MISSING, names.skipped("rollouts", 2))  # traces alone
    code, out, _ = check(sqlite_uri, run_id, baseline=f'run = "{other}"', more=ROLLOUTS)
    assert code == 0, out


def test_a_run_without_rollouts_of_an_evaluation_is_not_judged(shelf: Shelf, check: Check) -> None:
    for name in ("old", "new"):
        shelf.add(name, {"eval/accuracy": 0.5})
    code, _, report = check(shelf.uri, "new", baseline=f'run = "{shelf.ids["old"]}"', more=ROLLOUTS)
    assert code == 3
    assert "it has no rollouts of an evaluation" in report["examples"][0]["reason"]


def logged(shelf: Shelf, name: str, table: Any, path: str) -> str:
    run_id = shelf.add(name, {"eval/accuracy": 0.5})
    shelf.client.log_table(run_id, table, path)
    return run_id


def columns(table: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in table] for name in table[0]}


@pytest.fixture
def shelf(empty_store: Path, tmp_path: Path) -> Shelf:
    return Shelf.fresh(empty_store, tmp_path)


async def test_a_table_that_was_logged_offline_is_judged_once_it_is_delivered(
    shelf: Shelf, check: Check
) -> None:
    logged(shelf, "old", columns(rows(200)), "eval_tables/eval.json")
    trainer = tracked(shelf.uri, delivery="offline", run_name="new")
    trainer.mark_validated()
    trainer.log_eval_table(rows(150))
    await trainer.train()
    del trainer
    gc.collect()
    result = CliRunner(env={"MLFLOW_TRACKING_URI": shelf.uri}).invoke(commands, ["sync"])
    assert result.exit_code == 0, result.output
    code, _, report = check(shelf.uri, "new", baseline=f'run = "{shelf.ids["old"]}"', more=ANY_DATA)
    assert (code, report["examples"][0]["verdict"]) == (1, "fail")


def test_tables_of_mlflow_itself_are_read(shelf: Shelf, check: Check) -> None:
    results = "eval_results_table.json"
    for name, right in (("old", 200), ("new", 188)):
        logged(shelf, name, columns(rows(right)), results)
    code, _, report = check(
        shelf.uri, "new", baseline=f'run = "{shelf.ids["old"]}"', more=f'table = "{results}"'
    )
    assert (code, report["examples"][0]["scores"]["broken"]) == (1, 12)


def test_as_many_runs_of_the_baseline_are_read_as_there_are_candidates_the_newest_with_a_table(
    shelf: Shelf, check: Check
) -> None:
    path = "eval_tables/eval.json"
    for at in range(4):
        logged(shelf, f"old {at}", columns(rows(200 + at)), path)
    shelf.add("old 4", {"eval/accuracy": 0.5})
    bless = ["bless", *(shelf.ids[f"old {at}"] for at in range(5)), "--reason", "test"]
    result = CliRunner(env={"MLFLOW_TRACKING_URI": shelf.uri}).invoke(commands, bless)
    assert result.exit_code == 0, result.output
    for at in range(2):
        logged(shelf, f"new {at}", columns(rows(200)), path)
    code, out, report = check(
        shelf.uri, "new 0", "new 1", baseline="filter = \"tags.baseline = 'main'\"\nmin_runs = 2"
    )
    (found,) = report["examples"]
    assert code == 0, out
    assert found["tables"].keys() == {
        shelf.ids[name] for name in ("old 3", "old 2", "new 0", "new 1")
    }
    assert [one["run_id"] for one in found["left_out"]] == [shelf.ids["old 4"]]


REFUSED: dict[str, tuple[Any, str]] = {
    "no table": (None, "it has no table eval_tables/eval.json: log it with trainer.log_eval_table"),
    "appended twice": (rows(10, 300) + rows(10, 300), "in row 1 and in row 301"),
    "NaN": ([*rows(1, 299), {"id": "q299", "correct": None, "category": "x"}], "in row 300"),
    "fewer examples": (rows(200, 299), "only 299 of 300 are in all of them"),
    "other examples": (rows(400, 600, 300), "only 0 of 600 are in all of them"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_candidate_whose_table_cannot_be_used_is_not_judged(
    shelf: Shelf, check: Check, case: str
) -> None:
    table, told = REFUSED[case]
    path = "eval_tables/eval.json"
    logged(shelf, "old", columns(rows(200)), path)
    if table is None:
        shelf.add("new", {"eval/accuracy": 0.5})
    else:
        logged(shelf, "new", columns(table), path)
    code, out, report = check(shelf.uri, "new", baseline=f'run = "{shelf.ids["old"]}"')
    assert (code, report["outcome"]) == (3, "cannot compare")
    assert told in report["examples"][0]["reason"]
    assert "1 of 1 check cannot be compared" in out


def test_a_table_that_is_too_large_is_not_downloaded(
    shelf: Shelf, check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = "eval_tables/eval.json"
    for name in ("old", "new"):
        logged(shelf, name, columns(rows(200)), path)
    monkeypatch.setattr(example_tables, "MAX_BYTES", 100)
    code, _, report = check(shelf.uri, "new", baseline=f'run = "{shelf.ids["old"]}"')
    assert code == 3
    assert "bytes, more than 100" in report["examples"][0]["reason"]


def test_a_baseline_file_is_compared_by_the_tables_of_its_runs_in_the_store(
    shelf: Shelf, check: Check
) -> None:
    path = "eval_tables/eval.json"
    for name, right in (("old", 200), ("new", 150)):
        logged(shelf, name, columns(rows(right)), path)
    bless = ["bless", shelf.ids["old"], "--file", "base.json", "--reason", "test"]
    result = CliRunner(env={"MLFLOW_TRACKING_URI": shelf.uri}).invoke(commands, bless)
    assert result.exit_code == 0, result.output
    baseline = 'file = "base.json"\nmin_runs = 1'
    code, _, report = check(shelf.uri, "new", baseline=baseline)
    assert (code, report["examples"][0]["verdict"]) == (1, "fail")
    MlflowClient(shelf.uri)._tracking_client.store.delete_run(shelf.ids["old"])
    other = Path("base.json").read_text().replace(shelf.ids["old"], "0" * 32)
    Path("base.json").write_text(other)
    code, _, report = check(shelf.uri, "new", baseline=baseline)
    assert code == 3
    assert "no run of the baseline has a usable table" in report["examples"][0]["reason"]


def test_a_wrong_policy_names_the_key(shelf: Shelf, check: Check) -> None:
    for more, told in {
        'slice = ["a"]': "unknown key: did you mean slices?",
        "max_drop = -1": "max_drop = -1 should be greater than or equal to 0",
        "fail_on_slices = true": "fail_on_slices = true needs slices",
        'table = "a*"': "is a pattern: name one table",
        'rollouts = true\ntable = "a"': "rollouts = true and table name two sources",
        'rollouts = true\nslices = ["prompt"]': "id, score and slices name one column twice",
        'table = "a.parquet"': "log it as .json",
        'id = "correct"': "name one column twice",
        'test = "welch"': "test = 'welch' should be 'auto', 'mcnemar' or 'permutation'",
        "min_overlap = 0": "min_overlap = 0 should be greater than 0",
    }.items():
        code, out, _ = check(shelf.uri, "x", baseline='run = "y"', more=more)
        assert code == 2
        assert told in " ".join(out.split())
