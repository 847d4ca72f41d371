"""What the verl backend writes for verl and reads from it; none of it needs verl."""

import json
import math
import runpy
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from orbiter.train import RewardSpec, TrainerError, VeRLAlgorithm
from orbiter.train.verl.completions_log import CompletionsLog
from orbiter.train.verl.metrics_log import MetricsLog
from orbiter.train.verl.overrides import overrides_of, require_setting
from orbiter.train.verl.process import last_lines
from orbiter.train.verl.reward_file import reward_source
from orbiter.train.verl.rows import table_of, verl_rows, write_parquet


def reward(data_source: str, solution_str: str, ground_truth: str, extra_info: Any = None) -> float:
    return float(solution_str == ground_truth)


class Rewards:
    @staticmethod
    def exact(data_source: str, solution_str: str, ground_truth: str, extra_info: Any) -> float:
        return float(solution_str == ground_truth)

    def method(self, **_given: Any) -> float:
        return 0.0


# -- metrics ---------------------------------------------------------------------------------------


def lines(*entries: tuple[int, dict[str, Any]]) -> str:
    return "".join(json.dumps({"step": step, "data": data}) + "\n" for step, data in entries)


def test_metrics_are_read_as_they_come_and_validation_apart(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    log = MetricsLog(file)
    assert list(log.read()) == []
    file.write_text(lines((1, {"train/loss": 2.0, "actor/lr": 0.1})) + '{"step": 1, "da')
    assert list(log.read()) == [(1, {"loss": 2.0, "actor/lr": 0.1}, {})]
    assert list(log.read()) == []
    both = {"critic/score/mean": 0.5, "val-core/gsm8k/acc": 0.25, "val/loss": 3.0}
    file.write_text(lines((1, {"train/loss": 2.0, "actor/lr": 0.1}), (2, both)))
    assert list(log.read()) == [
        (2, {"critic/score/mean": 0.5}, {"val-core/gsm8k/acc": 0.25, "loss": 3.0})
    ]


def test_a_file_that_a_resumed_job_starts_anew_is_read_from_its_beginning(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    log = MetricsLog(file)
    file.write_text(lines((1, {"train/loss": 2.0}), (2, {"train/loss": 1.0})))
    assert [entry.step for entry in log.read()] == [1, 2]
    file.write_text(lines(*((step, {"train/loss": 0.5}) for step in range(2, 9))))
    assert [entry.step for entry in log.read()] == [2, 3, 4, 5, 6, 7, 8]
    file.write_text(lines((9, {"train/loss": 0.5})))
    assert [entry.step for entry in log.read()] == [9]


def test_a_file_that_is_shorter_is_a_new_one_even_if_it_begins_alike(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    log = MetricsLog(file)
    entries = [(step, {"train/loss": 0.5}) for step in range(1, 20)]
    file.write_text(lines(*entries))
    assert len(list(log.read())) == 19
    file.write_text(lines(*entries[:12]))
    assert len(list(log.read())) == 12


def test_a_nan_which_verl_writes_as_null_is_a_nan(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text(lines((1, {"train/loss": None})))
    (entry,) = MetricsLog(file).read()
    assert math.isnan(entry.train["loss"])


def test_a_broken_line_costs_no_other(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text(
        '{"step": 1}\nnonsense\n[]\n{"step": Infinity, "data": {}}\n'
        + lines((2, {"train/loss": 1.0}))
    )
    assert [entry.step for entry in MetricsLog(file).read()] == [2]


# -- completions -----------------------------------------------------------------------------------


def said(step: int, *outputs: str) -> str:
    return "".join(
        json.dumps({"input": "1+1", "output": text, "gts": "2", "score": 0.5, "step": step}) + "\n"
        for text in outputs
    )


def test_the_completions_of_a_validation_become_rollouts(tmp_path: Path) -> None:
    log = CompletionsLog(tmp_path)
    (tmp_path / "0.jsonl").write_text(said(0, "two", "2"))
    assert list(log.read(reached=0, ended=False)) == []  # it may still grow
    ((step, rollouts),) = log.read(reached=1, ended=False)
    assert step == 0
    assert [rollout.completion for rollout in rollouts] == ["two", "2"]
    assert rollouts[0].prompt == "1+1"
    assert rollouts[0].rewards == {"score": 0.5}
    assert rollouts[0].extra == {"ground_truth": "2"}
    assert list(log.read(reached=1, ended=True)) == []


def completions(log: CompletionsLog, reached: int, *, ended: bool) -> list[tuple[int, list[str]]]:
    return [
        (step, [str(rollout.completion) for rollout in rollouts])
        for step, rollouts in log.read(reached=reached, ended=ended)
    ]


def test_a_file_is_taken_once_verl_has_left_it_however_slowly_it_was_written(
    tmp_path: Path,
) -> None:
    log = CompletionsLog(tmp_path)
    first, second = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    first.write_text(said(1, "a"))
    for _ in range(3):  # a pause of verl's
        assert completions(log, 1, ended=False) == []
    first.write_text(said(1, "a", "b"))
    second.write_text(said(2, "c"))
    assert completions(log, 1, ended=False) == [(1, ["a", "b"])]
    assert completions(log, 2, ended=False) == []
    assert completions(log, 3, ended=False) == [(2, ["c"])]


def test_a_file_that_still_grows_gives_each_completion_once(tmp_path: Path) -> None:
    log = CompletionsLog(tmp_path)
    file = tmp_path / "1.jsonl"
    file.write_text(said(1, "a") + said(1, "b")[:20])
    assert completions(log, 2, ended=False) == [(1, ["a"])]
    file.write_text(said(1, "a", "b", "c"))
    assert completions(log, 2, ended=False) == [(1, ["b", "c"])]
    assert completions(log, 2, ended=True) == []


def test_the_files_of_an_earlier_job_do_not_complete_those_of_this_one(tmp_path: Path) -> None:
    (tmp_path / "9.jsonl").write_text(said(9, "old"))
    log = CompletionsLog(tmp_path)
    (tmp_path / "1.jsonl").write_text(said(1, "a"))
    assert completions(log, 1, ended=False) == []


def test_a_completion_with_another_end_of_a_line_is_one_line(tmp_path: Path) -> None:
    log = CompletionsLog(tmp_path)
    text = "one\u2028two\u0085three\x0bfour"
    entry = json.dumps({"input": text, "output": text}, ensure_ascii=False) + "\n"
    (tmp_path / "1.jsonl").write_text(entry, encoding="utf-8")
    assert completions(log, 1, ended=True) == [(1, [text])]


def test_lines_that_cannot_be_read_cost_no_other_and_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = CompletionsLog(tmp_path)
    cut = json.dumps({"input": "", "output": "é"}, ensure_ascii=False).encode()[:-3]
    (tmp_path / "1.jsonl").write_bytes(b"nonsense\n" + said(1, "a").encode() + cut)
    assert completions(log, 1, ended=True) == [(1, ["a"])]
    assert "2 of 3 lines of" in caplog.text


def test_a_file_that_is_gone_has_no_completions(tmp_path: Path) -> None:
    (tmp_path / "1.jsonl").symlink_to(tmp_path / "gone")
    assert completions(CompletionsLog(tmp_path), 1, ended=True) == []


@pytest.mark.parametrize("score", ["high", [1.0], {}, None, math.nan, 10**400])
def test_what_is_no_number_is_no_score(score: Any, tmp_path: Path) -> None:
    log = CompletionsLog(tmp_path)
    (tmp_path / "1.jsonl").write_text(json.dumps({"output": "a", "score": score}) + "\n")
    ((_, (rollout,)),) = log.read(reached=1, ended=True)
    assert rollout.rewards == {}


def test_the_completions_of_an_earlier_job_are_not_read_again(tmp_path: Path) -> None:
    (tmp_path / "5.jsonl").write_text(said(5, "old"))
    log = CompletionsLog(tmp_path)
    assert list(log.read(reached=5, ended=True)) == []
    (tmp_path / "5.jsonl").write_text(said(5, "written again") + '{"input": "cut sh')
    ((step, (rollout,)),) = log.read(reached=5, ended=True)
    assert (step, rollout.completion) == (5, "written again")


def test_a_folder_that_verl_never_makes_has_no_completions(tmp_path: Path) -> None:
    assert list(CompletionsLog(tmp_path / "none").read(reached=1, ended=True)) == []


# -- data ------------------------------------------------------------------------------------------


def test_input_and_output_become_a_conversation() -> None:
    rows = [{"input": "1+1", "output": "2", "level": 3}]
    assert verl_rows(VeRLAlgorithm.SFT, "train_data", rows, rewarded=False) == [
        {
            "messages": [
                {"role": "user", "content": "1+1"},
                {"role": "assistant", "content": "2"},
            ]
        }
    ]


def test_messages_are_trained_on_as_they_are() -> None:
    chat = [{"role": "system", "content": "Add."}, {"role": "assistant", "content": "2"}]
    rows = [{"input": "", "messages": chat, "tools": "[]"}, {"input": "", "messages": chat}]
    found = verl_rows(VeRLAlgorithm.SFT, "train_data", rows, rewarded=False)
    assert found == [{"messages": chat, "tools": "[]"}, {"messages": chat, "tools": None}]


@pytest.mark.parametrize("algorithm", [VeRLAlgorithm.PPO, VeRLAlgorithm.GRPO])
def test_input_becomes_a_prompt_and_output_its_ground_truth(algorithm: VeRLAlgorithm) -> None:
    rows = [{"input": "1+1", "output": "2", "level": 3}]
    assert verl_rows(algorithm, "train_data", rows, rewarded=True) == [
        {
            "data_source": "orbiter",
            "prompt": [{"role": "user", "content": "1+1"}],
            "reward_model": {"style": "rule", "ground_truth": "2"},
            "extra_info": {"index": 0, "level": 3},
        }
    ]


@pytest.mark.parametrize(
    ("algorithm", "row", "message"),
    [
        (VeRLAlgorithm.SFT, {"input": "1+1"}, "no answer to learn"),
        (VeRLAlgorithm.SFT, {"input": 5, "output": "2"}, "expected a text, or messages"),
        (VeRLAlgorithm.SFT, {"input": "", "messages": [{"role": "user"}]}, "'content'"),
        (VeRLAlgorithm.GRPO, {"input": "1+1", "output": "2"}, "'data_source'"),
    ],
)
def test_a_row_that_verl_cannot_use_is_named(
    algorithm: VeRLAlgorithm, row: dict[str, Any], message: str
) -> None:
    good = {"input": "0", "output": "0", "data_source": "openai/gsm8k"}
    with pytest.raises(TrainerError, match=rf"train_data\[1\].*{message}"):
        verl_rows(algorithm, "train_data", [good, row], rewarded=False)


def test_rows_come_back_from_the_file(tmp_path: Path) -> None:
    rows = [{"input": "a", "extra": {"index": 0}}, {"input": "b", "extra": {"other": "x"}}]
    write_parquet(tmp_path / "train.parquet", table_of("train_data", rows))
    assert pyarrow.parquet.read_table(tmp_path / "train.parquet").to_pylist() == [
        {"input": "a", "extra": {"index": 0, "other": None}},
        {"input": "b", "extra": {"index": None, "other": "x"}},
    ]


@pytest.mark.parametrize("values", [[1, "x"], [{}], [2**70], [{"a": {}}], ["\ud800"], [object()]])
def test_a_column_that_parquet_cannot_hold_is_named(values: list[Any]) -> None:
    rows = [{"good": 1, "bad": value} for value in values]
    with pytest.raises(TrainerError, match="train_data cannot be written as parquet: column 'bad'"):
        table_of("train_data", rows)


# -- rewards ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec",
    [
        RewardSpec(callable=reward),
        RewardSpec(callable=Rewards.exact),
        RewardSpec(module_path=__name__, func_name="reward"),
    ],
)
def test_the_reward_file_has_the_function(spec: RewardSpec, tmp_path: Path) -> None:
    file = tmp_path / "reward.py"
    file.write_text(reward_source(spec))
    assert runpy.run_path(str(file))["reward"] is spec.resolve()


def test_the_reward_of_a_script_is_loaded_from_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "my script.py"
    script.write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "@dataclass\n"
        "class Weights:\n"
        "    exact: float = 0.5\n"
        "def reward(**given):\n"
        "    return Weights().exact\n"
    )
    main = runpy.run_path(str(script))
    module = sys.modules["__main__"]
    monkeypatch.setattr(module, "__file__", str(script), raising=False)
    monkeypatch.setattr(module, "__spec__", None)
    monkeypatch.setattr(module, "reward", main["reward"], raising=False)
    main["reward"].__module__ = "__main__"
    file = tmp_path / "reward.py"
    file.write_text(reward_source(RewardSpec(callable=main["reward"])))
    assert runpy.run_path(str(file))["reward"](solution_str="") == 0.5
    monkeypatch.delattr(module, "__file__")
    with pytest.raises(TrainerError, match="notebook or prompt"):
        reward_source(RewardSpec(callable=main["reward"]))


def test_a_reward_that_cannot_be_imported_is_refused_with_the_way_out() -> None:
    def local(**_given: Any) -> float:
        return 0.0

    for function in (local, lambda **_given: 0.0, Rewards().method):
        with pytest.raises(TrainerError, match="at the top of a module, or give RewardSpec"):
            reward_source(RewardSpec(callable=function))


def test_a_reward_that_takes_other_arguments_is_refused() -> None:
    with pytest.raises(TrainerError, match="solution_str"):
        reward_source(RewardSpec(callable=said))


# -- overrides -------------------------------------------------------------------------------------

KNOWN = {
    "trainer": {"test_freq": -1, "total_epochs": 1, "steps": None},
    "actor": {"optim": {"lr": 0.1, "lr_warmup_steps": 0}},
    "model": {"override_config": {}},
}


def test_dotted_and_nested_names_are_the_same() -> None:
    nested = {"verl": {"trainer": {"test_freq": 5}, "model": {"override_config": {}}}}
    dotted = {"verl": {"trainer.test_freq": 5, "model.override_config": {}}}
    assert overrides_of(nested) == overrides_of(dotted) == dotted["verl"]
    assert overrides_of({}) == {}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (5, "expected a mapping"),
        ({"trainer.test_freq": 5, "trainer": {"test_freq": 6}}, "twice"),
    ],
)
def test_overrides_that_are_unclear_are_refused(given: Any, message: str) -> None:
    with pytest.raises(TrainerError, match=message):
        overrides_of({"verl": given})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("trainer.test_frequency", "did you mean 'trainer.test_freq'"),
        ("lr", "did you mean 'actor.optim.lr'"),
        ("actor.optim.learning.rate", "did you mean"),
        ("trainer.test_freq.every", "'trainer.test_freq' is a single setting"),
        ("trainer", "a group of settings.*'test_freq', 'total_epochs'"),
    ],
)
def test_an_unknown_setting_is_refused_with_the_nearest(name: str, message: str) -> None:
    with pytest.raises(TrainerError, match=message):
        require_setting(KNOWN, name)


@pytest.mark.parametrize(
    "name", ["actor.optim.lr", "trainer.steps", "trainer.steps.x", "model.override_config.a.b"]
)
def test_settings_that_verl_has_or_leaves_open_are_accepted(name: str) -> None:
    require_setting(KNOWN, name)


# -- the log ---------------------------------------------------------------------------------------


def test_the_end_of_a_log_has_no_report_of_torchrun_and_no_progress_bars(tmp_path: Path) -> None:
    log = tmp_path / "verl.log"
    log.write_text(
        "".join(f"line {i}\n" for i in range(99))
        + "Epoch 1:  0%\rEpoch 1: 10%\rEpoch 1: 20%\n\n"
        + "\x1b[1m\x1b[32mValueError\x1b[39m\x1b[22m: "
        + "sequence_length=9 is larger than self.max_length=4\n"
        + "E1128 api.py:1002] failed (exitcode: 1) local_rank: 0 (pid: 7)\nTraceback\n"
    )
    found = last_lines(log).splitlines()
    assert len(found) == 30
    assert found[-2:] == [
        "Epoch 1: 20%",
        "ValueError: sequence_length=9 is larger than self.max_length=4",
    ]
