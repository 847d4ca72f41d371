"""The metrics of a run: keys, steps, histories, and how evaluations are told apart."""

import asyncio
import json
import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient

from orbiter.train import TrainMetrics
from orbiter_mlflow import names
from trainers import Backend, Tracked, history, reporting, stored, tracked, trained


class Named(list[int]):
    """Data with a name of their own."""

    def __init__(self, name: str, *items: int) -> None:
        super().__init__(items)
        self.name = name


# -- train ---------------------------------------------------------------------------------------


async def test_a_mapping_logs_its_keys_and_metrics_all_their_fields(sqlite_uri: str) -> None:
    body = reporting(
        ({"loss": 3.0}, 1),
        (TrainMetrics(2.0, 0.5, 2, {"lr": 0.1}), 2),
        result=TrainMetrics(1.0, 0.9, 5),
    )
    trainer = await trained(tracked(sqlite_uri, body=body))
    assert history(sqlite_uri, trainer, "train/loss") == [(1, 3.0), (2, 2.0), (5, 1.0)]
    assert history(sqlite_uri, trainer, "train/accuracy") == [(2, 0.5), (5, 0.9)]
    assert history(sqlite_uri, trainer, "train/steps") == [(2, 2.0), (5, 5.0)]
    assert history(sqlite_uri, trainer, "train/lr") == [(2, 0.1)]


@pytest.mark.parametrize(
    ("steps", "reported", "final"),
    [(0, [5], 5), (9, [5], 9), (3, [5], 5), (2, [8, 1], 8), (0, [], 0), (-4, [], 0)],
)
async def test_the_final_metrics_are_the_latest(
    sqlite_uri: str, steps: int, reported: list[int], final: int
) -> None:
    reports = [({"loss": 9.0}, step) for step in reported]
    body = reporting(*reports, result=TrainMetrics(loss=1.0, steps=steps))
    trainer = await trained(tracked(sqlite_uri, body=body))
    assert history(sqlite_uri, trainer, "train/loss")[-1] == (final, 1.0)
    assert stored(sqlite_uri, trainer).data.metrics["train/loss"] == 1.0


async def test_equal_reports_at_one_step_and_instant_all_land(sqlite_uri: str) -> None:
    async def body(trainer: Backend) -> TrainMetrics:
        for _ in range(40):
            trainer.report({"reward": 1.0}, step=1)
            trainer.report({"reward": 1.0}, step=2)
        return TrainMetrics()

    trainer = await trained(tracked(sqlite_uri, body=body))
    points = history(sqlite_uri, trainer, "train/reward")
    assert sorted(points) == [(1, 1.0)] * 40 + [(2, 1.0)] * 40


async def test_of_one_step_the_last_report_is_the_latest(sqlite_uri: str) -> None:
    body = reporting(*[({"lr": value}, 7) for value in (9.0, 8.0, 1.0)])
    trainer = await trained(tracked(sqlite_uri, body=body))
    assert stored(sqlite_uri, trainer).data.metrics["train/lr"] == 1.0


async def test_a_long_history_arrives_in_order(sqlite_uri: str) -> None:
    body = reporting(*[({"loss": 1 / (step + 1), "n": step}, step) for step in range(2500)])
    trainer = await trained(tracked(sqlite_uri, body=body))
    points = history(sqlite_uri, trainer, "train/n")
    assert points == [(step, float(step)) for step in range(2500)]


async def test_numbers_of_all_kinds_are_metrics(sqlite_uri: str) -> None:
    extra = {
        "bool": True,
        "decimal": Decimal("0.5"),
        "fraction": Fraction(1, 4),
        "numpy": np.float32(0.25),
        "array": np.array(3),
        "huge": 10**30,
        "past float": 10**400,
    }
    trainer = await trained(tracked(sqlite_uri, body=reporting((extra, 1))))
    metrics = stored(sqlite_uri, trainer).data.metrics
    assert {key: metrics[f"train/{key}"] for key in list(extra)[:6]} == {
        "bool": 1.0,
        "decimal": 0.5,
        "fraction": 0.25,
        "numpy": 0.25,
        "array": 3.0,
        "huge": 1e30,
    }
    assert metrics["train/past float"] > 1e308


async def test_extra_nests_and_never_hides_a_field(sqlite_uri: str) -> None:
    extra = {"rewards": {"mean": 0.5, "by": {"tool": 2}}, "loss": 7.0, "steps": {"max": 8}}
    body = reporting(result=TrainMetrics(1.0, 0.0, 4, extra))
    trainer = await trained(tracked(sqlite_uri, body=body))
    assert stored(sqlite_uri, trainer).data.metrics == {
        "train/loss": 1.0,
        "train/accuracy": 0.0,
        "train/steps": 4.0,
        "train/rewards/mean": 0.5,
        "train/rewards/by/tool": 2.0,
        "train/extra/loss": 7.0,
        "train/extra/steps/max": 8.0,
    }


async def test_what_is_no_number_becomes_a_tag(sqlite_uri: str) -> None:
    extra = {"phase": "warmup", "shape": [2, 3], "best": {"checkpoint": "a.pt"}, "none": None}
    trainer = await trained(tracked(sqlite_uri, body=reporting((extra, 1))))
    run = stored(sqlite_uri, trainer)
    assert run.data.tags["orbiter.train.phase"] == "warmup"
    assert run.data.tags["orbiter.train.shape"] == "[2,3]"
    assert run.data.tags["orbiter.train.best.checkpoint"] == "a.pt"
    assert run.data.tags["orbiter.train.none"] == "null"
    assert set(run.data.metrics) == {"train/loss", "train/accuracy", "train/steps"}


