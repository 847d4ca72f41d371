"""`make test-integrations`: real trainings by TRL on a CPU, tracked.

`make test` does not collect this file, because of its name.
"""

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from mlflow import MlflowClient

from orbiter.train import Rollout, TrainerError, TrainerState, TRLConfig, TRLTrainer
from orbiter_mlflow import MLflowSettings, MLflowTrainerMixin, load_config, newest_checkpoint
from orbiter_mlflow.runs.checkpoints import checkpoints_of
from orbiter_mlflow.runs.store import RunStore
from paths import ROOT
from tiny_models import tiny_agent
from trainers import history, run_of, stored
from waiting import eventually

# TRL 1.16 uses names that transformers 5.24 has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated and will be removed:FutureWarning")

QUIET: dict[str, Any] = {"disable_tqdm": True}
SPEEDS = ("runtime", "samples_per_second", "steps_per_second", "step_time", "preprocessing_time")
"""What is measured in seconds, which no seed repeats."""


class Tracked(MLflowTrainerMixin, TRLTrainer):
    """The backend, tracked; keeps the rollouts that it reports."""

    @property
    def rollouts(self) -> list[tuple[str, int, list[Rollout]]]:
        kept: list[tuple[str, int, list[Rollout]]] = self.__dict__.setdefault("_kept", [])
        return kept

    def _on_rollouts(
        self, rollouts: Sequence[Rollout], step: int, phase: Literal["train", "eval"]
    ) -> None:
        super()._on_rollouts(rollouts, step, phase)
        self.rollouts.append((phase, step, list(rollouts)))


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No model or data hub; the threads of torch as at the start."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def validated(
    uri: str,
    config: TRLConfig,
    rows: list[dict[str, Any]],
    test_rows: list[dict[str, Any]] | None = None,
    *,
    reward: Any = None,
    resume: bool | str | Path = False,
    **settings: Any,
) -> Tracked:
    """A tracked trainer with an agent made on the spot."""
    config.args = {**QUIET, **config.args}
    trainer = Tracked(config, resume=resume, mlflow=MLflowSettings(tracking_uri=uri, **settings))
    trainer.check_config()
    trainer.check_agent(tiny_agent(config.seed))
    trainer.check_dataset(rows, test_rows)
    trainer.check_reward(reward)
    trainer.mark_validated()
    return trainer


