"""The states of a trainer and the moves between them, as data."""

from collections.abc import Mapping
from enum import StrEnum


class TrainerError(Exception):
    """An error during training operations: a refused call, a failed check, a failed `train`."""


class TrainerState(StrEnum):
    """Where a trainer stands in its lifecycle."""

    CREATED = "created"
    VALIDATED = "validated"
    TRAINING = "training"
    COMPLETED = "completed"
    FAILED = "failed"


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
"""Moves that are legal as well while the outermost `train` is on the stack: a child class may fail
after the `super().train()` that it built on has completed."""


def require_state(value: object) -> TrainerState:
    """The state of that name.

    Raises:
        TrainerError: for a value that is none.
    """
    try:
        return TrainerState(value)  # type: ignore[arg-type]
    except ValueError:
        raise TrainerError(f"{value!r} is no state (states: {', '.join(TrainerState)})") from None


def require_move(before: TrainerState, after: TrainerState, *, inside_train: bool) -> None:
    """Refuse an illegal move.

    Raises:
        TrainerError: naming both states and the moves that are open.
    """
    legal = MOVES[before]
    if inside_train:
        legal |= MOVES_INSIDE_TRAIN.get(before, frozenset())
    if after not in legal:
        allowed = ", ".join(sorted(legal)) or "none; make a new trainer"
        raise TrainerError(f"Cannot move from state {before} to {after} (open moves: {allowed})")