async def test_the_last_text_stands(sqlite_uri: str) -> None:
    body = reporting(*[({"phase": phase}, step) for step, phase in enumerate("aabba")])
    trainer = await trained(tracked(sqlite_uri, body=body))
    assert stored(sqlite_uri, trainer).data.tags["orbiter.train.phase"] == "a"


async def test_nan_and_infinity_are_listed(sqlite_uri: str) -> None:
    reports: list[tuple[Any, int]] = [
        ({"loss": 1.0, "kl": float("nan")}, 1),
        ({"loss": float("inf"), "kl": float("nan")}, 1),
        ({"loss": 1.0, "kl": 0.5, "fine": 1.0}, 2),
    ]
    trainer = await trained(tracked(sqlite_uri, body=reporting(*reports)))
    run = stored(sqlite_uri, trainer)
    assert json.loads(run.data.tags[names.NONFINITE]) == ["train/kl", "train/loss"]
    assert names.QUARANTINED not in run.data.tags
    assert run.data.metrics["train/kl"] == 0.5
    points = history(sqlite_uri, trainer, "train/kl")
    assert [step for step, _ in points] == [1, 1, 2]
    assert [math.isnan(value) for _, value in points] == [True, True, False]


async def test_renamed_keys_are_told(sqlite_uri: str) -> None:
    body = reporting(({"pass@1": 0.5, "plain": 1.0}, 1))
    trainer = await trained(tracked(sqlite_uri, body=body))
    run = stored(sqlite_uri, trainer)
    assert run.data.metrics["train/pass:40:1"] == 0.5
    assert json.loads(run.data.tags[names.RENAMED]) == {"train/pass:40:1": "train/pass@1"}


# -- eval ----------------------------------------------------------------------------------------


async def test_evaluations_stand_at_the_global_step(sqlite_uri: str) -> None:
    async def body(trainer: Backend) -> TrainMetrics:
        for step in (10, 20):
            trainer.report({"loss": 1.0}, step=step)
            trainer.scores.accuracy = step / 100
            await trainer.evaluate()
        return TrainMetrics(steps=30)

    trainer = tracked(sqlite_uri, body=body)
    trainer.scores.accuracy = 0.0
    await trainer.evaluate()
    await trained(trainer)
    trainer.scores.accuracy = 0.9
    await trainer.evaluate()
    points = history(sqlite_uri, trainer, "eval/accuracy")
    assert points == [(0, 0.0), (10, 0.1), (20, 0.2), (30, 0.9)]
    assert stored(sqlite_uri, trainer).info.status == "FINISHED"


async def test_different_data_at_one_step_do_not_share_a_key(sqlite_uri: str) -> None:
    class Summing(Tracked):
        async def evaluate(self, test_data: Any = None) -> TrainMetrics:
            return TrainMetrics(loss=float(sum([9] if test_data is None else test_data)))

    trainer = tracked(sqlite_uri, kind=Summing)
    trainer.check_dataset([1], [9])
    await trainer.evaluate()
    await trainer.evaluate([1, 1])
    await trainer.evaluate(Named("hard", 5))  # gone at once: the next may be given its id
    await trainer.evaluate(Named("hard", 6))
    await trainer.evaluate(Named("2", 7))
    await trainer.evaluate([1, 1])
    trainer.mark_validated()
    await trainer.train()
    await trainer.evaluate([1, 1])
    await trainer.evaluate([9])
    losses = {
        key.removeprefix("eval/").removesuffix("loss"): history(sqlite_uri, trainer, key)
        for key in stored(sqlite_uri, trainer).data.metrics
        if key.startswith("eval/") and "loss" in key
    }
    assert losses == {
        "": [(0, 9.0), (3, 9.0)],
        "2/": [(0, 2.0), (0, 2.0), (3, 2.0)],
        "hard/": [(0, 5.0)],
        "hard/2/": [(0, 6.0)],
        "2/loss:2": [(0, 7.0)],
    }


async def test_the_test_data_of_the_checks_keep_their_name(sqlite_uri: str) -> None:
    trainer = tracked(sqlite_uri)
    held_out = Named("held-out @home", 2)
    trainer.check_dataset(Named("all", 1), held_out)
    await trainer.evaluate()
    await trainer.evaluate(held_out)
    key = "eval/held-out :40:home/accuracy"
    assert history(sqlite_uri, trainer, key) == [(0, 0.75), (0, 0.75)]


async def test_two_evaluations_at_once(sqlite_uri: str) -> None:
    class Slow(Tracked):
        async def evaluate(self, test_data: Any = None) -> TrainMetrics:
            await asyncio.sleep(0)
            return TrainMetrics(loss=float(test_data[0]))

    trainer = tracked(sqlite_uri, kind=Slow)
    await asyncio.gather(*(trainer.evaluate([number]) for number in range(4)))
    metrics = stored(sqlite_uri, trainer).data.metrics
    assert sorted(v for key, v in metrics.items() if key.endswith("loss")) == [0, 1, 2, 3]


async def test_a_second_run_has_metrics_of_its_own(server_uri: str) -> None:
    first, second = [
        await trained(tracked(server_uri, body=reporting(({"x": float(i)}, i)))) for i in (1, 2)
    ]
    assert history(server_uri, first, "train/x") == [(1, 1.0)]
    assert history(server_uri, second, "train/x") == [(2, 2.0)]
    assert MlflowClient(server_uri).get_run(first.run_id).info.status == "FINISHED"
