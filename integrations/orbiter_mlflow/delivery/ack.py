"""Acks: how far a journal has been delivered, and the refused entries that are still retried.

An ack is a JSON file beside the journal, replaced atomically. Its keys are part of the format that
`docs/reference/journal.md` describes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter
from pydantic_core import to_json

from orbiter_mlflow import names
from orbiter_mlflow.delivery import retry
from orbiter_mlflow.delivery.files.atomic_write import replace_file_on_full_disk
from orbiter_mlflow.delivery.records import RunStatus
from orbiter_mlflow.delivery.resumption.rewriting import Resumption
from orbiter_mlflow.errors import DeliveryError, RejectedError


@dataclass(frozen=True, slots=True)
class RefusedEntry:
    """An entry that the store refused, retried over a growing time before it is quarantined.

    Attributes:
        entry: the content to send, as JSON.
        reason: the store's last answer.
        definite: MLflow's own validation refused it.
        tries: how often the store refused it.
        at: the time of the next try, in seconds since the epoch.
    """

    entry: dict[str, Any]
    reason: str
    definite: bool
    tries: int
    at: float

    @classmethod
    def first(cls, entry: dict[str, Any], error: DeliveryError, now: float) -> "RefusedEntry":
        """An entry that was refused for the first time, at `now`."""
        definite = _is_definite(error)
        wait = (retry.DEFINITE if definite else retry.DOUBTFUL)[0]
        return cls(entry, str(error), definite, 1, now + wait)

    def again(self, error: DeliveryError, now: float) -> "RefusedEntry | None":
        """The entry after one more refusal; None where that was the last try."""
        # Once doubtful, always doubtful: a store that changes its mind may do so again.
        definite = self.definite and _is_definite(error)
        waits = retry.DEFINITE if definite else retry.DOUBTFUL
        if self.tries >= len(waits):
            return None
        at = now + waits[self.tries]
        return replace(self, reason=str(error), definite=definite, tries=self.tries + 1, at=at)


def _is_definite(error: DeliveryError) -> bool:
    return isinstance(error, RejectedError) and error.definite


@dataclass(frozen=True, slots=True)
class Ack:
    """How far the metrics, params, tags and statuses of a journal have been delivered.

    Attributes:
        offset: bytes of the journal that are in the store.
        run_id: the run, once it exists.
        resumption: how the records are rewritten where the journal resumes a run; `life` in JSON.
        kept: params that the run keeps although this journal has others, in words.
        creating: a request to create the run was sent, and its answer has not been seen.
        overdue: a request that was given up may still be carried out, and undo later tags.
        status: the last status that was delivered.
        died: the status and the error are those of a writer that was found dead.
        closed: nothing follows: the writer said so, or was found dead.
        aside: refused entries that are retried.
        quarantined: number of entries that the store refused for good.
        damaged: number of lines that could not be decoded.
        problem: why delivery does not go on, in words; empty while it does.
        held: the problem stays until somebody acts.
        drainer: the process that delivers the journal, or did last.
        lanes: datasets and artifacts have acks of their own; old versions had one for everything.
    """

    offset: int = 0
    run_id: str | None = None
    resumption: Annotated[Resumption, Field(alias="life")] = field(default_factory=Resumption)
    kept: str = ""
    creating: bool = False
    overdue: bool = False
    status: RunStatus | None = None
    died: bool = False
    closed: bool = False
    aside: tuple[RefusedEntry, ...] = ()
    quarantined: int = 0
    damaged: int = 0
    problem: str = ""
    held: bool = False
    drainer: str = ""
    lanes: bool = False

    @property
    def settled(self) -> bool:
        """Whether nothing follows and nothing is retried."""
        return self.closed and not self.aside


@dataclass(frozen=True, slots=True)
class LaneAck:
    """How far one side lane of a journal has been delivered.

    Attributes:
        offset: bytes of the journal whose entries of this kind are in the store, or in `aside`.
        aside: refused entries that are retried.
        refused: number of entries that the store refused for good.
        skipped: number of entries that the server has no endpoint for.
        missing: text of the run's tag that lists what is missing.
        problem: why delivery does not go on, in words; empty while it does.
        held: the problem stays until somebody acts.
    """

    offset: int = 0
    aside: tuple[RefusedEntry, ...] = ()
    refused: int = 0
    skipped: int = 0
    missing: str = ""
    problem: str = ""
    held: bool = False


def read_ack(journal: Path) -> Ack:
    """Read the ack of a journal; a fresh one where there is none yet."""
    try:
        return _adapter().validate_json(ack_path(journal).read_bytes())
    except FileNotFoundError:
        return Ack()
    except ValueError:
        # Cut short by a power failure: the drain asks the store for the run and its offset.
        return Ack(creating=True)


def write_ack(journal: Path, ack: Ack) -> None:
    """Replace the ack of a journal, on a full disk too.

    Raises:
        OSError: it cannot be written.
    """
    # Without the adapter: building it would take a training process 20 ms for its first ack.
    content = {one.name: getattr(ack, one.name) for one in fields(ack)}
    content["life"] = content.pop("resumption")
    replace_file_on_full_disk(ack_path(journal), to_json(content))


def read_lane_ack(journal: Path, lane: str) -> LaneAck:
    """Read the ack of a side lane; a fresh one where there is none or it cannot be read, as sending
    its entries twice does no harm."""
    try:
        return _lane_adapter().validate_json(ack_path(journal, lane).read_bytes())
    except (FileNotFoundError, ValueError):
        return LaneAck()


def write_lane_ack(journal: Path, lane: str, ack: LaneAck) -> None:
    """Replace the ack of a side lane, on a full disk too.

    Raises:
        OSError: it cannot be written.
    """
    replace_file_on_full_disk(ack_path(journal, lane), to_json(ack))


def mark(uid: str, offset: int) -> dict[str, str]:
    """The tag that says in the store how far a journal is delivered; `marked` reads it."""
    return {names.DELIVERED: f"{uid}:{offset}"}


def marked(tags: Mapping[str, str], uid: str) -> int:
    """How far a journal is delivered, by the tags of its run: 0 where they do not say so."""
    marked_uid, _, text = tags.get(names.DELIVERED, "").partition(":")
    return int(text) if marked_uid == uid and text.isdecimal() else 0


def ack_path(journal: Path, lane: str | None = None) -> Path:
    """The file of an ack; that of the metrics, params, tags and statuses without a `lane`."""
    return journal.with_suffix(".ack" if lane is None else f".{lane}.ack")


@cache
def _adapter() -> TypeAdapter[Ack]:
    return TypeAdapter(Ack)


@cache
def _lane_adapter() -> TypeAdapter[LaneAck]:
    return TypeAdapter(LaneAck)
