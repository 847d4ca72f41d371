"""What tracking costs a training by TRL: the same GRPO, reported in three ways."""

import contextlib
import importlib.util
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.processes import percentile
from benchmarks.results import Check, Column, Result
from benchmarks.sizes import Sizes
from benchmarks.stores import Stores
from benchmarks.turns import Loop
from orbiter_mlflow import MLflowSettings

NAME = "trl"
NOTHING, OURS, TRANSFORMERS = "report_to none", "TRLTrainer, with rollouts", "report_to mlflow"
BASE, AGAIN = ("-", NOTHING), ("-", f"{NOTHING}, again")
COMPLETIONS, GROUP, TOKENS = 64, 8, 32
"""Completions of a step, those to a prompt, and the tokens of each."""
_SAME: dict[str, Any] = {
    "num_generations": GROUP,
    "max_completion_length": TOKENS,
    "learning_rate": 1e-4,
    "logging_steps": 1,
}
"""Settings of each way, which TRL calls as we do."""
_ENDLESS = 1_000_000
WARM_UP = 8
"""Steps that do not count: the first ones compile and allocate."""
COLUMNS = (
    Column("store", "store"),
    Column("way", "reported by"),
    Column("step_ms", "mean step ms", ",.1f"),
    Column("p90_ms", "p90 ms", ",.1f"),
    Column("ratio", "relative to none", ".3f"),
    Column("peak_mb", "peak RSS MB", ",.0f"),
)
NOTE = (
    "GRPO on one CPU thread, a step with {completions} completions of {tokens} tokens, each step "
    "logged; {rounds} fresh processes for each row. Those of one round take {turns} turns of "
    "{seconds:g} s each: the others are stopped meanwhile, with their delivery processes. A step "
    "is the time from one call of the reward function to the next, so it has all that is done for "
    "reporting. Ours keeps the completions too: a table a step, and one trace a second after the "
    "first 64; MLflow's callback of transformers has metrics and params only. Ratios are medians "
    "over all turns, of mean steps. There are two trainings without reports, and the ratios are "
    "relative to both: how far their own are from 1 shows how exact they are."
)


def train(file: str, way: str, uri: str, traces_per_minute: float) -> None:
    """Train until somebody ends it; runs in a process of its own, as a loop of `turns`."""
    import os
    import time

    os.environ["HF_HUB_OFFLINE"] = "1"  # else TRL sends telemetry
    os.environ["MLFLOW_TRACKING_URI"] = uri
    os.environ["ORBITER_MLFLOW_TRACES_PER_MINUTE"] = str(traces_per_minute)
    import torch

    torch.set_num_threads(1)
    rows = [{"prompt": f"{a}+{b}="} for a in range(8) for b in range(8)]
    with Path(file).open("a", buffering=1) as times:

        def reward(completions: list[str], **_: Any) -> list[float]:
            times.write(f"{time.monotonic_ns()}\n")
            return [float(one.count("7")) for one in completions]

        (_train_ours if way == OURS else _train_plain)(way, rows, reward)


