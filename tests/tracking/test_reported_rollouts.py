"""`report_rollouts` of a tracked trainer: what its tables hold, and what becomes a trace."""

import json
import logging
from typing import Any

import numpy as np
import pytest

from orbiter.train import Rollout
from orbiter_mlflow import names
from orbiter_mlflow.delivery import kept_files
from orbiter_mlflow.delivery.records import Rollouts, Tags
from orbiter_mlflow.tracking import rollout_table
from orbiter_mlflow.tracking.rollouts import spread
from orbiter_mlflow.tracking.trace_budget import AT_ONCE, TraceBudget
from trainers import Tracked, journals, only_journal, recorded, tracked

QUIET: dict[str, Any] = {
    "delivery": "offline",
    "skip_provenance": ["git", "command", "machine", "packages", "seeds"],
}
SECRET = "hf_" + "AbCd0123" * 4


def validated(**settings: Any) -> Tracked:
    """A trainer whose journal stays where it is."""
    trainer = tracked("sqlite:///nowhere.db", **QUIET, **settings)
    trainer.mark_validated()
    return trainer


@pytest.fixture
def trainer() -> Tracked:
    return validated()


def tables() -> dict[str, list[dict[str, Any]]]:
    """The rows of each table in the journal, by its path."""
    found = {}
    for record in recorded(Rollouts):
        table = json.loads(kept_files.verified(only_journal(), record.table).read_bytes())
        rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
        found[f"{record.folder}/{record.name}"] = rows
    return found


def row_of(rollout: Rollout | dict[str, Any], trainer: Tracked) -> dict[str, Any]:
    trainer.report_rollouts([rollout], step=1)
    ((row,),) = tables().values()
    return row


# -- tables ----------------------------------------------------------------------------------------


def test_a_rollout_is_a_row(trainer: Tracked) -> None:
    rollout = Rollout(
        "2 + 2?", "4", rewards={"right": 1, "short": 0.5}, tokens=3, extra={"answer": 4}
    )
    assert row_of(rollout, trainer) == {
        "rollout": 1,
        "prompt": "2 + 2?",
        "completion": "4",
        "reward/right": 1.0,
        "reward/short": 0.5,
        "tokens": 3,
        "answer": 4,
    }


def test_chat_messages_are_kept_whole_and_shown_as_text(trainer: Tracked) -> None:
    prompt = [{"role": "system", "content": "Count."}, {"role": "user", "content": "2 + 2?"}]
    call = {"id": "c", "function": {"name": "sum", "arguments": {"of": [2, 2]}}}
    completion = [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "4"},
        {"role": "assistant", "content": [{"type": "text", "text": "It is 4."}, {"type": "image"}]},
    ]
    row = row_of({"messages": prompt, "completion": completion}, trainer)
    assert json.loads(row["messages"]) == {"prompt": prompt, "completion": completion}
    assert row["prompt"] == "system: Count.\n\nuser: 2 + 2?"
    assert row["completion"] == (
        'assistant: [calls sum({"of": [2, 2]})]\n\ntool: 4\n\nassistant: It is 4.\n(no text)'
    )


def test_steps_phases_and_repeated_reports_have_tables_of_their_own(trainer: Tracked) -> None:
    for step, phase in ((300, "train"), (300, "eval"), (300, "train"), (np.int64(310), "train")):
        trainer.report_rollouts([{"prompt": "a"}], step=step, phase=phase)  # type: ignore[arg-type]
    assert [*tables()] == [
        "rollouts/train/step-300.json",
        "rollouts/eval/step-300.json",
        "rollouts/train/step-300.2.json",
        "rollouts/train/step-310.json",
    ]
    shown = [one.values.get(names.LOGGED_TABLES) for one in recorded(Tags)][-1]
    assert {one["path"] for one in json.loads(shown)} == {*tables()}


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (np.float32(0.5), 0.5),
        (True, 1.0),
        (float("nan"), None),
        (float("inf"), None),
        (None, None),
        ("high", None),
    ],
)
def test_a_reward_is_a_finite_number_or_missing(given: Any, kept: Any, trainer: Tracked) -> None:
    row = row_of({"prompt": "a", "rewards": {"r": given, "s": 2}}, trainer)
    assert (row["reward/r"], row["reward/s"]) == (kept, 2.0)


