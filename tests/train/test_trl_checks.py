"""The checks of the TRL backend that need no TRL: settings, agents, rows, reward functions."""

import functools
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import orbiter.train
from orbiter.train import TrainConfig, TrainerError, TRLConfig, TRLTrainer
from orbiter.train.trl.agent import agent_of
from orbiter.train.trl.config import checked
from orbiter.train.trl.rewards import Reward, rewards_of, try_reward
from orbiter.train.trl.rows import first_row, require_rows

# -- settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"method": "ppo"}, "method='ppo': expected one of sft, dpo, grpo, reward"),
        ({"batch_size": 0}, "batch_size=0: expected an int of at least 1"),
        ({"batch_size": True}, "batch_size=True"),
        ({"learning_rate": float("nan")}, "learning_rate=nan: expected a finite number above 0"),
        ({"temperature": 10**400}, "expected a finite number above 0"),
        ({"max_steps": 0}, "max_steps=0: expected an int of at least 1, or -1"),
        ({"max_length": 0}, "max_length=0"),
        ({"args": {1: 2}}, "args={1: 2}: expected a dict with names"),
        ({"beta": 0.1}, "beta=0.1: this is a setting of dpo and grpo, and the method is sft"),
        ({"method": "dpo", "num_generations": 4}, "this is a setting of grpo"),
        ({"method": "grpo", "num_generations": 1}, "num_generations=1: expected an int of at le"),
        ({"save_steps": 5}, "save_steps=5: expected an output_dir"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_name(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(TrainerError) as caught:
        TRLTrainer(TRLConfig(**settings))
    assert words in str(caught.value)


def test_another_config_is_refused() -> None:
    with pytest.raises(TrainerError, match="expected a TRLConfig"):
        checked(TrainConfig())


def test_settings_that_a_method_has_are_accepted() -> None:
    for config in (
        TRLConfig(method="dpo", beta=0.2, max_length=None),
        TRLConfig(method="grpo", beta=0.0, temperature=0.7, num_generations=4),
        TRLConfig(method="reward", save_steps=5, output_dir="out", lora={"r": 8}),
    ):
        assert TRLTrainer(config).config == config


@pytest.mark.skipif(importlib.util.find_spec("trl") is not None, reason="TRL is installed")
@pytest.mark.parametrize("check", ["check_agent", "check_dataset", "check_reward", "check_config"])
def test_without_trl_each_check_says_what_to_install(check: str) -> None:
    with pytest.raises(TrainerError, match=r"TRL is required: pip install 'orbiter\[trl\]'"):
        getattr(TRLTrainer(), check)(None)


def test_the_backend_is_imported_on_first_use() -> None:
    heavy = "{'mlflow', 'numpy', 'torch', 'transformers', 'trl'}"
    code = (
        "import sys, orbiter.train; assert 'orbiter.train.trl' not in sys.modules; "
        f"orbiter.train.TRLTrainer(orbiter.train.TRLConfig()); print(*{heavy} & set(sys.modules))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stdout.split() == []
    assert {"TRLConfig", "TRLTrainer"} <= set(orbiter.train.__all__)
    with pytest.raises(AttributeError, match="no attribute 'TRLTrainr'"):
        _ = orbiter.train.TRLTrainr


# -- agents ----------------------------------------------------------------------------------------


class Model:
    """As much of a model as the checks look at."""

    def __init__(self, path: str = "") -> None:
        self.config = SimpleNamespace(_name_or_path=path)

    def forward(self) -> None: ...


class Tokenizer:
    def decode(self) -> None: ...


def test_an_agent_is_a_name_a_path_a_pair_or_an_object_with_both() -> None:
    model, tokenizer = Model("base/model"), Tokenizer()
    both = SimpleNamespace(model=model, tokenizer=tokenizer)
    assert agent_of("org/model").name == "org/model"
    assert agent_of(Path("out/model")).model == str(Path("out/model"))
    for given in ((model, tokenizer), both):
        agent = agent_of(given)
        assert (agent.model, agent.tokenizer, agent.name) == (model, tokenizer, "base/model")
    assert agent_of((Model(), tokenizer)).name == "Model"


@pytest.mark.parametrize(
    ("agent", "words"),
    [
        (None, "expected the name or path of a model, a pair (model, tokenizer)"),
        ("", "expected the name or path"),
        (Model(), "expected the name or path"),
        ((Model(), None), "the tokenizer of the agent is None"),
        ((Model(), Tokenizer(), 3), "expected the name or path"),
    ],
)
def test_another_agent_is_refused(agent: Any, words: str) -> None:
    with pytest.raises(TrainerError) as caught:
        agent_of(agent)
    assert words in str(caught.value)


# -- rows ------------------------------------------------------------------------------------------

CHAT = [{"role": "user", "content": "2+3="}]
GOOD: list[tuple[Any, dict[str, Any]]] = [
    ("sft", {"text": "2+3=5"}),
    ("sft", {"prompt": "2+3=", "completion": "5"}),
    ("sft", {"messages": CHAT, "tools": None}),
    ("dpo", {"chosen": "5", "rejected": "6"}),
    ("dpo", {"prompt": CHAT, "chosen": CHAT, "rejected": CHAT}),
    ("reward", {"chosen": CHAT, "rejected": CHAT}),
    ("grpo", {"prompt": "2+3=", "answer": 5}),
    ("grpo", {"prompt": CHAT}),
]


@pytest.mark.parametrize(("method", "row"), GOOD)
def test_the_formats_of_trl_are_accepted(method: Any, row: dict[str, Any]) -> None:
    require_rows("train_data", [row, dict(row)], method)
    assert first_row([row]) == row


@pytest.mark.parametrize(
    ("method", "rows", "words"),
    [
        ("sft", 5, "train_data=5 (int): expected a list of dicts or a datasets.Dataset"),
        ("sft", [], "train_data is empty"),
        ("sft", [{"text": "a"}, "b"], "train_data row 1 is 'b' (str): expected a dict"),
        ("sft", [{"prompt": "a"}], "row 0 has 'prompt': sft needs 'messages', or 'prompt' and"),
        ("dpo", [{"chosen": "a"}], "row 0 has 'chosen': dpo needs 'chosen' and 'rejected'"),
        ("grpo", [{"prompt": 7}], "row 0: prompt=7: expected text, or a list of messages"),
        ("grpo", [{"prompt": []}], "row 0: prompt=[]: expected text, or a list of messages"),
        ("sft", [{"messages": "a"}], "row 0: messages='a': expected a list of messages"),
        ("grpo", [{"prompt": "a"}, {"prompt": CHAT}], "row 1: prompt is messages, and in row 0 te"),
        ("grpo", [{"prompt": "a"}, {"prompt": "a", "b": 1}], "row 1 has other columns than row 0"),
    ],
)
def test_the_first_bad_row_is_named(method: Any, rows: Any, words: str) -> None:
    with pytest.raises(TrainerError) as caught:
        require_rows("train_data", rows, method)
    assert words in str(caught.value)


def test_plain_text_may_have_a_column_of_another_name() -> None:
    require_rows("train_data", [{"body": "a"}], "sft", "body")
    with pytest.raises(TrainerError, match="or 'body'"):
        require_rows("train_data", [{"text": "a"}], "sft", "body")


class Stream:
    """A dataset that can only be read once."""

    column_names = None


def test_of_a_dataset_the_columns_are_looked_at() -> None:
    class Dataset:
        def __init__(self, rows: list[dict[str, Any]], columns: Any) -> None:
            self.rows, self.column_names = rows, columns

        def __len__(self) -> int:
            return len(self.rows)

        def __getitem__(self, at: int) -> dict[str, Any]:
            return self.rows[at]

    require_rows("d", Dataset([{"prompt": "a"}], ["prompt"]), "grpo")
    require_rows("d", Stream(), "grpo")
    for data, words in (
        (Dataset([{"prompt": 3}], ["prompt"]), "d row 0: prompt=3"),
        (Dataset([{"text": "a"}], ["text"]), "d has 'text': grpo needs 'prompt'"),
        (Dataset([], ["prompt"]), "d is empty"),
        (Dataset([], {"train": [], "test": []}), "with the splits train, test: give one"),
    ):
        with pytest.raises(TrainerError, match=words):
            require_rows("d", data, "grpo")


# -- rewards ---------------------------------------------------------------------------------------


def right(completion: str, row: dict[str, Any]) -> float:
    return float(completion == row["answer"])


def length(completions: list[Any], **_: Any) -> list[float]:
    return [float(len(one)) for one in completions]


async def judged(prompts: list[Any], completions: list[Any], **_: Any) -> list[float]:
    return [0.5 for _ in prompts]


ROW = {"prompt": "2+3=", "answer": "5"}


def only(reward_fn: Any) -> Reward:
    (reward,) = rewards_of(reward_fn)
    return reward


def test_a_function_of_completion_and_row_is_called_for_each_completion() -> None:
    reward = only(right)
    assert reward.name == "right"
    given = {"answer": ["5", "4"], "completion_ids": [[1], [2]], "trainer_state": None}
    assert reward.given(prompts=["2+3=", "1+3="], completions=["5", "5"], **given) == [1.0, 0.0]
    chat = [[{"role": "assistant", "content": "5"}]]
    assert reward.given(prompts=[CHAT], completions=chat, answer=["5"]) == [1.0]


def test_a_function_with_the_signature_of_trl_stays_as_it_is() -> None:
    assert only(length).given is length
    assert only(judged).given is judged


def test_rewards_are_tried_on_a_row() -> None:
    for reward in rewards_of([right, length, judged]):
        try_reward(reward, ROW)
        try_reward(reward, {**ROW, "prompt": CHAT})


async def test_an_async_reward_is_tried_where_an_event_loop_runs() -> None:
    try_reward(only(judged), ROW)


def fails(completion: str, row: dict[str, Any]) -> float:
    return float(row["anwser"])


def says_yes(completion: str, row: dict[str, Any]) -> Any:
    return "yes"


def too_many(completions: list[Any], **_: Any) -> list[float]:
    return [0.0, 1.0]


def without_columns(completions: list[Any]) -> list[float]:
    return [0.0]


def infinite(completions: list[Any], **_: Any) -> list[float]:
    return [float("inf")]


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (fails, "reward function 'fails' failed on a sample of one completion"),
        (fails, "KeyError: 'anwser'"),
        (says_yes, "'says_yes' returned ['yes'] for a sample of one completion"),
        (too_many, "'too_many' returned [0.0, 1.0]"),
        (without_columns, "unexpected keyword argument"),
        (infinite, "expected one finite number"),
    ],
)
def test_a_reward_that_fails_on_a_sample_is_refused(function: Any, words: str) -> None:
    with pytest.raises(TrainerError) as caught:
        try_reward(only(function), ROW)
    assert words in str(caught.value)


async def simple_but_async(completion: str, row: dict[str, Any]) -> float:
    return 0.0


@pytest.mark.parametrize(
    ("reward_fn", "words"),
    [
        (5, "reward_fn=5 (int): expected a function (completion, row) -> float"),
        ([], "reward_fn is an empty list"),
        ([right, right], "two reward functions have the name 'right'"),
        (lambda: 0.0, "takes (): expected (completion, row)"),
        (lambda completion: 0.0, "takes (completion): expected (completion, row)"),
        (lambda a, b, c: 0.0, "takes (a, b, c): expected (completion, row)"),
        (simple_but_async, "'simple_but_async' is async: expected TRL's signature"),
    ],
)
def test_what_is_no_reward_is_refused(reward_fn: Any, words: str) -> None:
    with pytest.raises(TrainerError) as caught:
        rewards_of(reward_fn)
    assert words in str(caught.value)


def test_a_reward_model_is_known_by_its_name() -> None:
    assert only("org/judge") == Reward("judge", "model org/judge", "org/judge")


# -- what was rewarded -----------------------------------------------------------------------------


def weighted(weight: float) -> Any:
    def reward(completion: str, row: dict[str, Any]) -> float:
        return weight * len(completion)

    return reward


class Judge:
    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.cache = object()

    def __call__(self, completion: str, row: dict[str, Any]) -> float:
        return float(len(completion) > self.threshold)


def test_the_digest_is_that_of_the_source_and_of_what_is_bound() -> None:
    def digest(function: Any) -> str:
        return only(function).digest

    assert digest(weighted(0.5)) == digest(weighted(0.5)) != digest(weighted(1.0))
    assert digest(Judge(3)) == digest(Judge(3)) != digest(Judge(4))
    assert digest(functools.partial(right)) != digest(functools.partial(length))
    assert len({digest(right), digest(length), digest(judged)}) == 3
    assert all(len(digest(one)) == 16 for one in (right, Judge(3)))


@pytest.mark.parametrize("in_file", [True, False])
def test_the_digest_is_the_same_in_another_process(in_file: bool, tmp_path: Path) -> None:
    source = (
        "def reward(completion, row):\n    return float(completion == '5')\n"
        "from orbiter.train.trl.rewards import rewards_of\n"
        "print(rewards_of(reward)[0].digest)\n"
    )
    file = tmp_path / "program.py"
    file.write_text(source)
    command = [str(file)] if in_file else ["-c", source]
    printed = {
        subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, check=True, timeout=60
        ).stdout
        for _ in range(2)
    }
    assert len(printed) == 1
    assert len(printed.pop().strip()) == 16
