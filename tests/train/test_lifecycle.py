"""Every state with every action, against a table that is independent of the code."""

import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from lifecycle_recorder import Event, Recorder, run
from orbiter.train import Rollout, TrainerError, TrainerState, TrainMetrics
from orbiter.train._runtime import runtime_of
from orbiter.train.states import CALLS, MOVES, MOVES_INSIDE_TRAIN

C, V, T, K, F = TrainerState
LETTERS = {"C": C, "V": V, "T": T, "K": K, "F": F}

# Rows are actions, columns situations; a cell is the state afterwards, or "." where the action is
# refused. K is COMPLETED. T: moved there by hand, no `train` under way; T*, K*, F*: inside `train`.
TABLE = """
                    C  V  T  K  F  T* K* F*
check_agent         C  .  .  .  .  .  .  .
check_dataset       C  .  .  .  .  .  .  .
check_reward        C  .  .  .  .  .  .  .
check_config        C  .  .  .  .  .  .  .
mark_validated      V  .  .  .  .  .  .  .
train               .  K  .  .  .  .  .  .
evaluate            C  V  T  K  .  T  K  .
_state=created      C  .  .  .  .  .  .  .
_state=validated    V  V  .  .  .  .  .  .
_state=training     .  T  T  .  .  T  .  .
_state=completed    .  .  K  K  .  K  K  .
_state=failed       .  .  F  .  F  F  F  F
_state=nonsense     .  .  .  .  .  .  .  .
report              C  V  T  K  F  T  K  F
report_eval         C  V  T  K  F  T  K  F
at_step             C  V  T  K  F  T  K  F
report_rollouts     C  V  T  K  F  T  K  F
report_checkpoint   C  V  T  K  F  T  K  F
_require_validated  .  V  .  .  .  T  .  .
"""
_head, *_rows = [line.split() for line in TABLE.strip().splitlines()]
CASES = [
    pytest.param(row[0], situation, LETTERS.get(cell), id=f"{row[0]}-{situation}")
    for row in _rows
    for situation, cell in zip(_head, row[1:], strict=True)
]

METRICS = {"loss": 0.25}
ROLLOUT = Rollout("2 + 2?", "4", rewards={"right": 1.0})


async def act(trainer: Recorder, action: str) -> Any:
    if action.startswith("_state="):
        trainer._state = action.removeprefix("_state=")  # type: ignore[assignment]
        return None
    if action in ("train", "evaluate"):
        return await getattr(trainer, action)()
    if action == "report":
        return trainer.report(METRICS, step=3)
    if action == "report_eval":
        return trainer.report(METRICS, step=3, phase="eval", data="given")
    if action == "at_step":
        return trainer.at_step(3)
    if action == "report_rollouts":
        return trainer.report_rollouts([ROLLOUT], step=3)
    if action == "report_checkpoint":
        return trainer.report_checkpoint(Path("out", "3"), step=3)
    if action in ("check_agent", "check_dataset"):
        return getattr(trainer, action)("given")
    return getattr(trainer, action)()


def expected_events(trainer: Recorder, action: str, before: TrainerState) -> list[Event]:
    match action:
        case "check_agent":
            return [("check", "check_agent", {"agent": "given"})]
        case "check_dataset":
            return [("check", "check_dataset", {"train_data": "given"})]
        case "check_reward" | "check_config":
            return [("check", action, {})]
        case "mark_validated":
            return [("move", C, V)]
        case "train":
            return [("move", V, T), ("move", T, K), ("trained", trainer.trained)]
        case "evaluate":
            return [("evaluating", None), ("evaluated", trainer.evaluated, None)]
        case "report":
            return [("report", METRICS, 3)]
        case "report_eval":
            return [("evaluation report", METRICS, 3, "given")]
        case "at_step":
            return [("step", 3)]
        case "report_rollouts":
            return [("rollouts", [ROLLOUT], 3, "train")]
        case "report_checkpoint":
            return [("checkpoint", str(Path("out", "3")), 3)]
        case "_require_validated":
            return []
    after = TrainerState(action.removeprefix("_state="))
    return [] if after is before else [("move", before, after)]


async def in_situation(name: str, then: Callable[[Recorder], Awaitable[None]]) -> None:
    """Make a trainer, bring it to the situation, and call `then` in that situation."""
    by_hand = {"C": [], "V": [V], "T": [V, T], "K": [V, T, K], "F": [V, T, F]}
    if name in by_hand:
        trainer = Recorder()
        for state in by_hand[name]:
            trainer._state = state
        await then(trainer)
        return

    reached = []

    async def body(trainer: Recorder) -> None:
        if name != "T*":
            trainer._state = LETTERS[name[0]]
        await then(trainer)
        reached.append(name)

    trainer = Recorder(body)
    trainer.mark_validated()
    await trainer.train()
    assert reached == [name]


@pytest.mark.parametrize(("action", "situation", "after"), CASES)
async def test_state_by_action(action: str, situation: str, after: TrainerState | None) -> None:
    async def check(trainer: Recorder) -> None:
        before = trainer.state
        in_progress = runtime_of(trainer).training
        before_events = list(trainer.events)
        held = dict(trainer.__dict__)
        if after is None:
            with pytest.raises(TrainerError):
                await act(trainer, action)
            assert trainer.state is before
            assert trainer.events == before_events
            assert runtime_of(trainer).training is in_progress
            assert trainer.__dict__ == held
            return
        result = await act(trainer, action)
        assert trainer.state is after
        assert trainer.events[len(before_events) :] == expected_events(trainer, action, before)
        assert result is {"train": trainer.trained, "evaluate": trainer.evaluated}.get(action)

    await in_situation(situation, check)


