"""Entries that the store refused: each is tried again, over a growing time, before it is believed
to be bad. They wait aside, so that they hold nothing up."""

from dataclasses import dataclass, replace
from typing import Any

from orbiter_mlflow.delivery import retry
from orbiter_mlflow.errors import DeliveryError, RejectedError


@dataclass(frozen=True, slots=True)
class Suspect:
    """An entry under trial.

    Attributes:
        entry: what to send, as JSON.
        reason: what the store said last.
        definite: MLflow's own validation refused it.
        tries: how often the store refused it.
        at: when to try next, in seconds since the epoch.
    """

    entry: dict[str, Any]
    reason: str
    definite: bool
    tries: int
    at: float


def suspect(entry: dict[str, Any], error: DeliveryError, now: float) -> Suspect:
    """An entry that was refused for the first time."""
    definite = isinstance(error, RejectedError) and error.definite
    first = (retry.DEFINITE if definite else retry.DOUBTFUL)[0]
    return Suspect(entry, str(error), definite, 1, now + first)


def refused_again(present: Suspect, error: DeliveryError, now: float) -> Suspect | None:
    """The entry after one more refusal; None where it was the last one: it is bad."""
    # What was doubtful once stays so: a store that changes its mind may do so again.
    definite = present.definite and isinstance(error, RejectedError) and error.definite
    waits = retry.DEFINITE if definite else retry.DOUBTFUL
    if present.tries >= len(waits):
        return None
    return replace(
        present,
        reason=str(error),
        definite=definite,
        tries=present.tries + 1,
        at=now + waits[present.tries],
    )
