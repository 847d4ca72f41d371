"""The metrics of a run: keys, steps, histories, and how evaluations are told apart."""

import asyncio
import gc
import json
import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient

from orbiter.train import TrainerError, TrainMetrics
from orbiter_mlflow import names
from orbiter_mlflow.delivery.records import Dataset
from orbiter_mlflow.tracking.datasets import describe
from trainers import (
    Backend,
    Tracked,
    history,
    recorded,
    reporting,
    run_of,
    stored,
    tracked,
    trained,
)
from waiting import eventually


class Named(list[int]):
    """Data with a name of their own."""

    def __init__(self, name: str, *items: int) -> None:
        super().__init__(items)
        self.name = name


# -- train ---------------------------------------------------------------------------------------


async def test_a_mapping_logs_its_keys_and_metrics_those_fields_that_were_set(
    sqlite_uri: str,
) -> None:
    body = reporting(
        ({"loss": 3.0}, 1),
        (TrainMetrics(2.0, 0.5, 2, {"lr": 0.1}), 2),
        result=TrainMetrics(1.0, 0.9, 5),
    )
    trainer = await trained(tracked(sqlite_uri, body=body))
    assert history(sqlite_uri, trainer, "train/loss") == [(1, 3.0), (2, 2.0)]
    assert history(sqlite_uri, trainer, "train/accuracy") == [(2, 0.5)]
    assert history(sqlite_uri, trainer, "train/steps") == [(2, 2.0)]
    assert history(sqlite_uri, trainer, "train/lr") == [(2, 0.1)]
    finals = {f"train/final/{key}" for key in ("loss", "accuracy", "steps")}
    assert finals == {key for key in stored(sqlite_uri, trainer).data.metrics if "final" in key}


@pytest.mark.parametrize(
    ("steps", "reported", "final"),
    [(0, [5], 5), (9, [5], 9), (3, [5], 5), (2, [8, 1], 8), (0, [], 0), (-4, [], 0)],
)
async def test_the_result_stands_at_the_last_step_beside_the_curve(
    sqlite_uri: str, steps: int, reported: list[int], final: int
) -> None:
    reports = [({"loss": 9.0}, step) for step in reported]
    body = reporting(*reports, result=TrainMetrics(loss=1.0, accuracy=0.5, steps=steps))
    trainer = await trained(tracked(sqlite_uri, body=body))
    curve = history(sqlite_uri, trainer, "train/loss")
    if reported:
        assert curve == [(step, 9.0) for step in sorted(reported)]
        assert history(sqlite_uri, trainer, "train/final/loss") == [(final, 1.0)]
    else:
        assert curve == [(final, 1.0)]
    assert history(sqlite_uri, trainer, "train/accuracy") == [(final, 0.5)]
    metrics = stored(sqlite_uri, trainer).data.metrics
    assert metrics["train/loss"] == (9.0 if reported else 1.0)
    assert metrics["train/steps"] == steps
    assert "train/final/accuracy" not in metrics


async def test_a_nested_result_finds_its_curves(sqlite_uri: str) -> None:
    reward = {"rewards": {"mean": 1.0}, "text": "a"}
    result = TrainMetrics(extra={"rewards": {"mean": 0.4, "max": 2.0}, "text": "b"})
    body = reporting((reward, 1), (reward, 2), result=result)
    trainer = await trained(tracked(sqlite_uri, body=body))
    run = stored(sqlite_uri, trainer)
    assert run.data.metrics == {
        "train/rewards/mean": 1.0,
        "train/final/rewards/mean": 0.4,
        "train/rewards/max": 2.0,
    }
    assert run.data.tags["orbiter.train.text"] == "b"


async def test_a_prefix_of_others_is_not_doubled(sqlite_uri: str) -> None:
    async def body(trainer: Backend) -> TrainMetrics:  # as a callback of Hugging Face's does
        for step in (1, 2):
            trainer.report({"loss": 2.0 / step, "epoch": step / 2}, step=step)
            trainer.report({"eval_loss": 3.0 / step, "epoch": step / 2}, step=step, phase="eval")
        trainer.report({"train_loss": 1.5, "train_runtime": 9.0, "epoch": 1.0}, step=2)
        return TrainMetrics(loss=1.5, steps=2)

    trainer = await trained(tracked(sqlite_uri, body=body))
    assert history(sqlite_uri, trainer, "train/loss") == [(1, 2.0), (2, 1.0)]
    assert history(sqlite_uri, trainer, "eval/loss") == [(1, 3.0), (2, 1.5)]
    run = stored(sqlite_uri, trainer)
    assert {key: run.data.metrics[key] for key in run.data.metrics if "epoch" not in key} == {
        "train/loss": 1.0,
        "train/train_loss": 1.5,
        "train/runtime": 9.0,
        "train/final/loss": 1.5,
        "train/steps": 2.0,
        "eval/loss": 1.5,
    }
    assert json.loads(run.data.tags[names.RENAMED]) == {
        "eval/loss": "eval/eval_loss",
        "train/runtime": "train/train_runtime",
    }


