"""`log_eval_table`: what becomes of the rows, and what is refused."""

import json
import signal
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from click.testing import CliRunner

from orbiter_mlflow import TrackingError, names
from orbiter_mlflow.cli.main import commands
from orbiter_mlflow.delivery import kept_files
from orbiter_mlflow.delivery.records import Artifact, Tags
from orbiter_mlflow.redaction.redactor import Redactor
from orbiter_mlflow.tracking import eval_tables
from orbiter_mlflow.tracking.eval_tables import table_content
from scripts import started
from trainers import Tracked, only_journal, recorded, stored, tracked

pandas: Any = pytest.importorskip("pandas")

QUIET: dict[str, Any] = {
    "delivery": "offline",
    "skip_provenance": ["git", "command", "machine", "packages", "seeds"],
}
ROWS = [
    {"id": "q1", "correct": True, "reward": 0.5, "category": "math"},
    {"id": "q2", "correct": False, "reward": 1, "category": "code"},
]


@pytest.fixture
def trainer() -> Tracked:
    """A validated trainer whose journal stays where it is."""
    trainer = tracked("sqlite:///nowhere.db", **QUIET)
    trainer.mark_validated()
    return trainer


def kept() -> list[tuple[str, dict[str, Any]]]:
    """Path and content of each table in the journal."""
    return [
        (
            f"{record.folder}/{record.name}",
            json.loads(kept_files.verified(only_journal(), record).read_bytes()),
        )
        for record in recorded(Artifact)
    ]


def tag(name: str) -> Any:
    found = [one.values[name] for one in recorded(Tags) if name in one.values]
    return json.loads(found[-1])


# -- what is kept ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rows",
    [
        ROWS,
        tuple(ROWS),
        {name: [row[name] for row in ROWS] for name in ROWS[0]},
        {name: np.array([row[name] for row in ROWS]) for name in ROWS[0]},
        pandas.DataFrame(ROWS),
    ],
    ids=["rows", "tuple", "columns", "arrays", "frame"],
)
def test_rows_columns_and_frames_are_the_same_table(rows: Any, trainer: Tracked) -> None:
    trainer.log_eval_table(rows)
    ((path, table),) = kept()
    assert path == "eval_tables/eval.json"
    assert table["columns"] == ["id", "correct", "reward", "category"]
    assert table["data"] == [["q1", True, 0.5, "math"], ["q2", False, 1, "code"]]
    assert tag(names.LOGGED_TABLES) == [{"path": path, "type": "table"}]


def test_when_the_call_has_returned_the_table_is_in_the_journal(trainer: Tracked) -> None:
    trainer.log_eval_table(ROWS, name="hard/eval 2")
    (record,) = recorded(Artifact)
    content = kept_files.verified(only_journal(), record).read_bytes()
    assert (record.size, record.folder) == (len(content), "eval_tables/hard")
    assert len(record.sha256) == 64


def test_two_names_are_two_tables_and_one_name_again_replaces_the_first(trainer: Tracked) -> None:
    for name in ("a", "b", "a"):
        trainer.log_eval_table(ROWS, name=name)
    assert [path for path, _ in kept()] == [f"eval_tables/{name}.json" for name in "aba"]
    assert [one["path"] for one in tag(names.LOGGED_TABLES)] == [
        "eval_tables/a.json",
        "eval_tables/b.json",
    ]


def test_a_tag_without_room_names_the_first_tables(trainer: Tracked) -> None:
    for number in range(200):
        trainer.log_eval_table(ROWS, name=f"{'x' * 150}-{number}")
    assert 15 < len(tag(names.LOGGED_TABLES)) < 40


def test_secrets_in_texts_are_redacted(trainer: Tracked) -> None:
    key = f"sk-proj-{'aB3' * 16}"
    trainer.log_eval_table(
        [{"id": 1, "ok": 1, "output": f"the key is {key}", "password": "hunter2"}]
    )
    assert key not in json.dumps(kept())
    assert "hunter2" not in json.dumps(kept())


def test_a_value_that_is_missing_is_null_and_lone_surrogates_stay_text(trainer: Tracked) -> None:
    trainer.log_eval_table([{"id": 1, "ok": True}, {"id": 2, "ok": None, "text": "\ud800"}])
    ((_, table),) = kept()
    assert table["data"] == [[1, True, None], [2, None, "\\ud800"]]


# -- what is refused -------------------------------------------------------------------------------


