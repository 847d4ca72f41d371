"""`make test-verl`: the verl backend with verl itself, in an environment of its own.

Supervised fine-tuning really runs here, on the CPU. PPO and GRPO need a GPU with vLLM: verl itself
reads their config, data and reward, and what it writes is read. `make test` does not collect this
file, because of its name.
"""

import asyncio
import json
import math
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import hydra
import pytest
import yaml
from hydra import initialize_config_dir, version
from mlflow import MlflowClient
from mlflow.entities import Run
from omegaconf import OmegaConf

from logged import params_and_tags
from orbiter.train import (
    TrainerError,
    TrainerState,
    TrainMetrics,
    VeRLAlgorithm,
    VeRLConfig,
    VeRLTrainer,
)
from orbiter.train.verl import composition
from orbiter.train.verl.composition import compose
from orbiter.train.verl.launch import INSIDE
from orbiter.train.verl.overrides import leaves
from orbiter_mlflow import MLflowSettings, MLflowTrainerMixin, load_config
from pages import ROOT, blocks
from tiny_qwen2 import write_tiny_qwen2
from waiting import eventually

PAGE = ROOT / "docs" / "how-to" / "verl.md"
ROWS = [
    {"input": f"what is {a} plus {b}", "output": f"the answer is {a + b}"}
    for a in range(8)
    for b in range(14)
]
ON_CPU = {"trainer.device": "cpu"}


class Tracked(MLflowTrainerMixin, VeRLTrainer):
    """The backend, tracked; `first` is set by its first report."""

    def __init__(self, config: VeRLConfig, uri: str) -> None:
        super().__init__(config, mlflow=MLflowSettings(tracking_uri=uri))
        self.first = asyncio.Event()

    def _on_report(self, metrics: Mapping[str, Any] | TrainMetrics, step: int) -> None:
        super()._on_report(metrics, step)
        self.first.set()


def reward(data_source: str, solution_str: str, ground_truth: str, extra_info: Any = None) -> float:
    return float(solution_str == ground_truth)


def other_reward(**_given: Any) -> float:
    return 0.0


@pytest.fixture
def model(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A tiny model in the folder `model`."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    texts = [text for row in ROWS for text in row.values()]
    assert write_tiny_qwen2(own_folder / "model", texts) < 150_000
    return "model"


def fine_tuning(**settings: Any) -> VeRLConfig:
    return VeRLConfig(
        algorithm=VeRLAlgorithm.SFT,
        **{
            "model_name": "model",
            "epochs": 4,
            "batch_size": 16,
            "learning_rate": 1e-2,
            "max_prompt_length": 64,
            "max_response_length": 64,
            "extra": {"verl": ON_CPU},
            **settings,
        },
    )


def composed(config: VeRLConfig, *, tested: bool = True) -> VeRLConfig:
    return compose(config, rows=100, tested=tested, rewarded=True).config


def ready(trainer: VeRLTrainer, reward_fn: Any = None) -> VeRLTrainer:
    trainer.check_agent("model")
    trainer.check_dataset(ROWS[16:], ROWS[:16])
    trainer.check_reward(reward_fn)
    trainer.check_config()
    trainer.mark_validated()
    return trainer


def at(config: VeRLConfig, name: str) -> Any:
    return dict(leaves(config.composed))[name]


# -- composition -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        ("sft", 190),
        ("grpo", 910),
        ("ppo", 910),
    ],
)
def test_the_whole_config_of_verl_is_composed_and_comes_back_identical(
    algorithm: str, expected: int
) -> None:
    start = perf_counter()
    config = composed(VeRLConfig(algorithm=VeRLAlgorithm(algorithm), model_name="m"))
    composed(config)
    once = perf_counter() - start
    assert expected < len(dict(leaves(config.composed))) < expected + 50
    assert composed(config) == config
    params, _ = params_and_tags(config)
    assert len(params) > expected
    assert params["composed.trainer.total_epochs"] == "1"
    assert once < 30  # with the import of hydra, on a machine that is busy
    assert "verl" not in sys.modules