@pytest.mark.parametrize("callback_first", [True, False])
async def test_a_measurement_has_one_key_whoever_comes_first(
    callback_first: bool, sqlite_uri: str
) -> None:
    trainer = tracked(sqlite_uri)
    trainer.check_dataset([1], [2])
    for step in (1, 2, 3):
        if (step == 1) == callback_first:
            trainer.report({"eval_accuracy": step / 4}, step=step, phase="eval")
        else:
            trainer.at_step(step)
            trainer.scores = TrainMetrics(accuracy=step / 4)
            await trainer.evaluate()
    both = {"eval_accuracy": 0.1, "accuracy": 1.0}
    trainer.report(both, step=4, phase="eval")
    assert history(sqlite_uri, trainer, "eval/accuracy") == [(n, n / 4) for n in (1, 2, 3, 4)]
    assert stored(sqlite_uri, trainer).data.metrics == {
        "eval/accuracy": 1.0,
        "eval/eval_accuracy": 0.1,
    }


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
        "train/accuracy": 0.0,  # set to it
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
    assert run.data.metrics == {}  # of a result whose fields nobody set


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


async def test_an_evaluation_stands_at_the_step_that_was_said(sqlite_uri: str) -> None:
    async def body(trainer: Backend) -> TrainMetrics:
        for epoch in range(3):
            trainer.at_step(epoch)
            trainer.scores.accuracy = epoch / 10
            scores = await trainer.evaluate()
            trainer.report({"seen": scores.accuracy}, step=epoch)
        trainer.at_step(1)  # an old checkpoint again
        await trainer.evaluate([7])
        return TrainMetrics()

    trainer = await trained(tracked(sqlite_uri, body=body))
    assert history(sqlite_uri, trainer, "eval/accuracy") == [(0, 0.0), (1, 0.1), (2, 0.2)]
    assert history(sqlite_uri, trainer, "train/seen") == [(0, 0.0), (1, 0.1), (2, 0.2)]
    assert history(sqlite_uri, trainer, "eval/2/accuracy") == [(1, 0.2)]
    trainer.scores.accuracy = 0.9
    await trainer.evaluate()
    assert history(sqlite_uri, trainer, "eval/accuracy")[-1] == (2, 0.9)


async def test_an_evaluation_stands_at_the_step_at_which_it_began(sqlite_uri: str) -> None:
    class Slow(Tracked):
        async def evaluate(self, test_data: Any = None) -> TrainMetrics:
            await go_on.wait()
            return TrainMetrics(accuracy=0.5)

    async def body(trainer: Backend) -> TrainMetrics:
        under_way = []
        for step in (10, 20):
            trainer.report({"loss": 1.0}, step=step)
            under_way.append(asyncio.create_task(trainer.evaluate()))
            await asyncio.sleep(0)
        trainer.report({"loss": 1.0}, step=30)
        go_on.set()
        await asyncio.gather(*under_way)
        return TrainMetrics()

    go_on = asyncio.Event()
    trainer = await trained(tracked(sqlite_uri, body=body, kind=Slow))
    assert history(sqlite_uri, trainer, "eval/accuracy") == [(10, 0.5), (20, 0.5)]


async def test_a_failed_evaluation_leaves_the_next_one_its_own_step(sqlite_uri: str) -> None:
    class Failing(Tracked):
        async def evaluate(self, test_data: Any = None) -> TrainMetrics:
            if test_data == "bad":
                raise ValueError("bad data")
            return TrainMetrics(accuracy=0.5)

    trainer = tracked(sqlite_uri, kind=Failing)
    with pytest.raises(TrainerError):
        await trainer.evaluate("bad")
    trainer.at_step(5)
    await trainer.evaluate()
    assert history(sqlite_uri, trainer, "eval/accuracy") == [(5, 0.5)]