def sums(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Questions and answers: sums of two digits."""
    chance = random.Random(seed)
    pairs = [(chance.randrange(10), chance.randrange(10)) for _ in range(count)]
    return [(f"{a}+{b}=", str(a + b)) for a, b in pairs]


def sft_rows(count: int = 64, seed: int = 0) -> list[dict[str, Any]]:
    return [{"prompt": question, "completion": answer} for question, answer in sums(count, seed)]


def sft(steps: int = 24, **settings: Any) -> TRLConfig:
    return TRLConfig(
        **{"max_steps": steps, "learning_rate": 5e-3, "logging_steps": 1, "seed": 0, **settings}
    )


def sevens(completion: str, row: dict[str, Any]) -> float:
    """The share of sevens: a reward that can be verified."""
    assert row["prompt"].endswith("=")
    return completion.count("7") / max(len(completion), 1)


def short(completions: list[str], **_: Any) -> list[float]:
    return [float(len(text) < 4) for text in completions]


async def patient(completions: list[str], **_: Any) -> list[float | None]:
    await asyncio.sleep(0)
    return [0.5 for _ in completions]


def grpo(steps: int, seed: int = 0, **settings: Any) -> TRLConfig:
    return TRLConfig(
        method="grpo",
        batch_size=16,
        max_steps=steps,
        learning_rate=1e-2,
        max_completion_length=6,
        logging_steps=1,
        seed=seed,
        **settings,
    )


def grpo_rows() -> list[dict[str, Any]]:
    return [{"prompt": question, "answer": answer} for question, answer in sums(32)]


def values(uri: str, trainer: Tracked, key: str) -> list[float]:
    return [value for _, value in history(uri, trainer, key)]


# -- each method learns ----------------------------------------------------------------------------


async def test_sft_halves_the_loss_and_evaluates_as_it_goes(sqlite_uri: str) -> None:
    trainer = validated(sqlite_uri, sft(24, eval_steps=8), sft_rows(), sft_rows(32, seed=1))
    before = await trainer.evaluate()
    metrics = await trainer.train()
    after = await trainer.evaluate()
    other = await trainer.evaluate(sft_rows(8, seed=2))
    assert trainer.state is TrainerState.COMPLETED
    assert after.loss < before.loss / 2
    assert other.loss < before.loss / 2
    assert (before.steps, metrics.steps, after.steps) == (0, 24, 24)
    losses = values(sqlite_uri, trainer, "train/loss")
    assert len(losses) == 24
    assert losses[-1] < losses[0] / 2
    steps = [step for step, _ in history(sqlite_uri, trainer, "eval/loss")]
    assert sorted(set(steps)) == [0, 8, 16, 24]
    metrics_of_run = stored(sqlite_uri, trainer).data.metrics
    assert metrics_of_run["train/final/loss"] == metrics_of_run["train/mean_loss"]
    assert {"eval/mean_token_accuracy", "eval/entropy", "train/grad_norm"} <= metrics_of_run.keys()
    assert not [key for key in metrics_of_run if "eval_" in key or "train_" in key]


@pytest.mark.parametrize("seed", [0, 1, 2])
async def test_grpo_raises_a_reward_by_a_margin(seed: int, sqlite_uri: str) -> None:
    trainer = validated(sqlite_uri, grpo(20, seed), grpo_rows(), reward=sevens)
    await trainer.train()
    rewards = values(sqlite_uri, trainer, "train/reward")
    assert len(rewards) == 20
    assert sum(rewards[:2]) / 2 < 0.1
    assert sum(rewards[-2:]) / 2 > 0.4
    assert values(sqlite_uri, trainer, "train/rewards/sevens/mean") == rewards
    params = stored(sqlite_uri, trainer).data.params
    assert params["rewards.sevens"] == trainer.config.rewards["sevens"]
    assert params["model"] == "Qwen2ForCausalLM"


async def test_what_grpo_samples_is_reported_as_rollouts_of_the_steps_that_are_logged(
    sqlite_uri: str,
) -> None:
    config = grpo(4)
    config.logging_steps = 2
    trainer = validated(
        sqlite_uri, config, grpo_rows(), grpo_rows()[:2], reward=[sevens, short, patient]
    )
    await trainer.train()
    await trainer.evaluate()
    found = [(phase, step, len(rollouts)) for phase, step, rollouts in trainer.rollouts]
    assert found == [("train", 2, 16), ("train", 4, 16), ("eval", 4, 16)]
    answers = {row["prompt"]: row["answer"] for row in grpo_rows()}
    for _, _, rollouts in trainer.rollouts:
        for one in rollouts:
            assert isinstance(one.completion, str)
            row = {"prompt": one.prompt, **one.extra}
            assert one.rewards["sevens"] == pytest.approx(sevens(one.completion, row))
            assert one.rewards.keys() == {"sevens", "short", "patient"}
            assert one.extra == {"answer": answers[one.prompt]}
            assert one.tokens is not None
            assert 1 <= one.tokens <= 6
    mean = sum(one.rewards["sevens"] for one in trainer.rollouts[-1][2]) / 16
    metrics = stored(sqlite_uri, trainer).data.metrics
    assert metrics["eval/rewards/sevens/mean"] == pytest.approx(mean)


async def test_dpo_raises_its_preference_accuracy_and_takes_the_agent_of_an_sft(
    sqlite_uri: str,
) -> None:
    first = validated(sqlite_uri, sft(4), sft_rows())
    await first.train()
    rows = [{"prompt": q, "chosen": a, "rejected": "0000"} for q, a in sums(64)]
    config = TRLConfig(method="dpo", max_steps=8, learning_rate=2e-3, logging_steps=1, args=QUIET)
    trainer = Tracked(config, mlflow=MLflowSettings(tracking_uri=sqlite_uri))
    trainer.check_agent(first)
    trainer.check_dataset(rows, rows[:16])
    trainer.mark_validated()
    before = await trainer.evaluate()
    await trainer.train()
    after = await trainer.evaluate()
    assert before.extra["rewards/accuracies"] < 0.5  # no preference: nothing is above its rival
    assert after.extra["rewards/accuracies"] > 0.9
    assert after.loss < before.loss
    assert values(sqlite_uri, trainer, "train/rewards/accuracies")[-1] > 0.9


async def test_a_reward_model_learns_with_adapters(sqlite_uri: str, own_folder: Path) -> None:
    from transformers import Qwen2ForSequenceClassification

    torch.manual_seed(0)
    model, tokenizer = tiny_agent()
    model.config.num_labels = 1
    Qwen2ForSequenceClassification(model.config).save_pretrained("base")
    tokenizer.save_pretrained("base")
    rows = [{"chosen": f"{q}7", "rejected": f"{q}0"} for q, _ in sums(32)]
    config = TRLConfig(
        method="reward", max_steps=6, learning_rate=2e-2, logging_steps=1, lora={"r": 4}
    )
    config.args = QUIET
    trainer = Tracked(config, mlflow=MLflowSettings(tracking_uri=sqlite_uri))
    trainer.check_agent(own_folder / "base")
    trainer.check_dataset(rows)
    trainer.mark_validated()
    await trainer.train()
    losses = values(sqlite_uri, trainer, "train/loss")
    assert losses[-1] < losses[0] / 2
    assert hasattr(trainer.model, "peft_config")
    assert stored(sqlite_uri, trainer).data.params["model"] == str(own_folder / "base")
    assert load_config(str(trainer.run_id), TRLConfig, tracking_uri=sqlite_uri) == trainer.config


# -- the same again --------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["sft", "grpo"])
async def test_the_same_config_twice_gives_the_same_metrics(method: str, sqlite_uri: str) -> None:
    curves: list[dict[str, list[tuple[int, float]]]] = []
    for attempt in range(2):
        if method == "sft":
            trainer = validated(sqlite_uri, sft(6), sft_rows(), sft_rows(8))
        else:
            trainer = validated(
                sqlite_uri, grpo(4), grpo_rows(), grpo_rows()[:8], reward=[sevens, short]
            )
        if attempt:
            await trainer.evaluate()  # leaves no trace in the training
        await trainer.train()
        run = stored(sqlite_uri, trainer)
        keys = [key for key in run.data.metrics if key.startswith("train/")]
        kept = [key for key in keys if not key.endswith(SPEEDS) and "profiling" not in key]
        curves.append({key: history(sqlite_uri, trainer, key) for key in kept})
    assert "train/loss" in curves[0]
    assert curves[0] == curves[1]


# -- the end ---------------------------------------------------------------------------------------


def cancel_at(trainer: Tracked, step: int) -> None:
    """Cancel the training when it reports a step."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    report = trainer.report

    def reported(metrics: Any, **arguments: Any) -> None:
        report(metrics, **arguments)
        if arguments["step"] == step:
            loop.call_soon_threadsafe(task.cancel)

    trainer.report = reported  # type: ignore[method-assign]


async def cancelled(trainer: Tracked, step: int) -> None:
    cancel_at(trainer, step)
    await trainer.train()


def test_a_cancelled_training_is_killed_with_a_checkpoint_and_resumes(
    sqlite_uri: str, own_folder: Path
) -> None:
    whole = validated(sqlite_uri, sft(8), sft_rows())
    asyncio.run(whole.train())
    trainer = validated(sqlite_uri, sft(8, output_dir="out"), sft_rows())
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancelled(trainer, 3))
    eventually(lambda: trainer.delivered)
    run = run_of(sqlite_uri, trainer.run_id)
    assert run.info.status == "KILLED"
    reached = [step for step, _ in history(sqlite_uri, trainer, "train/loss")][-1]
    assert reached in (3, 4)  # one step may be on its way
    assert (own_folder / f"out/checkpoint-{reached}/optimizer.pt").exists()

    resumed = validated(
        sqlite_uri,
        sft(8, output_dir="out"),
        sft_rows(),
        resume=True,
        run_id=trainer.run_id,
    )
    asyncio.run(resumed.train())
    assert stored(sqlite_uri, resumed).info.run_id == run.info.run_id
    assert history(sqlite_uri, resumed, "train/loss") == history(sqlite_uri, whole, "train/loss")
    assert (own_folder / "out/model.safetensors").exists()