def _train_ours(_way: str, rows: list[dict[str, str]], reward: Any) -> None:
    import asyncio

    from orbiter.train import TRLConfig, TRLTrainer
    from orbiter_mlflow import MLflowTrainerMixin

    class Tracked(MLflowTrainerMixin, TRLTrainer):
        """Tracked."""

    trainer = Tracked(
        TRLConfig(
            method="grpo",
            max_steps=_ENDLESS,
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


def _train_plain(way: str, rows: list[dict[str, str]], reward: Any) -> None:
    import trl
    from datasets import Dataset

    model, tokenizer = _agent()
    trl.GRPOTrainer(
        model=model,
        reward_funcs=[reward],
        args=trl.GRPOConfig(
            output_dir="out",
            max_steps=_ENDLESS,
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
        seconds=sizes.trl_seconds,
        completions=COMPLETIONS,
        tokens=TOKENS,
        rounds=sizes.trl_rounds,
        turns=sizes.trl_turns,
    )
    if importlib.util.find_spec("trl") is None:
        say("skipped: TRL is not installed (pip install 'orbiter[bench]')")
        return Result(NAME, "Tracking a training by TRL", note, COLUMNS, [], [], [])
    turns: dict[tuple[str, str], list[list[int]]] = {}
    peaks: dict[tuple[str, str], list[float]] = {}
    with stores.server() as server:
        for number in range(sizes.trl_rounds):
            say(f"round {number + 1} of {sizes.trl_rounds}")
            _round(stores.folder / f"trl-{number}", stores, server, sizes, turns, peaks)
    rows = [
        {"store": store, "way": way, "peak_mb": statistics.median(peaks[store, way])}
        | _steps(turns[store, way])
        | {"ratio": _ratio(turns, (store, way))}
        for store, way in _rows(sizes.stores)
    ]
    checks = [check for store in sizes.stores for check in _checks(turns, peaks, store)]
    raw = [
        {"store": store, "way": way, "steps_ms": [[step / 1e6 for step in one] for one in found]}
        for (store, way), found in turns.items()
    ]
    return Result(NAME, "Tracking a training by TRL", note, COLUMNS, list(rows), checks, list(raw))


def _round(
    folder: Path,
    stores: Stores,
    server: str,
    sizes: Sizes,
    turns: dict[tuple[str, str], list[list[int]]],
    peaks: dict[tuple[str, str], list[float]],
) -> None:
    """Add the turns of a process for each row, and its memory."""
    folder.mkdir()
    ways = list(_rows(sizes.stores))
    # The default, by the time that a training runs: it is stopped for most of each minute.
    traces = MLflowSettings(spool_dir=folder).traces_per_minute / len(ways)
    loops: dict[tuple[str, str], Loop] = {}
    with contextlib.ExitStack() as running:
        for number, (store, way) in enumerate(ways):
            uri = server if store == "server" else stores.sqlite()
            loop = Loop(train, folder / f"{number}", way, uri, traces, warm_up=WARM_UP)
            running.callback(loop.end)
            loops[store, way] = loop
        for turn in range(sizes.trl_turns):
            for key in list(loops) if turn % 2 else list(reversed(loops)):
                turns.setdefault(key, []).append(loops[key].turn(sizes.trl_seconds))
        for key, loop in loops.items():
            peaks.setdefault(key, []).append(loop.peak_mb())


def _rows(stores: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    yield BASE
    yield AGAIN
    for store in stores:
        yield store, OURS
        yield store, TRANSFORMERS


def _steps(turns: list[list[int]]) -> dict[str, float]:
    times = [step / 1e6 for turn in turns for step in turn]
    return {"step_ms": statistics.mean(times), "p90_ms": percentile(times, 90)}


def _ratio(
    turns: Mapping[tuple[str, str], list[list[int]]],
    one: tuple[str, str],
    others: Sequence[tuple[str, str]] = (BASE, AGAIN),
) -> float:
    """Median over the turns: something else may have disturbed one of them."""
    found = []
    for mine, *theirs in zip(turns[one], *map(turns.__getitem__, others), strict=True):
        if mine and all(theirs):
            found.append(statistics.mean(mine) / statistics.mean(map(statistics.mean, theirs)))
    return float(statistics.median(found))


def _checks(
    turns: Mapping[tuple[str, str], list[list[int]]],
    peaks: Mapping[tuple[str, str], list[float]],
    store: str,
) -> Iterator[Check]:
    ours = (store, OURS)
    yield Check(f"{store}: a step, relative to none", _ratio(turns, ours), "<=", 1.01)
    other = _ratio(turns, ours, [(store, TRANSFORMERS)])
    yield Check(f"{store}: a step, relative to transformers' own callback", other, "<=", 1)
    rounds = zip(peaks[ours], peaks[BASE], peaks[AGAIN], strict=True)
    more = statistics.median(mine - (one + other) / 2 for mine, one, other in rounds)
    yield Check(f"{store}: memory of tracking, MB", more, "<=", 20)