def test_the_fields_decide_the_settings_that_mean_the_same() -> None:
    fields = VeRLConfig(
        epochs=3,
        batch_size=20,
        learning_rate=1e-6,
        rollout_batch_size=5,
        ppo_epochs=2,
        kl_coeff=0.25,
        clip_range=0.3,
        gamma=0.99,
        lam=0.9,
        model_name="model",
        tokenizer_name="tokens",
        max_prompt_length=100,
        max_response_length=50,
        output_dir="out",
    )
    grpo = composed(fields)
    common = {
        "trainer.total_epochs": 3,
        "data.train_batch_size": 20,
        "data.max_prompt_length": 100,
        "data.max_response_length": 50,
        "data.train_files": "train.parquet",
        "data.val_files": "test.parquet",
        "actor_rollout_ref.actor.optim.lr": 1e-6,
        "actor_rollout_ref.actor.ppo_epochs": 2,
        "actor_rollout_ref.actor.ppo_mini_batch_size": 20,
        "actor_rollout_ref.actor.clip_ratio": 0.3,
        "actor_rollout_ref.actor.clip_ratio_high": 0.3,
        "actor_rollout_ref.model.path": "model",
        "actor_rollout_ref.model.tokenizer_path": "tokens",
        "actor_rollout_ref.rollout.n": 5,
        "actor_rollout_ref.rollout.name": "vllm",
        "actor_rollout_ref.rollout.prompt_length": 100,  # by verl's own interpolation
        "algorithm.gamma": 0.99,
        "algorithm.lam": 0.9,
        "reward.custom_reward_function.name": "reward",
        "trainer.logger": ["console", "file"],
        "trainer.test_freq": 5,
        "trainer.save_freq": 5,
    }
    assert {name: at(grpo, name) for name in common} == common
    assert at(grpo, "algorithm.adv_estimator") == "grpo"
    assert at(grpo, "actor_rollout_ref.actor.use_kl_loss") is True
    assert at(grpo, "actor_rollout_ref.actor.kl_loss_coef") == 0.25
    assert at(grpo, "algorithm.use_kl_in_reward") is False
    ppo = composed(replace(fields, algorithm=VeRLAlgorithm.PPO))
    assert at(ppo, "algorithm.adv_estimator") == "gae"
    assert at(ppo, "actor_rollout_ref.actor.use_kl_loss") is False
    assert at(ppo, "algorithm.use_kl_in_reward") is True
    assert at(ppo, "algorithm.kl_ctrl.kl_coef") == 0.25
    assert at(ppo, "critic.model.path") == "model"
    sft = composed(replace(fields, algorithm=VeRLAlgorithm.SFT), tested=False)
    assert at(sft, "optim.lr") == 1e-6
    assert at(sft, "model.path") == "model"
    assert at(sft, "data.max_length") == 150
    assert at(sft, "data.val_files") is None
    assert at(sft, "trainer.test_freq") == -1


def test_a_batch_on_a_gpu_holds_the_longest_row() -> None:
    long = VeRLConfig(max_prompt_length=15_000, max_response_length=5_000)
    grpo = composed(long)
    assert at(grpo, "actor_rollout_ref.actor.ppo_max_token_len_per_gpu") == 20_000
    assert at(grpo, "actor_rollout_ref.ref.log_prob_max_token_len_per_gpu") == 20_000
    assert at(grpo, "actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu") == 20_000
    sft = composed(replace(long, algorithm=VeRLAlgorithm.SFT))
    assert at(sft, "data.max_token_len_per_gpu") == 20_000
    assert at(composed(VeRLConfig()), "actor_rollout_ref.actor.ppo_max_token_len_per_gpu") == 16384


def test_an_override_wins_and_the_field_takes_its_value() -> None:
    config = composed(
        VeRLConfig(
            learning_rate=1e-5,
            extra={
                "verl": {
                    "actor_rollout_ref": {"actor": {"optim": {"lr": 3e-7}}},
                    "actor_rollout_ref.rollout.n": 16,
                    "trainer.logger": "tensorboard",
                    "actor_rollout_ref.model.override_config.attn_implementation": "eager",
                }
            },
        )
    )
    assert config.learning_rate == at(config, "actor_rollout_ref.actor.optim.lr") == 3e-7
    assert config.rollout_batch_size == at(config, "actor_rollout_ref.rollout.n") == 16
    assert at(config, "actor_rollout_ref.model.override_config.attn_implementation") == "eager"
    assert at(config, "trainer.logger") == ["tensorboard", "file"]
    assert composed(config) == config


def test_an_environment_variable_is_recorded_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "hidden")
    path = "actor_rollout_ref.model.override_config.token"
    names = {"trainer.project_name": "${oc.env:SECRET}", path: ["a ${oc.env:SECRET}"]}
    made = compose(VeRLConfig(extra={"verl": names}), rows=9, tested=False, rewarded=True)
    assert {name: at(made.config, name) for name in names} == names
    assert "hidden" not in str(made.config)
    assert OmegaConf.select(made.tree, "trainer.project_name") == "hidden"
    with pytest.raises(TrainerError, match="NO_SUCH"):
        composed(VeRLConfig(extra={"verl": {"trainer.project_name": "${oc.env:NO_SUCH}"}}))


