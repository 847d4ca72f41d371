"""Whatever a trainer is handed: training goes on, and nothing good is lost for something bad."""

import gc
import json
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from orbiter.train import TrainConfig, TrainerError, TrainerState, TrainMetrics
from orbiter_mlflow import ConfigError, config_from_params, names
from orbiter_mlflow.config.encoding import own_params
from trainers import (
    Backend,
    Tracked,
    history,
    journals,
    reporting,
    run_of,
    stored,
    tags_of,
    tracked,
    trained,
)
from waiting import eventually


class Rude:
    """Raises whatever it is asked."""

    def _refuse(self, *_: object) -> Any:
        raise RuntimeError("do not ask")

    __repr__ = __str__ = __len__ = __iter__ = __float__ = __int__ = __bool__ = _refuse
    __getitem__ = __contains__ = _refuse


class Scalar:
    """As torch has them: no number itself, but of no dimension."""

    shape = ()

    def __init__(self, value: Any) -> None:
        self.value = value

    def item(self) -> Any:
        return self.value


# -- metrics -------------------------------------------------------------------------------------


async def test_each_key_lands_and_none_on_another(server_uri: str) -> None:
    keys = ["a b", "a@b", "a:40:b", "a//b", "/a", "a/", "..", ".", "", "\n", "\x00", "\ud800"]
    keys += ["é", "漢", "🚀", "x" * 300, "x" * 301, "a/b", "a\\b", "a%b", "A", "None"]
    report: dict[Any, Any] = {key: float(number) for number, key in enumerate(keys)}
    report |= {"a": {"b": 100.0}, None: 101.0, 7: 102.0, "7": 103.0, (1, 2): 104.0}
    trainer = await trained(tracked(server_uri, body=reporting((report, 1))))
    run = stored(server_uri, trainer)
    expected = [float(number) for number in range(len(keys))] + [100.0 + n for n in range(5)]
    assert sorted(run.data.metrics.values()) == sorted(expected)
    assert names.QUARANTINED not in tags_of(run)


async def test_a_bad_value_never_costs_its_neighbours(server_uri: str) -> None:
    report: dict[str, Any] = {
        "before": 1.0,
        "none": None,
        "text": "two\x00\ud800",
        "list": [1, float("nan")],
        "rude": Rude(),
        "rude scalar": Scalar(Rude()),
        "tensor": Scalar(0.5),
        "vector": np.arange(3),
        "numpy": np.float64(0.25),
        "complex": 1j,
        "nan": float("nan"),
        "inf": float("inf"),
        "nested": {"rude": Rude(), "fine": 3.0, "none": {}},
        "long": "x" * 9000,
        "after": 2.0,
    }
    report["itself"] = report
    trainer = await trained(tracked(server_uri, body=reporting((report, 1))))
    run = stored(server_uri, trainer)
    metrics, tags = run.data.metrics, tags_of(run)
    assert metrics["train/before"] == 1.0
    assert metrics["train/after"] == 2.0
    assert metrics["train/tensor"] == 0.5
    assert metrics["train/numpy"] == 0.25
    assert metrics["train/nested/fine"] == 3.0
    assert math.isnan(metrics["train/nan"])
    assert metrics["train/inf"] > 1e308
    assert json.loads(tags[names.NONFINITE]) == ["train/inf", "train/nan"]
    assert tags["orbiter.train.text"] == "two\\x00\\ud800"
    assert "unreadable" in tags["orbiter.train.rude"]
    assert "unreadable" in tags["orbiter.train.nested.rude"]
    assert "9000 characters" in tags["orbiter.train.long"]
    assert "itself" in tags["orbiter.train.itself"]
    for key in ("none", "list", "vector", "complex"):
        assert f"orbiter.train.{key}" in tags
    assert names.QUARANTINED not in tags


@pytest.mark.parametrize(
    ("step", "at"),
    [
        (np.int64(7), 7),
        (np.array(7), 7),
        (7.0, 7),
        (True, 1),
        ("7", 7),
        (10**30, 2**63 - 1),
        (-(10**30), -(2**63)),
        (None, 4),
        (7.5, 4),
        (float("nan"), 4),
        ([7], 4),
        (Rude(), 4),
    ],
)
async def test_odd_steps(sqlite_uri: str, step: Any, at: int) -> None:
    body = reporting(({"x": 1.0}, 4), ({"y": 2.0}, step))
    trainer = await trained(tracked(sqlite_uri, body=body))
    assert history(sqlite_uri, trainer, "train/y") == [(at, 2.0)]


async def test_reports_that_are_none(sqlite_uri: str) -> None:
    reports: list[Any] = [None, 3, "loss", [1.0], Rude(), object, {}]
    body = reporting(*[(report, 1) for report in reports], result=TrainMetrics(loss=0.5))
    trainer = await trained(tracked(sqlite_uri, body=body))
    run = stored(sqlite_uri, trainer)
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"train/loss": 0.5}