def test_a_reward_may_have_any_name(trainer: Tracked) -> None:
    row = row_of({"rewards": {"": 1, "n" * 300: 2, 3: 3}}, trainer)
    rewards = {name: value for name, value in row.items() if names.is_reward(name)}
    assert rewards == {"reward/reward": 1.0, f"reward/{'n' * 250}": 2.0, "reward/3": 3.0}


class Hostile:
    """A value that cannot be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


def test_values_of_any_type_are_kept_as_json_or_text(trainer: Tracked) -> None:
    cyclic: list[Any] = []
    cyclic.append(cyclic)
    extra = {
        "list": [1, {"a": np.int64(2)}],
        "huge": 2**70,
        "nan": float("nan"),
        "hostile": Hostile(),
        "cyclic": cyclic,
        "bad": "\ud800\x00",
        "prompt": "of the extra",
        "n": np.float64(0.25),
    }
    row = row_of({"prompt": 5, "completion": None, "extra": extra}, trainer)
    assert row["prompt"] == "5"
    assert row["list"] == '[1, {"a": 2}]'
    assert row["n"] == 0.25
    assert row["bad"] == "\\ud800\\x00"
    assert row["extra/prompt"] == "of the extra"
    assert "unreadable" in row["hostile"]
    assert row["cyclic"]


def test_secrets_reach_no_table(trainer: Tracked) -> None:
    trainer.report_rollouts(
        [
            Rollout(
                f"Use {SECRET}",
                [{"role": "assistant", "tool_calls": [{"arguments": {"api_key": "pw1"}}]}],
                rewards={SECRET: 1},
                tool_calls=[{"name": "login", "arguments": {"password": "pw2"}}],
                extra={"db_password": "pw3", "note": "password='pw4'", SECRET: 1},
            )
        ]
        * 2,
        step=1,
    )
    ((record),) = recorded(Rollouts)
    content = kept_files.verified(only_journal(), record.table).read_bytes().decode()
    written = content + only_journal().read_text()
    assert not [secret for secret in (SECRET, "pw1", "pw2", "pw3", "pw4") if secret in written]
    assert content.count("[redacted]") >= 7


@pytest.mark.parametrize(
    "extra",
    [
        {"credentials": {"pin": "hunter2"}},
        {"password": {"old": "hunter2"}},
        {"a": [{"secrets": [["x", {"y": "hunter2"}]]}]},
        {"db_password": 12345678},
        {"password": 12345678},
        {"password": np.float64(12345678)},
        {"argv": ["login", "--password", "hunter2"]},
        {"argv": ("--pin-password", 12345678)},
        {"variable": {"name": "DB_PASSWORD", "value": "hunter2"}},
        {"name": "DB_PASSWORD", "value": 12345678},
        {"pair": ["api_key", "hunter2"]},
        {"pairs": [("api_key", "hunter2"), ("lr", "0.1")]},
        {"pair": ["api_key", 12345678]},
        {SECRET: "hunter2"},
    ],
    ids=str,
)
def test_names_paths_pairs_and_options_tell_secrets(extra: Any, trainer: Tracked) -> None:
    call = {"name": "f", "arguments": extra}
    trainer.report_rollouts(
        [
            Rollout(
                messages=[{"role": "user", "content": "?", "meta": extra}],
                completion=[{"role": "assistant", "content": "!", "tool_calls": [call]}],
                tool_calls=[call],
                extra=extra,
            )
        ],
        step=1,
    )
    (record,) = recorded(Rollouts)
    content = kept_files.verified(only_journal(), record.table).read_text()
    assert "hunter2" not in content
    assert "12345678" not in content
    assert content.count("[redacted]") >= 4


def test_what_is_no_secret_stays_under_a_secret_name(trainer: Tracked) -> None:
    extra: dict[str, Any] = {
        "password": None,
        "secret": True,
        "api_key": "",
        "credentials": {},
        "token": "<|eos|>",
    }
    row = row_of({"prompt": "a", "extra": extra, "argv": ["--verbose", "x"]}, trainer)
    assert {name: row[name] for name in extra} == extra | {"credentials": "{}"}
    assert row["argv"] == '["--verbose", "x"]'


# -- bad rollouts ----------------------------------------------------------------------------------


class NoLength:
    """A value that raises when its length is asked for."""

    def __len__(self) -> int:
        raise RuntimeError(f"no length, password={SECRET}")


def test_a_bad_rollout_is_left_out_alone(
    trainer: Tracked, caplog: pytest.LogCaptureFixture
) -> None:
    bad: Any = NoLength()
    trainer.report_rollouts([Rollout("a"), Rollout("b", tool_calls=bad), Rollout("c")], step=1)
    (rows,) = tables().values()
    assert [(row["rollout"], row["prompt"]) for row in rows] == [(1, "a"), (3, "c")]
    assert "rollout 2 of a report: no length" in caplog.text
    assert SECRET not in caplog.text
    assert "rollouts_per_step" not in caplog.text
    assert left_out() == {"rollouts": 1, "texts cut": 0, "traces": 0}


def test_lists_of_parquet_rows_are_lists(trainer: Tracked) -> None:
    messages = np.array([{"role": "user", "content": "2 + 2?"}], dtype=object)
    none = np.array([], dtype=object)
    call = np.array([{"name": "sum", "arguments": {"of": np.array(["2", "2"])}}], dtype=object)
    trainer.report_rollouts(
        [
            {"messages": messages, "completion": "4", "tool_calls": call},
            {"prompt": messages, "completion": "4", "tool_calls": none},
            {"prompt": "2 + 2?", "messages": none, "completion": messages},
        ],
        step=1,
    )
    (rows,) = tables().values()
    assert [row["prompt"] for row in rows] == ["2 + 2?"] * 3
    assert rows[2]["completion"] == "2 + 2?"
    assert json.loads(rows[0]["messages"])["prompt"] == [{"role": "user", "content": "2 + 2?"}]
    assert json.loads(rows[0]["tool_calls"]) == [{"name": "sum", "arguments": {"of": ["2", "2"]}}]
    assert rows[1]["tool_calls"] is None


@pytest.mark.parametrize(
    ("given", "kept"), [({"name": "f"}, '[{"name": "f"}]'), (5, "[5]"), ("f()", '["f()"]')]
)
def test_what_is_no_list_of_calls_is_one_call(given: Any, kept: str, trainer: Tracked) -> None:
    assert row_of({"prompt": "a", "tool_calls": given}, trainer)["tool_calls"] == kept


# -- bounds ----------------------------------------------------------------------------------------


def left_out() -> dict[str, int]:
    found = [one.values.get(names.ROLLOUTS_LEFT_OUT) for one in recorded(Tags)]
    counts: dict[str, int] = json.loads([one for one in found if one][-1])
    return counts


def test_more_rollouts_than_the_setting_allows_are_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    trainer = validated(rollouts_per_step=4)
    trainer.report_rollouts([{"prompt": str(n)} for n in range(10)], step=1)
    (rows,) = tables().values()
    assert [row["rollout"] for row in rows] == [1, 3, 6, 8]
    assert [row["prompt"] for row in rows] == ["0", "2", "5", "7"]
    assert "rollouts_per_step" in caplog.text
    assert left_out() == {"rollouts": 6, "texts cut": 0, "traces": 0}


def test_a_long_text_is_cut_in_its_middle(
    trainer: Tracked, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout_table, "MAX_TEXT", 10)
    long = "a" * 20 + "z" * 20
    trainer.report_rollouts([{"prompt": long, "completion": n} for n in "12"], step=1)
    (rows,) = tables().values()
    assert [row["prompt"] for row in rows] == ["aaaaa\n... (30 characters left out) ...\nzzzzz"] * 2
    assert "are cut" in caplog.text
    assert left_out() == {"rollouts": 0, "texts cut": 2, "traces": 0}


def test_rollouts_beyond_the_size_of_a_table_are_counted(
    trainer: Tracked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout_table, "MAX_CHARACTERS", 100)
    trainer.report_rollouts([{"completion": f"{n}" * 60} for n in range(10, 20)], step=1)
    (rows,) = tables().values()
    assert len(rows) == 1
    assert left_out()["rollouts"] == 9


def test_zero_rollouts_a_step_keeps_none(caplog: pytest.LogCaptureFixture) -> None:
    validated(rollouts_per_step=0).report_rollouts([{"prompt": "a"}], step=1)
    assert tables() == {}
    assert not caplog.records


# -- traces ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("totals", "count", "rows"),
    [
        ([3.0, 1.0, 2.0, 5.0, 4.0], 3, [0, 1, 3]),
        ([3.0, 1.0], 8, [0, 1]),
        ([3.0, 1.0], 1, [1]),
        ([3.0, 1.0], 0, []),
        ([0.0] * 9, 3, [0, 4, 8]),
        ([-1.0, None, -2.0, None, -3.0], 2, [0, 4]),
        ([-1.0, None, -2.0, None, -3.0], 4, [0, 1, 2, 4]),
        ([None, None], 1, [0]),
    ],
)
def test_the_worst_the_best_and_some_between_become_traces(
    totals: list[float | None], count: int, rows: list[int]
) -> None:
    assert spread(totals, count) == rows


def test_the_setting_says_how_many_become_traces() -> None:
    trainer = validated(traces_per_step=2)
    rollouts = [{"prompt": "a", "rewards": {"r": n % 4, "s": n}} for n in range(8)]
    trainer.report_rollouts(rollouts, step=1)
    (record,) = recorded(Rollouts)
    assert record.traces == [0, 7]


def test_short_steps_have_fewer_traces_and_whole_tables(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    trainer = validated(traces_per_minute=0.01)
    rollouts = [{"prompt": "a", "rewards": {"r": n}} for n in range(30)]
    for step in range(10):
        trainer.report_rollouts(rollouts, step=step)
    assert [len(record.traces) for record in recorded(Rollouts)] == [8] * 8 + [0] * 2
    assert [len(rows) for rows in tables().values()] == [30] * 10
    assert caplog.text.count("traces_per_minute") == 1
    trainer._tracked.close()
    assert left_out() == {"rollouts": 0, "texts cut": 0, "traces": 16}


def test_a_run_has_some_traces_at_once_and_then_so_many_a_minute() -> None:
    seconds = 0.0
    budget = TraceBudget(60, 8, lambda: seconds)
    assert sum(budget.take(8) for _ in range(20)) == AT_ONCE
    granted = []
    for _ in range(20):
        seconds += 2.5
        granted.append(budget.take(8))
    assert granted == [2, 3] * 10
    seconds += 3600
    assert sum(budget.take(8) for _ in range(20)) == AT_ONCE


def test_a_report_may_have_as_many_traces_as_the_setting_says() -> None:
    budget = TraceBudget(60, 1000, lambda: 0.0)
    assert [budget.take(1000), budget.take(1000)] == [1000, 0]


# -- where nothing is kept -------------------------------------------------------------------------


def test_rollouts_before_there_is_a_run_are_not_kept(caplog: pytest.LogCaptureFixture) -> None:
    tracked("sqlite:///nowhere.db", **QUIET).report_rollouts([{"prompt": "a"}], step=1)
    assert "call mark_validated() first" in caplog.text


def test_a_trainer_that_is_not_tracked_keeps_none(caplog: pytest.LogCaptureFixture) -> None:
    validated(enabled=False).report_rollouts([{"prompt": "a"}], step=1)
    assert journals() == []
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]


def test_a_disk_that_takes_no_table_costs_the_training_nothing(
    trainer: Tracked, caplog: pytest.LogCaptureFixture
) -> None:
    only_journal().with_suffix(".files").write_bytes(b"in the way")
    trainer.report_rollouts([{"prompt": "a"}], step=1)
    assert recorded(Rollouts) == []
    assert "are not kept" in caplog.text
    assert left_out()["rollouts"] == 1