class Odd:
    def __repr__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([], "there is no column 'id' for the ids; there are none"),
        ({"id": [], "ok": []}, "the table has no rows"),
        (None, "the rows are null: give a list of mappings"),
        ("text", "the rows are 'text'"),
        ([1], "row 1 is 1: each row is a mapping"),
        ([{"idd": 1}], "no column 'id' for the ids; did you mean 'idd'?"),
        ([{"id": 1, "ok": 1}, {"id": 1, "ok": 0}], "rows 1 and 2 have the same 'id', 1"),
        ([{"id": 1, "ok": 1}, {"id": "1", "ok": 0}], "rows 1 and 2 have the same 'id', '1'"),
        ([{"id": 1, "ok": 1}, {"ok": 0}], "row 2 has null in the column 'id': an id is a text"),
        ([{"id": 1.5, "ok": 1}], "row 1 has 1.5 in the column 'id'"),
        ([{"id": "", "ok": 1}], "row 1 has '' in the column 'id'"),
        ([{"id": 1, "ok": float("nan")}], "row 1 has NaN in the column 'ok': a number must be"),
        ([{"id": 1, "ok": np.float32("inf")}], "row 1 has Infinity in the column 'ok'"),
        ([{"id": 1, "ok": [1]}], "row 1 has [1] in the column 'ok': a value is a text, a number"),
        ([{"id": 1, "ok": Decimal(1)}], "row 1 has Decimal('1') in the column 'ok'"),
        ([{"id": 1, "ok": Odd()}], "row 1 has"),
        ([{"id": 1, 2: 1}], "2 is no name of a column"),
        ({"id": [1, 2], "ok": [1]}, "the columns differ in length: {'id': 2, 'ok': 1}"),
        ({"id": "ab", "ok": "cd"}, "the column 'id' is 'ab', not a list"),
        ({"id": 3}, "the column 'id' is 3, not a list"),
    ],
    ids=lambda value: ascii(value)[:30] if not isinstance(value, list) else "rows",
)
def test_a_table_that_cannot_be_used_is_refused_as_a_whole_and_training_goes_on(
    rows: Any, told: str, trainer: Tracked, caplog: pytest.LogCaptureFixture
) -> None:
    trainer.log_eval_table(rows)
    assert not recorded(Artifact)
    (record,) = caplog.records
    assert told in record.getMessage()
    assert told in tag(names.ARTIFACT_PROBLEMS)["eval_tables/eval.json"]


@pytest.mark.parametrize("name", ["", "a.json", "../a", "/a", "a//b", "a?b", 7, "x" * 300])
def test_a_name_that_is_no_name_is_refused(
    name: Any, trainer: Tracked, caplog: pytest.LogCaptureFixture
) -> None:
    trainer.log_eval_table(ROWS, name=name)
    assert not recorded(Artifact)
    assert "cannot be used" in caplog.text


def test_it_raises_where_the_user_asks_for_that() -> None:
    trainer = tracked("sqlite:///nowhere.db", on_failure="raise", **QUIET)
    trainer.mark_validated()
    with pytest.raises(TrackingError, match="the table 'eval' is not logged: row 1 is 5"):
        trainer.log_eval_table([5])


def test_a_table_that_is_too_large_is_refused_and_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    def refusal(rows: Sequence[Any]) -> str:
        with pytest.raises(ValueError, match="more than") as caught:
            table_content(rows, id_column="id", redactor=Redactor())
        return str(caught.value)

    monkeypatch.setattr(eval_tables, "MAX_ROWS", 2)
    assert "has 3 rows, more than 2" in refusal([{"id": at} for at in range(3)])
    monkeypatch.setattr(eval_tables, "MAX_BYTES", 100)
    assert "leave out columns" in refusal([{"id": 1, "text": "x" * 200}])


def test_without_a_run_a_warning_says_so(caplog: pytest.LogCaptureFixture) -> None:
    tracked("sqlite:///nowhere.db", **QUIET).log_eval_table(ROWS)
    assert "table eval was not kept: call mark_validated() first" in caplog.text


# -- in the store ----------------------------------------------------------------------------------


async def test_mlflow_reads_the_table_as_its_own(sqlite_uri: str) -> None:
    trainer = tracked(sqlite_uri)
    trainer.mark_validated()
    trainer.log_eval_table(ROWS)
    await trainer.train()
    run = stored(sqlite_uri, trainer)
    mlflow.set_tracking_uri(sqlite_uri)
    found = mlflow.load_table("eval_tables/eval.json", run_ids=[run.info.run_id])
    assert found.to_dict("records") == ROWS
    assert json.loads(run.data.tags[names.LOGGED_TABLES]) == [
        {"path": "eval_tables/eval.json", "type": "table"}
    ]


def test_a_table_survives_a_kill_and_is_delivered_later(sqlite_uri: str, tmp_path: Path) -> None:
    script = """
    trainer = validated(delivery="offline")
    trainer.log_eval_table([{"id": "q1", "correct": True}])
    os.kill(os.getpid(), signal.SIGKILL)
    """
    process = started(script, tmp_path, environ={"MLFLOW_TRACKING_URI": sqlite_uri})
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    result = CliRunner(env={"MLFLOW_TRACKING_URI": sqlite_uri}).invoke(commands, ["sync"])
    assert result.exit_code == 0, result.output
    client = mlflow.MlflowClient(sqlite_uri)
    (run,) = client.search_runs(["0"])
    path = client.download_artifacts(run.info.run_id, "eval_tables/eval.json", str(tmp_path))
    assert json.loads(Path(path).read_bytes())["data"] == [["q1", True]]