@pytest.mark.parametrize(
    "result",
    [None, 0.5, Rude(), {"loss": 0.5}, TrainMetrics(0.0, steps=Rude())],  # type: ignore[arg-type]
)
async def test_results_that_are_no_metrics(sqlite_uri: str, result: Any) -> None:
    class Odd(Tracked):
        async def evaluate(self, test_data: Any = None) -> Any:
            return result

        async def train(self) -> Any:
            return result

    trainer = tracked(sqlite_uri, kind=Odd)
    assert await trainer.evaluate() is result
    trainer.mark_validated()
    assert await trainer.train() is result
    run = stored(sqlite_uri, trainer)
    assert run.info.status == "FINISHED"
    assert ("train/loss" in run.data.metrics) is isinstance(result, dict | TrainMetrics)


# -- params --------------------------------------------------------------------------------------


@dataclass(slots=True)
class OddConfig(TrainConfig):
    anything: Any = None
    many: dict[str, int] = field(default_factory=dict)


async def test_large_and_odd_configs_come_back(server_uri: str) -> None:
    extra = {
        "long": "é" * 20_000,
        "x" * 240: 1,
        "deep": {"y" * 200: {"z" * 200: 1}},
        "nul\x00": "\x00",
        "half": "\ud800",
        "": "",
        "bytes": b"\x00\xff",
        "set": {1, 2},
        "a.b": {"c d": float("inf")},
    }
    config = OddConfig(extra=extra, many={f"key{number}": number for number in range(250)})
    trainer = await trained(tracked(server_uri, config))
    run = stored(server_uri, trainer)
    assert names.QUARANTINED not in tags_of(run)
    fields = json.loads(tags_of(run)[names.CONFIG_FIELDS])
    assert config_from_params(own_params(run.data.params, fields), OddConfig) == config
    assert len(run.data.params) > 250


async def test_what_cannot_be_encoded_is_shown_and_told(
    server_uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = OddConfig(learning_rate=0.5, anything=Rude(), extra={"fn": lambda: 0})
    trainer = await trained(tracked(server_uri, config))
    run = stored(server_uri, trainer)
    assert run.info.status == "FINISHED"
    assert run.data.params["learning_rate"] == "0.5"
    unencodable = json.loads(tags_of(run)[names.CONFIG_UNENCODABLE])
    assert sorted(unencodable) == ["anything", "extra.fn"]
    (record,) = caplog.records
    for path in unencodable:
        assert f"{path} (" in record.getMessage()
    with pytest.raises(ConfigError, match="anything"):
        config_from_params(run.data.params, OddConfig)


@pytest.mark.parametrize("trains", [True, False])
async def test_a_config_that_is_no_dataclass(
    trains: bool, sqlite_uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = tracked(sqlite_uri)
    trainer.check_config({"epochs": 3})
    await trainer.evaluate()
    if trains:
        await trained(trainer)
    run_id = stored(sqlite_uri, trainer).info.run_id
    del trainer
    gc.collect()
    eventually(lambda: not journals())
    run = run_of(sqlite_uri, run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {}
    assert run.data.metrics["eval/loss"] == 0.25
    (record,) = caplog.records
    assert "dataclass" in record.getMessage()


# -- the rest ------------------------------------------------------------------------------------


async def test_odd_data_are_no_trouble(sqlite_uri: str) -> None:
    trainer = tracked(sqlite_uri)
    rows = iter([1, 2])
    trainer.check_dataset(Rude(), rows)
    await trainer.evaluate(Rude())
    await trainer.evaluate(rows)
    await trained(trainer)
    assert list(rows) == [1, 2]
    run = stored(sqlite_uri, trainer)
    assert run.info.status == "FINISHED"
    assert len(run.inputs.dataset_inputs) >= 2


class UnreadableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no message")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("\x00 \ud800"), "\\x00 \\ud800"),
        (UnreadableError(), "(the message of this UnreadableError could not be read)"),
        (ValueError("x" * 100_000), "100000 characters"),
        (ValueError(), ""),
    ],
)
async def test_errors_with_odd_messages(server_uri: str, error: Exception, message: str) -> None:
    async def body(_: Backend) -> TrainMetrics:
        raise error

    trainer = tracked(server_uri, body=body)
    trainer.mark_validated()
    with pytest.raises(TrainerError) as caught:
        await trainer.train()
    assert caught.value.__cause__ is error
    assert trainer.state is TrainerState.FAILED
    run = stored(server_uri, trainer)
    assert run.info.status == "FAILED"
    assert message in tags_of(run)[names.ERROR_MESSAGE]
    assert tags_of(run)[names.ERROR_TYPE] == type(error).__name__


def test_a_run_name_that_no_store_takes_is_shown(server_uri: str) -> None:
    trainer = tracked(
        server_uri, run_name="a\x00b", description="\ud800", tags={"\ud800": "\x00", "a\nb": "c"}
    )
    trainer.mark_validated()
    run = stored(server_uri, trainer)
    assert run.info.run_name == "a\\x00b"
    assert tags_of(run)[names.DESCRIPTION].startswith("\\ud800\n")
    assert tags_of(run)[":d800:"] == "\\x00"
    assert tags_of(run)["a:a:b"] == "c"
    assert names.QUARANTINED not in tags_of(run)