def test_checkpoints_outlive_their_rotation_and_another_machine_resumes_from_the_newest(
    sqlite_uri: str, own_folder: Path
) -> None:
    saving: dict[str, Any] = {"save_steps": 2, "args": {"save_total_limit": 1}}
    whole = validated(sqlite_uri, sft(8), sft_rows())
    asyncio.run(whole.train())
    trainer = validated(
        sqlite_uri,
        sft(8, output_dir="here", eval_steps=2, **saving),
        sft_rows(),
        sft_rows(8, seed=1),
        log_checkpoints="all",
        checkpoint_metric="eval/loss",
        checkpoint_direction="lower",
    )
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancelled(trainer, 5))
    run_id = stored(sqlite_uri, trainer).info.run_id
    assert len(list((own_folder / "here").glob("checkpoint-*"))) == 1
    store = RunStore(sqlite_uri)
    found = [one.manifest for one in checkpoints_of(store, run_id)]
    assert [one.step for one in found][:2] == [2, 4]
    losses = dict(history(sqlite_uri, trainer, "eval/loss"))
    assert {one.step: one.value for one in found if one.value is not None} == losses
    tokenizers = {one.files["tokenizer.json"].sha256 for one in found}
    assert len(tokenizers) == 1  # in the store once
    client = MlflowClient(sqlite_uri)
    models = client.search_logged_models([client.get_run(run_id).info.experiment_id])
    assert {one.name for one in models} == {f"step-{one.step}" for one in found}

    newest = newest_checkpoint(run_id, "there", tracking_uri=sqlite_uri)
    assert newest is not None
    assert newest.name == f"checkpoint-{found[-1].step}"
    resumed = validated(
        sqlite_uri,
        sft(8, output_dir="there", **saving),
        sft_rows(),
        resume=newest,
        run_id=run_id,
        log_checkpoints="last",
    )
    asyncio.run(resumed.train())
    stored(sqlite_uri, resumed)
    assert history(sqlite_uri, resumed, "train/loss") == history(sqlite_uri, whole, "train/loss")
    assert [one.manifest.step for one in checkpoints_of(store, run_id)][-1] == 8


