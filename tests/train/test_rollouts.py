"""Rollouts as a trainer gets them, and as its hooks do."""

from collections.abc import Iterator
from typing import Any

import pytest

from lifecycle_recorder import Recorder
from orbiter.train import Rollout


def reported(*rollouts: Any, **how: Any) -> list[Any]:
    trainer = Recorder()
    trainer.report_rollouts(rollouts, step=7, **how)
    return trainer.events_of("rollouts")


def test_a_mapping_is_a_rollout_and_its_other_names_go_to_extra() -> None:
    given = {
        "prompt": "2 + 2?",
        "completion": "4",
        "tokens": None,
        "answer": "4",
        "extra": {"n": 1},
    }
    rollout = Rollout("2 + 2?", "4", extra={"n": 1, "answer": "4"})
    assert reported(given) == [("rollouts", [rollout], 7, "train")]


def test_a_prompt_of_chat_messages_becomes_messages() -> None:
    messages = [{"role": "user", "content": "2 + 2?"}]
    assert Rollout.of({"prompt": messages}) == Rollout(messages=messages)


def test_the_phase_reaches_the_hook() -> None:
    assert reported(Rollout("a"), phase="eval") == [("rollouts", [Rollout("a")], 7, "eval")]


def test_any_iterable_will_do() -> None:
    trainer = Recorder()
    trainer.report_rollouts((Rollout(text) for text in "ab"), step=1)
    assert trainer.events == [("rollouts", [Rollout("a"), Rollout("b")], 1, "train")]


def test_nothing_to_report_is_no_event() -> None:
    assert reported() == []


def test_what_is_no_rollout_does_not_cost_its_neighbours(caplog: pytest.LogCaptureFixture) -> None:
    assert reported({"prompt": "a"}, "b", {"extra": 1, "c": 2}) == [
        ("rollouts", [Rollout("a")], 7, "train")
    ]
    assert [record.getMessage() for record in caplog.records] == [
        "not recorded: rollout 2 of a report: a rollout is a Rollout or a mapping, not str",
        "not recorded: rollout 3 of a report: extra is a mapping, not int",
    ]


def test_an_unknown_phase_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert reported(Rollout("a"), phase="validation") == []
    assert "neither 'train' nor 'eval'" in caplog.text


def broken() -> Iterator[Rollout]:
    yield Rollout("a")
    raise RuntimeError("the dataset is gone")


def test_rollouts_that_cannot_be_read_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    trainer = Recorder()
    trainer.report_rollouts(broken(), step=1)
    assert trainer.events == []
    assert "the dataset is gone" in caplog.text