def test_a_fine_tuning_that_keeps_nothing_saves_nothing() -> None:
    assert at(composed(fine_tuning()), "checkpoint.save_contents") == []
    everything = ["model", "optimizer", "extra"]
    assert at(composed(fine_tuning()), "checkpoint.load_contents") == everything
    elsewhere = {**ON_CPU, "trainer.default_local_dir": "there"}
    for kept in (fine_tuning(output_dir="out"), fine_tuning(extra={"verl": elsewhere})):
        assert at(composed(kept), "checkpoint.save_contents") == everything


def test_the_config_is_composed_inside_an_application_of_hydra(own_folder: Path) -> None:
    (own_folder / "conf").mkdir()
    (own_folder / "conf" / "app.yaml").write_text("size: 3\n")
    composition._files.cache_clear()
    with initialize_config_dir(str(own_folder / "conf"), version_base="1.2"):
        assert at(composed(VeRLConfig()), "trainer.total_epochs") == 1
        assert hydra.compose("app") == {"size": 3}
        assert str(version.getbase()) == "1.2"
    composition._files.cache_clear()
    composed(VeRLConfig())


def test_an_override_may_choose_another_engine() -> None:
    config = composed(VeRLConfig(extra={"verl": {"model_engine": "megatron"}}))
    assert at(config, "actor_rollout_ref.actor.strategy") == "megatron"
    with pytest.raises(TrainerError, match="no_such"):
        composed(VeRLConfig(extra={"verl": {"model_engine": "no_such"}}))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("actor_rollout_ref.actor.optim.learning_rate", 1, "did you mean"),
        ("total_epoch", 1, "did you mean 'trainer.total_epochs'"),
        ("trainer.test_frequency", 10, "did you mean 'trainer.test_freq'"),  # shown on the page
        ("trainer", 1, "a group of settings"),
        ("actor_rollout_ref.rollout.n", 0, "rollout_batch_size"),
        ("trainer.test_freq", object(), "cannot be composed"),
        ("data.train_batch_size", "many", "bad value"),
    ],
)
def test_an_override_that_verl_cannot_use_is_refused_at_the_check(
    name: str, value: Any, message: str
) -> None:
    with pytest.raises(TrainerError, match=message):
        VeRLTrainer().check_config({"verl": {name: value}})


def test_validation_fills_in_the_config_and_refuses_what_does_not_fit() -> None:
    trainer = ready(VeRLTrainer(fine_tuning(model_name="")))
    assert trainer.verl_config.model_name == at(trainer.verl_config, "model.path") == "model"
    assert at(trainer.verl_config, "model.override_config.attn_implementation") == "eager"
    with pytest.raises(TrainerError, match="train_data has 96 rows, with batch_size=200"):
        ready(VeRLTrainer(fine_tuning(batch_size=200)))
    with pytest.raises(TrainerError, match="test_data has 16 rows, with batch_size=17"):
        ready(VeRLTrainer(fine_tuning(batch_size=17)))
    with pytest.raises(TrainerError, match="at the top of a module"):
        ready(VeRLTrainer(VeRLConfig(model_name="m")), lambda **_given: 0.0)
    with pytest.raises(TrainerError, match="'data_source'"):
        ready(VeRLTrainer(VeRLConfig(model_name="m")))


def test_what_was_rewarded_is_part_of_the_config() -> None:
    first = ready(VeRLTrainer(VeRLConfig(model_name="m")), reward)
    other = ready(VeRLTrainer(VeRLConfig(model_name="m")), other_reward)
    assert isinstance(first.config, VeRLConfig)
    assert isinstance(other.config, VeRLConfig)
    assert first.config.rewards.keys() == {"reward"}
    assert other.config.rewards.keys() == {"other_reward"}
    assert [*first.config.rewards.values()] != [*other.config.rewards.values()]


def test_a_training_without_a_model_is_refused() -> None:
    trainer = VeRLTrainer(fine_tuning(model_name=""))
    trainer.check_agent(object())
    trainer.check_dataset(ROWS)
    with pytest.raises(TrainerError, match="no model: set model_name"):
        trainer.mark_validated()


