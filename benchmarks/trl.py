"""What tracking costs a training by TRL: the same GRPO, reported in three ways."""

import importlib.util
import statistics
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

from benchmarks.processes import fresh, medians, memory_mb, percentile
from benchmarks.results import Check, Column, Result
from benchmarks.sizes import Sizes
from benchmarks.stores import Stores

NAME = "trl"
NOTHING, OURS, TRANSFORMERS = "report_to none", "TRLTrainer, with rollouts", "report_to mlflow"
COMPLETIONS, GROUP, TOKENS = 64, 8, 32
"""Completions of a step, those to a prompt, and the tokens of each."""
_SAME: dict[str, Any] = {
    "num_generations": GROUP,
    "max_completion_length": TOKENS,
    "learning_rate": 1e-4,
    "logging_steps": 1,
}
"""Settings of each way, which TRL calls as we do."""
WARM_UP = 5
"""Steps that do not count: the first ones compile and allocate."""
COLUMNS = (
    Column("store", "store"),
    Column("way", "reported by"),
    Column("step_ms", "step p50 ms", ",.1f"),
    Column("p90_ms", "p90 ms", ",.1f"),
    Column("ratio", "relative to none", ".3f"),
    Column("peak_mb", "peak RSS MB", ",.0f"),
)
NOTE = (
    "GRPO on one CPU thread, {steps} steps of {completions} completions with {tokens} tokens, each "
    "step logged; medians of {rounds} rounds, in each of which the rows follow one another in "
    "fresh processes. A step is the time from one call of the reward function to the next, so it "
    "has all that is done for reporting. Ours keeps the completions too, as a table and 8 traces a "
    "step; MLflow's callback of transformers has metrics and params only. Ratios are medians of "
    "the rounds' ratios."
)


def measure(way: str, uri: str, steps: int) -> dict[str, float]:
    """Train once; runs in a process of its own."""
    import os
    import time

    os.environ["HF_HUB_OFFLINE"] = "1"  # else TRL sends telemetry
    os.environ["MLFLOW_TRACKING_URI"] = uri
    import torch

    torch.set_num_threads(1)
    called: list[int] = []

    def reward(completions: list[str], **_: Any) -> list[float]:
        called.append(time.perf_counter_ns())
        return [float(one.count("7")) for one in completions]

    rows = [{"prompt": f"{a}+{b}="} for a in range(8) for b in range(8)]
    (_train_ours if way == OURS else _train_plain)(way, rows, reward, steps)
    times = [after - before for before, after in pairwise(called)][WARM_UP:]
    return {
        "step_ms": percentile(times, 50) / 1e6,
        "p90_ms": percentile(times, 90) / 1e6,
        "peak_mb": memory_mb("VmHWM"),
    }


def _train_ours(_way: str, rows: list[dict[str, str]], reward: Any, steps: int) -> None:
    import asyncio

    from orbiter.train import TRLConfig, TRLTrainer
    from orbiter_mlflow import MLflowTrainerMixin

    class Tracked(MLflowTrainerMixin, TRLTrainer):
        """Tracked."""

    trainer = Tracked(
        TRLConfig(
            method="grpo",
            max_steps=steps,
            batch_size=COMPLETIONS,
            **_SAME,
            args={"disable_tqdm": True},
        )
    )
    trainer.check_agent(_agent())
    trainer.check_dataset(rows)
    trainer.check_reward(reward)
    trainer.mark_validated()
    asyncio.run(trainer.train())


def _train_plain(way: str, rows: list[dict[str, str]], reward: Any, steps: int) -> None:
    import trl
    from datasets import Dataset

    model, tokenizer = _agent()
    trl.GRPOTrainer(
        model=model,
        reward_funcs=[reward],
        args=trl.GRPOConfig(
            output_dir="out",
            max_steps=steps,
            per_device_train_batch_size=COMPLETIONS,
            **_SAME,
            save_strategy="no",
            bf16=False,
            dataloader_pin_memory=False,
            disable_tqdm=True,
            report_to="mlflow" if way == TRANSFORMERS else "none",
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    ).train()


def _agent() -> tuple[Any, Any]:
    from orbiter_mlflow.cli.demo_model import tiny_agent

    return tiny_agent(0, width=128, positions=128)


def run(stores: Stores, sizes: Sizes, say: Callable[[str], None]) -> Result:
    note = NOTE.format(
        steps=sizes.trl_steps, completions=COMPLETIONS, tokens=TOKENS, rounds=sizes.trl_rounds
    )
    raw: list[dict[str, Any]] = []
    if importlib.util.find_spec("trl") is None:
        say("skipped: TRL is not installed (pip install 'orbiter[bench]')")
        return Result(NAME, "Tracking a training by TRL", note, COLUMNS, [], [], [])
    with stores.server() as server:
        for turn in range(1, sizes.trl_rounds + 1):
            for store, way in _rows(sizes.stores):
                uri = server if store == "server" else stores.sqlite()
                row = fresh(measure, stores.folder, way, uri, sizes.trl_steps).value
                raw.append({"store": store, "way": way, "round": turn, **row})
                say(f"round {turn}: {store}, {way}: {row['step_ms']:.1f} ms a step")
    rows = [
        medians(_of(raw, store, way)) | {"ratio": _ratio(raw, (store, way), ("-", NOTHING))}
        for store, way in _rows(sizes.stores)
    ]
    checks = [check for store in sizes.stores for check in _checks(raw, store)]
    return Result(NAME, "Tracking a training by TRL", note, COLUMNS, list(rows), checks, list(raw))


def _rows(stores: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    yield "-", NOTHING
    for store in stores:
        yield store, OURS
        yield store, TRANSFORMERS


def _of(raw: list[dict[str, Any]], store: str, way: str) -> list[dict[str, Any]]:
    return [row for row in raw if (row["store"], row["way"]) == (store, way)]


def _ratio(raw: list[dict[str, Any]], one: tuple[str, str], other: tuple[str, str]) -> float:
    """Median of the rounds' ratios: the load of the machine changes between rounds."""
    pairs = zip(_of(raw, *one), _of(raw, *other), strict=True)
    return float(statistics.median(a["step_ms"] / b["step_ms"] for a, b in pairs))


def _checks(raw: list[dict[str, Any]], store: str) -> Iterator[Check]:
    ours, nothing = (store, OURS), ("-", NOTHING)
    yield Check(f"{store}: a step, relative to none", _ratio(raw, ours, nothing), "<=", 1.01)
    yield Check(
        f"{store}: a step, relative to transformers' own callback",
        _ratio(raw, ours, (store, TRANSFORMERS)),
        "<=",
        1,
    )
    more = statistics.median(
        a["peak_mb"] - b["peak_mb"]
        for a, b in zip(_of(raw, *ours), _of(raw, *nothing), strict=True)
    )
    yield Check(f"{store}: memory of tracking, MB", more, "<=", 20)