async def test_there_must_be_a_checkpoint_to_resume_from(sqlite_uri: str) -> None:
    for resume, words in ((True, "no checkpoint in output_dir='out'"), ("gone", "no such")):
        trainer = validated(sqlite_uri, sft(output_dir="out"), sft_rows(), resume=resume)
        with pytest.raises(TrainerError, match=words):
            await trainer.train()


async def test_an_accelerator_without_memory_says_what_to_lower(sqlite_uri: str) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    trainer = validated(sqlite_uri, sft(batch_size=4, max_length=64), sft_rows())
    trainer.model.register_forward_pre_hook(full)
    with pytest.raises(TrainerError) as caught:
        await trainer.train()
    assert "lower batch_size (now 4) or max_length (now 64)" in str(caught.value)
    assert "gradient_accumulation_steps (now 1)" in str(caught.value)
    assert "2.00 GiB" in str(caught.value)
    assert stored(sqlite_uri, trainer).info.status == "FAILED"


# -- what TRL knows --------------------------------------------------------------------------------


def test_a_name_that_trl_lacks_is_refused_with_the_nearest_one() -> None:
    trainer = TRLTrainer(TRLConfig(args={"warmup_step": 3}))
    with pytest.raises(TrainerError, match=r"SFTConfig of trl .* did you mean 'warmup_steps'"):
        trainer.check_config()
    with pytest.raises(TrainerError, match="did you mean 'lora_alpha'"):
        trainer.check_config({"args": {}, "lora": {"lora_alfa": 3}})