def test_the_table_covers_every_state() -> None:
    assert {LETTERS[name[0]] for name in _head} == set(TrainerState)
    assert set(MOVES) == set(TrainerState)
    assert set(MOVES_INSIDE_TRAIN) <= set(TrainerState)


def test_the_public_tables_say_the_same() -> None:
    allowed = {
        action: {name for name, cell in zip(_head, cells, strict=True) if cell != "."}
        for action, *cells in _rows
    }
    for action, states in CALLS.items():
        outside_train = {name for name in allowed[action] if not name.endswith("*")}
        assert {LETTERS[name] for name in outside_train} == states
    for name in _head:
        before = LETTERS[name[0]]
        legal = MOVES[before] | {before}
        if name.endswith("*"):
            legal |= MOVES_INSIDE_TRAIN.get(before, frozenset())
        assert {after for after in TrainerState if name in allowed[f"_state={after}"]} == legal


# -- messages of refusals --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("situation", "action", "says"),
    [
        ("V", "mark_validated", "Cannot validate from state validated"),
        ("K", "mark_validated", "Cannot validate from state completed"),
        ("C", "train", r"Trainer must be validated before training \(state=created\)$"),
        ("K", "train", r"Trainer must be validated before training \(state=completed\): .* once$"),
        ("T*", "train", r"Trainer must be validated before training \(state=training\)"),
        (
            "C",
            "_require_validated",
            r"^Trainer must be validated before training \(state=created\)$",
        ),
        ("F", "evaluate", r"Recorder.evaluate is refused \(state=failed\): make a new trainer"),
        ("V", "check_agent", r"Recorder.check_agent must be called before mark_validated\(\)"),
        ("C", "_state=training", r"from state created to training \(open moves: validated\)"),
        ("T", "_state=created", r"from state training to created \(open moves: completed, failed"),
        ("F", "_state=created", r"from state failed to created \(open moves: none; make a new"),
        ("K*", "_state=created", r"from state completed to created \(open moves: failed\)"),
        ("C", "_state=nonsense", r"'nonsense' is no state \(states: created, validated, .*\)"),
    ],
)
async def test_refusals_name_the_state_and_the_way_out(
    situation: str, action: str, says: str
) -> None:
    async def check(trainer: Recorder) -> None:
        with pytest.raises(TrainerError, match=says):
            await act(trainer, action)

    await in_situation(situation, check)


@pytest.mark.parametrize("value", ["nonsense", None, 1, [], object()])
def test_an_unknown_state_is_refused(value: Any) -> None:
    trainer = Recorder()
    with pytest.raises(TrainerError, match="is no state"):
        trainer._state = value
    assert trainer.state is C
    assert trainer.events == []


async def test_a_plain_string_becomes_the_state_it_names() -> None:
    async def body(trainer: Recorder) -> None:
        trainer._state = "training"  # type: ignore[assignment]
        trainer._require_validated()
        trainer._state = "completed"  # type: ignore[assignment]

    trainer = Recorder(body)
    trainer._state = "validated"  # type: ignore[assignment]
    assert trainer.state is V
    await trainer.train()
    assert trainer.state is K
    assert trainer.events_of("move") == [("move", C, V), ("move", V, T), ("move", T, K)]


def test_a_state_restored_as_plain_text_is_still_a_state() -> None:
    trainer = Recorder()
    trainer.__dict__["_state"] = "validated"
    assert trainer.state is V
    run(trainer.train())
    assert trainer.state is K


async def test_a_refused_train_does_not_use_up_the_only_train() -> None:
    trainer = Recorder()
    with pytest.raises(TrainerError):
        await trainer.train()
    trainer.mark_validated()
    assert await trainer.train() is trainer.trained


def test_a_train_that_is_never_awaited_changes_nothing() -> None:
    trainer = Recorder()
    trainer.mark_validated()
    trainer.train().close()
    assert trainer.state is V
    assert run(trainer.train()) is trainer.trained


# -- report ----------------------------------------------------------------------------------------


def test_report_passes_its_arguments_on_unchanged() -> None:
    trainer = Recorder()
    metrics = TrainMetrics(loss=1.0)
    trainer.report(metrics, step=1)
    assert trainer.events == [("report", metrics, 1)]
    assert trainer.events[0][1] is metrics


@pytest.mark.parametrize("error", [RuntimeError("disk full"), TrainerError("no")])
def test_report_never_raises(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Recorder):
        def _on_report(self, metrics: Any, step: int) -> None:
            raise error

    Broken().report({"loss": 1.0}, step=1)
    [record] = caplog.records
    assert "Broken._on_report" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[1] is error


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"phase": "evl"}, "report(phase='evl') is neither 'train' nor 'eval'"),
        ({"phase": None}, "report(phase=None) is neither 'train' nor 'eval'"),
        ({"data": [1]}, "data need phase='eval'"),
    ],
)
def test_a_report_with_a_wrong_phase_is_logged_as_an_error(
    given: dict[str, Any], says: str, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = Recorder()
    trainer.report({"loss": 1.0}, step=1, **given)
    assert trainer.events == []
    [record] = caplog.records
    assert record.levelname == "ERROR"
    assert says in record.getMessage()


def test_on_report_is_called_for_the_training_only() -> None:
    trainer = Recorder()
    trainer.report({"loss": 1.0}, step=1, phase="train")
    trainer.report({"loss": 2.0}, step=1, phase="eval")
    assert trainer.events_of("report") == [("report", {"loss": 1.0}, 1)]


def test_the_contract_imports_nothing_heavy() -> None:
    script = (
        "import sys, orbiter.train\n"
        "print([m for m in ('mlflow', 'numpy', 'pydantic', 'orbiter_mlflow') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
