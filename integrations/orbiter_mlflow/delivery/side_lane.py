"""Deliver the datasets, or the artifacts, of a journal: beside its metrics, never before them.

Both may be refused for reasons of their own: an artifact store that this machine cannot write, a
server that knows no datasets. Each lane has an ack, waits and trials of its own. Sending an entry
twice does no harm, so a lane needs no mark in the store.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from orbiter_mlflow import names
from orbiter_mlflow.delivery import kept_files, spool
from orbiter_mlflow.delivery.journal import Entry, read, read_head
from orbiter_mlflow.delivery.lane import Lane
from orbiter_mlflow.delivery.records import Artifact, Dataset, Head
from orbiter_mlflow.delivery.sink import Sink
from orbiter_mlflow.delivery.spool import LaneAck
from orbiter_mlflow.delivery.suspects import Suspect
from orbiter_mlflow.errors import DeliveryError, RejectedError, TransientError, UnsupportedError

_logger = logging.getLogger(__name__)

LaneName = Literal["datasets", "artifacts"]

_RECORDS: dict[str, type[Dataset] | type[Artifact]] = {"datasets": Dataset, "artifacts": Artifact}
_KINDS = {"datasets": "dataset", "artifacts": "artifact"}
_MISSING = {"datasets": names.DATASETS_MISSING, "artifacts": names.ARTIFACTS_MISSING}

_NAMED = 5
"""Missing things that are named in the tag."""


class SideLane(Lane[LaneAck]):
    """The delivery of the datasets, or the artifacts, of one journal; see `Lane`.

    Args:
        name: which of the two.
        open_sink: gives the store for a head; may be slow, may raise a `DeliveryError`.
    """

    def __init__(
        self, name: LaneName, journal: Path, open_sink: Callable[[Head], Sink], **how: Any
    ) -> None:
        super().__init__(journal, spool.read_lane_ack(journal, name), **how)
        self.name = name
        self._open_sink = open_sink
        self._kind = _RECORDS[name]

    def run(self) -> bool:
        """Deliver what the journal holds of this kind; True where nothing of it waits.

        Never raises. Before the run exists nothing is sent.
        """
        main = spool.read_ack(self.journal)
        if main.run_id is None:
            return False
        self._run_id, self._life = main.run_id, main.life
        # Taken before the journal is read: what is written meanwhile may be in the main lane's ack.
        self._looked_through = main.offset
        whole = self._attempt(self._deliver)
        if main.status not in (None, "RUNNING"):
            with contextlib.suppress(DeliveryError, OSError):  # told next time
                self._tell_missing()
        return whole and not self.ack.aside

    def finished(self, size: int) -> bool:
        """Whether nothing waits in a journal of `size` bytes to which nothing more is written."""
        return self.ack.offset >= size and not self.ack.aside

    @property
    def given_up(self) -> bool:
        """Whether only a person can help, and the run says so."""
        return self.ack.held and self.ack.missing != ""

    def _deliver(self) -> None:
        for entry in self._waiting():
            if entry.record is None:  # the main lane counts what is damaged
                self._write(offset=entry.end)
            else:
                self._send(entry, asdict(entry.record))
        self._try_aside()
        self._write(offset=max(self.ack.offset, self._looked_through))

    def _waiting(self) -> Iterator[Entry]:
        return read(self.journal, self.ack.offset, kind=_KINDS[self.name])

    def _send(self, entry: Entry, record: dict[str, Any]) -> None:
        try:
            self._send_again(record)
        except UnsupportedError as error:
            self._require_other_endpoints(error)
            if not self.ack.skipped:
                _logger.warning("%s of run %s are skipped: %s", self.name, self._run_id, error)
            spool.quarantine(self.journal, record, f"skipped: {error}")
            self._write(offset=entry.end, skipped=self.ack.skipped + 1)
        except (RejectedError, TransientError) as error:
            self._require_refusal(error)
            self._put_aside([(record, error)], offset=entry.end)
        else:
            self._write(offset=entry.end)
            self._discard(record)

    def _send_again(self, entry: dict[str, Any]) -> None:
        record = self._kind(**entry)
        sink = self._sink()
        if isinstance(record, Dataset):
            sink.log_dataset(self._run_id, record)
        else:
            told = self._life.told(record)
            assert isinstance(told, Artifact)  # noqa: S101  as `told` keeps the kind
            sink.log_artifact(self._run_id, kept_files.verified(self.journal, record), told)

    def _discard(self, entry: dict[str, Any]) -> None:
        """Remove the kept copy of an artifact; after the ack, so that a crash leaves it twice."""
        record = self._kind(**entry)
        if isinstance(record, Artifact):
            kept_files.discard(self.journal, record)

    def _give_up(self, bad: Suspect, rest: tuple[Suspect, ...]) -> None:
        spool.quarantine(self.journal, bad.entry, bad.reason)
        record = self._kind(**bad.entry)
        if isinstance(record, Artifact):
            kept_files.set_aside(self.journal, record)
        _logger.warning(
            "MLflow refused %s of run %s for good (%s): kept in %s",
            _shown(bad.entry),
            self._run_id,
            bad.reason,
            self.journal.with_suffix(".quarantine"),
        )
        self._write(aside=rest, refused=self.ack.refused + 1)

    def _require_other_endpoints(self, error: UnsupportedError) -> None:
        """Raise where the server knows no endpoint at all just now: something before it answers in
        its place while it restarts."""
        try:
            self._write_something_harmless()
        except UnsupportedError:
            raise TransientError(str(error)) from error

    def _write_something_harmless(self) -> None:
        head = read_head(self.journal)
        # Tags that stand there already.
        tags = {names.UID: head.uid} if head.run_id is None else self._life.tag(head.uid)
        self._sink().log_batch(self._run_id, (), {}, tags)

    def _tell_missing(self) -> None:
        """Keep the tag of an ended run that says what of this kind is not in the store."""
        missing = self._missing()
        if missing == self.ack.missing:
            return
        tags = self._life.tags({_MISSING[self.name]: missing})
        if missing:
            self._sink().log_batch(self._run_id, (), {}, tags)
        else:
            self._sink().delete_tags(self._run_id, tags)
        self._write(missing=missing)

    def _missing(self) -> str:
        waiting = [asdict(entry.record) for entry in self._waiting() if entry.record is not None]
        waiting += [one.entry for one in self.ack.aside]
        said = []
        if waiting:
            shown = ", ".join(map(_shown, waiting[:_NAMED]))
            more = f" and {len(waiting) - _NAMED} more" if len(waiting) > _NAMED else ""
            said.append(f"not delivered yet: {shown}{more}")
        if self.ack.refused:
            said.append(f"{self.ack.refused} refused by the store")
        if self.ack.skipped:
            said.append(f"{self.ack.skipped} skipped: the server has no endpoint for them")
        return "; ".join(said)[: names.MAX_TAG_VALUE]

    def _sink(self) -> Sink:
        return self._open_sink(read_head(self.journal))

    def _save(self, ack: LaneAck) -> None:
        spool.write_lane_ack(self.journal, self.name, ack)


def side_lanes(journal: Path, open_sink: Callable[[Head], Sink], **how: Any) -> list[SideLane]:
    """Both lanes of a journal."""
    return [SideLane(name, journal, open_sink, **how) for name in ("datasets", "artifacts")]


def nothing_waits(journal: Path) -> bool:
    """Whether a journal holds no dataset and no artifact that is not in the store."""
    for name, kind in _KINDS.items():
        ack = spool.read_lane_ack(journal, name)
        if ack.aside or next(read(journal, ack.offset, kind=kind), None) is not None:
            return False
    return True


def _shown(entry: dict[str, Any]) -> str:
    return "/".join(part for part in (entry.get("folder"), entry["name"]) if part)