# -- processes -------------------------------------------------------------------------------------

PROGRAM = """
import asyncio, os, sys
sys.path[:0] = {paths!r}
import check_trl as here

config = here.sft(int(sys.argv[1]), output_dir="out", batch_size=4)
trainer = here.validated({uri!r}, config, here.sft_rows())
asyncio.run(trainer.train())
"""


def program(folder: Path, uri: str) -> Path:
    paths = [str(ROOT / "tests" / part) for part in ("train", "support", "")]
    file = folder / "program.py"
    file.write_text(PROGRAM.format(paths=paths, uri=uri))
    return file


LAUNCHERS = {
    "torchrun": ("torch.distributed.run", "--nproc-per-node=2", "--standalone"),
    "accelerate": (
        *("accelerate.commands.launch", "--multi_gpu", "--num_processes=2"),
        *("--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no"),
        *("--main_process_port=0",),
    ),
}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_of_two_processes_the_first_tracks_and_all_end_together(
    launcher: str, sqlite_uri: str, own_folder: Path
) -> None:
    started = subprocess.Popen(
        [
            *(sys.executable, "-m", *LAUNCHERS[launcher]),
            *(str(program(own_folder, sqlite_uri)), "100000"),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        stderr=subprocess.PIPE,
        text=True,
    )
    client = MlflowClient(sqlite_uri)
    try:
        eventually(lambda: any(_losses(client)), within=240)
        started.send_signal(signal.SIGINT)  # torchrun passes it on to each process
        _, told = started.communicate(timeout=120)
    finally:
        started.kill()
        started.communicate()
    (run,) = eventually(
        lambda: [run for run in client.search_runs(["0"]) if run.info.status != "RUNNING"]
    )
    assert run.info.status == "KILLED", told
    (losses,) = _losses(client)
    steps = [metric.step for metric in losses]
    assert steps == list(range(1, len(steps) + 1))
    assert (own_folder / f"out/checkpoint-{steps[-1]}/trainer_state.json").exists()


def _losses(client: MlflowClient) -> list[Any]:
    runs = client.search_runs(["0"])
    return [client.get_metric_history(run.info.run_id, "train/loss") for run in runs]


def test_the_demo_raises_the_share_of_right_answers(sqlite_uri: str) -> None:
    command = [str(Path(sys.executable).with_name("orbiter-mlflow")), "demo", "--backend", "trl"]
    done = subprocess.run(
        [*command, "--seeds", "1", "--epochs", "12", "--tracking-uri", sqlite_uri],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "2 runs of 12 epochs of GRPO on 27 sums" in done.stdout
    for noise in ("train_runtime", "examples/s", "FutureWarning"):
        assert noise not in done.stdout + done.stderr
    client, gains = MlflowClient(sqlite_uri), []
    for run in client.search_runs(["1"]):
        assert run.info.status == "FINISHED"
        points = client.get_metric_history(run.info.run_id, "eval/reward")
        before, after = sorted(points, key=lambda point: point.step)
        gains.append(after.value - before.value)
    assert len(gains) == 2
    assert max(gains) > 0.05
