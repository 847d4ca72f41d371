"""The lifecycle of a trainer as data: its states, the calls each state allows, the legal moves.

A trainer is made in CREATED, where it is given its agent, data, reward and config to check.
`mark_validated()` ends the checks. `train` runs once: it moves the trainer to TRAINING, and ends it
in COMPLETED when it returns or in FAILED when it raises. `evaluate` moves nothing.

    CREATED ── mark_validated() ──> VALIDATED ── train() ──> TRAINING ── returns ──> COMPLETED
                                                                └─────── raises ───> FAILED

No move leads back: to train again, make a new trainer. The one addition is COMPLETED to FAILED,
legal only until the outermost `train` has returned, because a subclass may still fail after the
`super().train()` that it calls has completed.

`CALLS` and `MOVES` are this picture as tables. The contract in `orbiter.train.trainer` reads them
and nothing else, so a subclass that assigns `self._state` is held to the same moves.
Integrations follow a trainer through `orbiter.train.hooks`.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal

Phase = Literal["train", "evaluate"]
"""The two phases that can fail: the names of the methods."""


class TrainerError(Exception):
    """An error during training operations: a refused call, a failed check, a failed `train`."""


class TrainerState(StrEnum):
    """Where a trainer stands in its lifecycle."""

    CREATED = "created"
    VALIDATED = "validated"
    TRAINING = "training"
    COMPLETED = "completed"
    FAILED = "failed"


_BEFORE_TRAINING = frozenset({TrainerState.CREATED})

CALLS: Mapping[str, frozenset[TrainerState]] = {
    "check_agent": _BEFORE_TRAINING,
    "check_dataset": _BEFORE_TRAINING,
    "check_reward": _BEFORE_TRAINING,
    "check_config": _BEFORE_TRAINING,
    "mark_validated": _BEFORE_TRAINING,
    "train": frozenset({TrainerState.VALIDATED}),
    "evaluate": frozenset(TrainerState) - {TrainerState.FAILED},
}
"""The states in which each method may be called; anywhere else it raises `TrainerError`."""

MOVES: Mapping[TrainerState, frozenset[TrainerState]] = {
    TrainerState.CREATED: frozenset({TrainerState.VALIDATED}),
    TrainerState.VALIDATED: frozenset({TrainerState.TRAINING}),
    TrainerState.TRAINING: frozenset({TrainerState.COMPLETED, TrainerState.FAILED}),
    TrainerState.COMPLETED: frozenset(),
    TrainerState.FAILED: frozenset(),
}
"""Every legal move."""

MOVES_INSIDE_TRAIN: Mapping[TrainerState, frozenset[TrainerState]] = {
    TrainerState.COMPLETED: frozenset({TrainerState.FAILED}),
}
"""Moves that are legal as well until the outermost `train` has returned."""


def require_state(value: object) -> TrainerState:
    """Return the state that `value` is, or names.

    Raises:
        TrainerError: for anything else.
    """
    try:
        return TrainerState(value)  # type: ignore[arg-type]
    except ValueError:
        raise TrainerError(f"{value!r} is no state (states: {', '.join(TrainerState)})") from None


def require_move(before: TrainerState, after: TrainerState, *, inside_train: bool) -> None:
    """Refuse an illegal move.

    Raises:
        TrainerError: naming both states and the legal moves.
    """
    legal = MOVES[before]
    if inside_train:
        legal |= MOVES_INSIDE_TRAIN.get(before, frozenset())
    if after not in legal:
        allowed = ", ".join(sorted(legal)) or "none; make a new trainer"
        raise TrainerError(f"Cannot move from state {before} to {after} (open moves: {allowed})")