@pytest.mark.parametrize("value", [2**70, {}])
def test_data_that_cannot_be_written_are_refused_before_the_training(value: Any) -> None:
    trainer = VeRLTrainer(VeRLConfig(model_name="m", batch_size=1))
    trainer.check_dataset([{"input": "a", "output": "b", "level": value}])
    trainer.check_reward(reward)
    with pytest.raises(TrainerError, match="column 'extra_info'"):
        trainer.mark_validated()


def test_an_algorithm_that_was_assigned_by_its_name_is_the_same() -> None:
    config = fine_tuning()
    config.algorithm = "sft"  # type: ignore[assignment]
    assert ready(VeRLTrainer(config)).config == ready(VeRLTrainer(fine_tuning())).config


def test_without_a_reward_the_config_names_none() -> None:
    trainer = VeRLTrainer(fine_tuning(rewards={"of a run before": "digest"}))
    assert ready(trainer).verl_config.rewards == {}


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        (INSIDE, "1", 'if __name__ == "__main__"'),  # verl imports the script for its reward
        ("WORLD_SIZE", "2", "without torchrun"),
    ],
)
async def test_a_script_inside_another_launch_does_not_start_verl(
    variable: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = ready(VeRLTrainer(fine_tuning()))
    monkeypatch.setenv(variable, value)
    with pytest.raises(TrainerError, match=message):
        await trainer.train()


# -- PPO and GRPO, without a GPU -------------------------------------------------------------------


class Planned(VeRLTrainer):
    """Stops where verl would be started."""

    async def _run(self, plan: Any) -> TrainMetrics:
        self.plan = plan
        return TrainMetrics()


async def planned(algorithm: VeRLAlgorithm, folder: Path) -> Planned:
    config = VeRLConfig(
        algorithm=algorithm,
        model_name="model",
        max_prompt_length=64,
        max_response_length=64,
        output_dir=str(folder),
        extra={"verl": {"trainer.rollout_data_dir": "said"}},
    )
    trainer = Planned(config)
    await ready(trainer, reward).train()
    return trainer


async def test_the_launch_of_reinforcement_learning_is_planned(
    model: str, own_folder: Path
) -> None:
    plan = (await planned(VeRLAlgorithm.GRPO, Path("out folder"))).plan
    folder = own_folder / "out folder" / "verl"
    assert list(plan.command) == [
        *(sys.executable, "-m", "verl.trainer.main_ppo"),
        *("--config-path", str(folder), "--config-name", "config"),
        *(f"hydra.run.dir='{folder}/hydra'", "hydra.output_subdir=null"),
    ]
    assert plan.environment["VERL_FILE_LOGGER_PATH"] == str(folder / "metrics.jsonl")
    assert "VERL_PLATFORM" not in plan.environment
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["data"]["train_files"] == str(folder / "train.parquet")
    assert config["data"]["val_files"] == str(folder / "test.parquet")
    assert config["trainer"]["default_local_dir"] == str(folder / "checkpoints")
    assert config["trainer"]["validation_data_dir"] == str(folder / "validation")
    assert config["reward"]["custom_reward_function"]["path"] == str(folder / "reward.py")
    assert config["actor_rollout_ref"]["model"]["path"] == str(own_folder / "model")
    assert plan.completions == {"eval": folder / "validation", "train": own_folder / "said"}
    assert config["trainer"]["rollout_data_dir"] == str(own_folder / "said")
    forwarded = config["ray_kwargs"]["ray_init"]["runtime_env"]["env_vars"]
    assert forwarded["VERL_FILE_LOGGER_PATH"] == str(folder / "metrics.jsonl")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


async def test_verl_reads_config_data_and_reward_and_what_it_writes_is_read(
    model: str, own_folder: Path
) -> None:
    algorithms = (VeRLAlgorithm.GRPO, VeRLAlgorithm.PPO)
    for algorithm in algorithms:
        await planned(algorithm, own_folder / algorithm)
    program = ROOT / "tests" / "support" / "verl_reads.py"
    folders = [own_folder / algorithm / "verl" for algorithm in algorithms]
    ended = subprocess.run(  # noqa: ASYNC221  nothing else is to run here
        [sys.executable, program, *folders], capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stderr
    printed = [line for line in ended.stdout.splitlines() if line.startswith("{")]
    for algorithm, line in zip(algorithms, printed, strict=True):
        found = json.loads(line)
        assert math.isnan(found["entries"][0][1].pop("actor/entropy"))
        assert found == {
            "critic": algorithm is VeRLAlgorithm.PPO,
            "reference": True,
            "lr": 1e-5,
            "clip": [0.2, 0.2, 0.2],
            "n": 4,
            "engine": "vllm",
            "rows": 96,
            "prompt": [{"role": "user", "content": ROWS[16]["input"]}],
            "score": 1.0,
            "entries": [
                [1, {"loss": 1.5}, {}],
                [1, {}, {"loss": 2.5}],
                [2, {"loss": 0.5}, {"val-core/orbiter/reward/mean@1": 0.25}],
            ],
            "step": 3,
            "rollout": ["1+1", "2", {"score": 1.0}, {"ground_truth": "2", "acc": 1.0, "uid": "u"}],
        }


# -- supervised fine-tuning, for real --------------------------------------------------------------


def run_in(uri: str) -> Run | None:
    found = MlflowClient(uri).search_runs(["0"])
    return found[0] if found else None


def points(uri: str, key: str) -> list[tuple[int, float]]:
    run = run_in(uri)
    if run is None:
        return []
    history = MlflowClient(uri).get_metric_history(run.info.run_id, key)
    return sorted((point.step, point.value) for point in history)


def processes_below(folder: Path) -> list[str]:
    """The command lines of living processes that have the folder in them, but for delivery."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        ours = int(file.parent.name) == os.getpid() or "orbiter_mlflow.delivery" in line
        if str(folder) in line and not ours:
            found.append(line)
    return found


def within(condition: Callable[[], Any]) -> Any:
    return eventually(condition, 240)


def test_the_program_of_the_page_trains_and_is_tracked_live(
    model: str, sqlite_uri: str, own_folder: Path
) -> None:
    (program,) = (block for block in blocks(PAGE) if block.word == "train.py")
    (own_folder / "train.py").write_text(program.text)
    environment = os.environ | {"MLFLOW_TRACKING_URI": sqlite_uri}
    with subprocess.Popen([sys.executable, "train.py"], env=environment) as training:
        metrics = own_folder / "out" / "verl" / "metrics.jsonl"
        within(lambda: metrics.exists() or training.poll() is not None)  # cheaper than the store
        within(lambda: points(sqlite_uri, "train/loss") or training.poll() is not None)
        assert training.poll() is None, "no point before the end"
    assert training.returncode == 0
    run = run_in(sqlite_uri)
    assert run is not None
    assert run.info.status == "FINISHED"
    losses = points(sqlite_uri, "train/loss")
    assert [step for step, _ in losses] == list(range(1, 25))
    assert losses[0][1] > 4
    assert losses[-1][1] < losses[0][1] / 3
    validated = points(sqlite_uri, "eval/loss")
    assert [step for step, _ in validated] == [6, 12, 18, 24]
    assert validated[-1][1] < validated[0][1]
    assert run.data.params["composed.trainer.device"] == "cpu"
    assert len(run.data.params) > 190
    config = load_config(run.info.run_id, tracking_uri=sqlite_uri)
    assert isinstance(config, VeRLConfig)
    expected = VeRLTrainer(replace(config, composed={}))
    assert ready(expected).config == config
    assert (own_folder / "out/verl/checkpoints/global_step_24/huggingface").is_dir()
    assert not re.search("outputs|checkpoints", " ".join(os.listdir()))  # noqa: PTH208


async def test_a_cancelled_training_leaves_no_process_and_ends_killed(
    model: str, sqlite_uri: str, own_folder: Path
) -> None:
    trainer = Tracked(fine_tuning(epochs=10_000, output_dir="out"), sqlite_uri)
    running = asyncio.ensure_future(ready(trainer).train())
    await asyncio.wait(
        [running, asyncio.ensure_future(trainer.first.wait())],
        timeout=240,
        return_when=asyncio.FIRST_COMPLETED,
    )
    assert trainer.first.is_set(), running
    assert processes_below(own_folder)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert processes_below(own_folder) == []
    assert trainer.state is TrainerState.FAILED
    killed = await asyncio.to_thread(
        within, lambda: (run := run_in(sqlite_uri)) and run.info.status == "KILLED"
    )
    assert killed


async def test_a_training_that_verl_cannot_run_fails_with_the_end_of_its_log(
    model: str, own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(own_folder))
    too_short = {**ON_CPU, "data.max_length": 4}
    trainer = ready(VeRLTrainer(fine_tuning(extra={"verl": too_short})))
    with pytest.raises(TrainerError, match=r"is larger than self\.max_length=4") as error:
        await trainer.train()
    assert "verl ended with exit code 1" in str(error.value)
    assert trainer.state is TrainerState.FAILED