@pytest.mark.parametrize("step", [0.5, "x", None])
def test_a_step_that_is_none_is_told_and_moves_nothing(
    sqlite_uri: str, step: Any, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = tracked(sqlite_uri)
    trainer.at_step(3)
    trainer.at_step(step)
    trainer.report({"accuracy": 1.0}, step=2, phase="eval")
    assert "a step must be" in caplog.text
    assert history(sqlite_uri, trainer, "eval/accuracy") == [(2, 1.0)]


async def test_an_evaluation_is_reported_where_nobody_can_await(sqlite_uri: str) -> None:
    async def body(trainer: Backend) -> TrainMetrics:
        trainer.report({"loss": 1.0}, step=4)
        trainer.report({"loss": 2.0}, step=4, phase="eval")
        trainer.report(TrainMetrics(loss=3.0), step=4, phase="eval", data=[5, 6])
        return TrainMetrics()

    trainer = tracked(sqlite_uri, body=body)
    trainer.check_dataset([1], [2])
    trainer.report({"loss": 9.0}, step=0, phase="eval")  # before: it starts the run
    run_id = stored(sqlite_uri, trainer).info.run_id
    await trained(trainer)
    trainer.report({"loss": 0.5}, step=8, phase="eval", data=[2])  # those of the checks, and after
    run = stored(sqlite_uri, trainer)
    assert run.info.run_id == run_id
    assert history(sqlite_uri, trainer, "train/loss") == [(4, 1.0)]
    assert history(sqlite_uri, trainer, "eval/loss") == [(0, 9.0), (4, 2.0), (8, 0.5)]
    assert history(sqlite_uri, trainer, "eval/2/loss") == [(4, 3.0)]
    assert run.info.status == "FINISHED"


async def test_a_run_with_reported_evaluations_alone_is_finished(sqlite_uri: str) -> None:
    trainer = tracked(sqlite_uri)
    trainer.report({"accuracy": 0.5}, step=0, phase="eval")
    run_id = stored(sqlite_uri, trainer).info.run_id
    del trainer
    gc.collect()
    eventually(lambda: run_of(sqlite_uri, run_id).info.status == "FINISHED")


async def test_a_reported_evaluation_that_is_returned_too_bends_nothing(sqlite_uri: str) -> None:
    class Calling(Tracked):
        async def evaluate(self, test_data: Any = None) -> TrainMetrics:
            self.report({"eval_accuracy": 0.5}, step=7, phase="eval")  # a callback inside
            return TrainMetrics(extra={"eval_accuracy": 0.5})

    trainer = tracked(sqlite_uri, kind=Calling)
    trainer.at_step(7)
    await trainer.evaluate()
    assert history(sqlite_uri, trainer, "eval/accuracy") == [(7, 0.5), (7, 0.5)]


# -- which data ----------------------------------------------------------------------------------


class Summing(Tracked):
    """Its loss tells the data."""

    held_out: Any = (9,)

    def check_dataset(self, train_data: Any, test_data: Any = None) -> None:
        self.held_out = test_data

    async def evaluate(self, test_data: Any = None) -> TrainMetrics:
        return TrainMetrics(loss=float(sum(self.held_out if test_data is None else test_data)))


def losses(uri: str, trainer: Tracked) -> dict[str, list[tuple[int, float]]]:
    """The history of the loss by what is between `eval/` and it."""
    return {
        key.removeprefix("eval/").removesuffix("loss"): history(uri, trainer, key)
        for key in stored(uri, trainer).data.metrics
        if key.startswith("eval/")
    }


def data_of(uri: str, trainer: Tracked) -> dict[str, str]:
    """The names of the data by the prefix of their keys, as the tag tells it."""
    table = json.loads(stored(uri, trainer).data.tags[names.EVALUATED_DATA])
    assert all(len(data["digest"]) == 32 for data in table.values())
    return {prefix: data["name"] for prefix, data in table.items()}


async def test_the_data_decide_the_key(sqlite_uri: str) -> None:
    trainer = tracked(sqlite_uri, kind=Summing)
    trainer.check_dataset([1, 2, 3], [9])
    await trainer.evaluate()
    await trainer.evaluate([1, 1])
    await trainer.evaluate(Named("hard", 5))  # gone at once: the next may be given its id
    await trainer.evaluate(Named("hard", 6, 7))
    await trainer.evaluate(Named("2", 7))
    await trainer.evaluate([1, 1])
    trainer.mark_validated()
    await trainer.train()
    await trainer.evaluate([8])
    await trainer.evaluate([1, 1])
    await trainer.evaluate([9])
    await trainer.evaluate([1, 2, 3])
    await trainer.evaluate(Named("hard", 5))
    assert losses(sqlite_uri, trainer) == {
        "": [(0, 9.0), (3, 9.0)],
        "2/": [(0, 2.0), (0, 2.0), (3, 2.0)],
        "hard/": [(0, 5.0), (3, 5.0)],
        "hard/2/": [(0, 13.0)],
        "2/2/": [(0, 7.0)],
        "3/": [(3, 8.0)],
        "train/": [(3, 6.0)],
    }
    assert data_of(sqlite_uri, trainer) == {
        "eval": "test_data",
        "eval/2": "test_data",
        "eval/hard": "hard",
        "eval/hard/2": "hard",
        "eval/2/2": "2",
        "eval/3": "test_data",
        "eval/train": "test_data",
    }


@pytest.mark.parametrize("epochs", [0, 1, 3])
async def test_a_test_score_never_lands_on_the_validation_curve(
    sqlite_uri: str, epochs: int
) -> None:
    async def body(trainer: Backend) -> TrainMetrics:
        for epoch in range(epochs):
            trainer.at_step(epoch)
            await trainer.evaluate()
        return TrainMetrics(steps=10)

    trainer = tracked(sqlite_uri, body=body, kind=Summing)
    trainer.check_dataset([1], [9])
    await trained(trainer)
    await trainer.evaluate([5])
    found = losses(sqlite_uri, trainer)
    assert found.pop("2/") == [(10, 5.0)]
    assert found == ({"": [(epoch, 9.0) for epoch in range(epochs)]} if epochs else {})


async def test_settings_name_data_by_their_digest_or_name(sqlite_uri: str) -> None:
    unnamed = describe([4, 4], role="eval")
    assert unnamed is not None
    given = {unnamed.record.digest: "easy", "org/set": "hard@1"}
    trainer = tracked(sqlite_uri, kind=Summing, eval_names=given)
    await trainer.evaluate([4, 4])
    await trainer.evaluate(Named("org/set", 3))
    await trainer.evaluate([2])
    assert losses(sqlite_uri, trainer) == {
        "easy/": [(0, 8.0)],
        "hard:40:1/": [(0, 3.0)],
        "2/": [(0, 2.0)],
    }


async def test_data_checked_anew_do_not_take_the_place_of_those_that_were_evaluated(
    sqlite_uri: str,
) -> None:
    trainer = tracked(sqlite_uri, kind=Summing)
    trainer.check_dataset([1], [9])
    trainer.check_dataset([1], [8])  # nothing was measured yet
    await trainer.evaluate()
    trainer.check_dataset([1], [7])
    await trainer.evaluate()
    await trainer.evaluate([8])
    assert losses(sqlite_uri, trainer) == {"": [(0, 8.0), (0, 8.0)], "2/": [(0, 7.0)]}


async def test_the_data_of_the_checks_have_the_plain_key_whatever_their_name(
    sqlite_uri: str,
) -> None:
    trainer = tracked(sqlite_uri)
    held_out = Named("held-out @home", 2)
    trainer.check_dataset(Named("all", 1), held_out)
    await trainer.evaluate()
    await trainer.evaluate(held_out)
    assert history(sqlite_uri, trainer, "eval/accuracy") == [(0, 0.75), (0, 0.75)]
    assert data_of(sqlite_uri, trainer) == {"eval": "held-out @home"}


async def test_iterators_are_told_apart_by_themselves_and_not_consumed(
    sqlite_uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = (number for number in (1, 2)), iter([3, 4])
    trainer = tracked(sqlite_uri)
    for data in (first, second, first, (number for number in (5,)), second):
        await trainer.evaluate(data)
    assert (list(first), list(second)) == ([1, 2], [3, 4])
    assert {key for key in stored(sqlite_uri, trainer).data.metrics if "loss" in key} == {
        f"eval/{number}/loss" for number in (2, 3, 4)
    }
    assert "generator cannot be told from others" in caplog.text
    assert "give it a `name`" in caplog.text


async def test_a_name_is_shared_by_data_that_cannot_be_read(sqlite_uri: str) -> None:
    class Loader:
        name = "val"

    trainer = tracked(sqlite_uri)
    for _ in range(3):
        await trainer.evaluate(Loader())  # made anew for each epoch
    assert len(history(sqlite_uri, trainer, "eval/val/accuracy")) == 3


async def test_names_of_any_length_and_number_leave_whole_keys_and_a_whole_tag(
    sqlite_uri: str,
) -> None:
    trainer = tracked(sqlite_uri, kind=Summing)
    await trainer.evaluate(Named("@" * 499 + "a", 1))
    await trainer.evaluate(Named("@" * 499 + "b", 2))
    for number in range(80):
        await trainer.evaluate(Named(f"{number} " + "x" * 100, number))
    metrics = stored(sqlite_uri, trainer).data.metrics
    assert len(metrics) == 82
    table = json.loads(stored(sqlite_uri, trainer).data.tags[names.EVALUATED_DATA])
    more = int(table.pop("...").removesuffix(" more"))
    assert len(table) + more == 82
    assert {f"{prefix}/loss" for prefix in table} < metrics.keys()


async def test_dataset_inputs_are_recorded_once(sqlite_uri: str) -> None:
    trainer = tracked(sqlite_uri)
    trainer.check_dataset([1], [2])
    for _ in range(3):
        await trainer.evaluate()
        await trainer.evaluate([3])
    assert len(recorded(Dataset)) == 3


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
