"""Deliver the datasets, artifacts, rollouts or checkpoints of a journal: beside its metrics, never
before them.

All may be refused for reasons of their own: an artifact store that this machine cannot write, a
server without datasets or traces. Each lane has its own ack, waits and retries. Sending an entry
twice does no harm, so a lane needs no mark in the store.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from orbiter_mlflow import names
from orbiter_mlflow.delivery import kept_files, spool, sweep_children
from orbiter_mlflow.delivery.ack import (
    Ack,
    LaneAck,
    RefusedEntry,
    ack_path,
    mark,
    read_lane_ack,
    write_lane_ack,
)
from orbiter_mlflow.delivery.checkpoints import journaled, listing
from orbiter_mlflow.delivery.checkpoints.upload import CheckpointUpload
from orbiter_mlflow.delivery.files import disk_sync
from orbiter_mlflow.delivery.journal_reader import Entry, read_entries, read_head
from orbiter_mlflow.delivery.lane import Lane
from orbiter_mlflow.delivery.records import (
    ENDED,
    SIDE_LANES,
    Artifact,
    Checkpoint,
    Dataset,
    Head,
    Rollouts,
)
from orbiter_mlflow.delivery.rollout_traces import traces_of
from orbiter_mlflow.delivery.sink import Sink
from orbiter_mlflow.errors import DeliveryError, RejectedError, TransientError, UnsupportedError

_logger = logging.getLogger(__name__)

_MISSING = {
    "datasets": names.DATASETS_MISSING,
    "artifacts": names.ARTIFACTS_MISSING,
    "rollouts": names.ROLLOUTS_MISSING,
    "checkpoints": names.CHECKPOINTS_MISSING,
}

_NAMED = 5
"""Missing entries that the tag names."""


class SideLane(Lane[LaneAck]):
    """The delivery of the datasets, artifacts, rollouts or checkpoints of one journal; see `Lane`.

    Args:
        name: one of `SIDE_LANES`.
        open_sink: opens the store for a head; may be slow, may raise a `DeliveryError`.
    """

    def __init__(
        self, name: str, journal: Path, open_sink: Callable[[Head], Sink], **how: Any
    ) -> None:
        super().__init__(journal, read_lane_ack(journal, name), **how)
        self.name = name
        self._open_sink = open_sink
        self._record = SIDE_LANES[name]
        self._checkpoints = CheckpointUpload(journal)
        self._uploaded_early: set[int] = set()
        self._done_with: Ack | None = None

    def run(self, main: Ack) -> bool:
        """Deliver the entries of this kind; True once none of them waits.

        Never raises. Sends nothing before the run exists, and does nothing if nothing was left to
        do with the same `main`.

        Args:
            main: how far the main lane is.
        """
        if main.run_id is None:
            return False
        if main is self._done_with:
            return True
        self._main, self._run_id, self._resumption = main, main.run_id, main.resumption
        whole = self._attempt(self._deliver)
        with contextlib.suppress(DeliveryError, OSError):  # the next run tags what is missing
            if main.status in ENDED:
                self._tag_missing()
            if whole and self.finished(main.offset):
                self._done_with = main
        return whole and not self.ack.aside

    def finished(self, size: int) -> bool:
        """Whether nothing waits, in a journal of `size` bytes to which nothing is appended."""
        return self.ack.offset >= size and not self.ack.aside

    @property
    def given_up(self) -> bool:
        """Whether only a person can help, and the run's tag says so."""
        return self.ack.held and self.ack.missing != ""

    def _deliver(self) -> None:
        through = self._main.offset
        for entry in self._waiting():
            if self._depends_on_steps(entry):
                break
            if isinstance(entry.record, Checkpoint) and not self._has_all_metrics(entry):
                self._upload_early(entry)
                through = 0
                break
            if entry.record is None:  # the main lane counts damaged lines
                self._write(offset=entry.end)
            else:
                self._send(entry, asdict(entry.record))
        self._retry_aside()
        self._write(offset=max(self.ack.offset, through))

    def _depends_on_steps(self, entry: Entry) -> bool:
        """Whether the step of an entry is not known yet: the main lane finds out by how much those
        of a resumed run are shifted."""
        has_step = isinstance(entry.record, Rollouts | Checkpoint)
        shifted = has_step and self._resumption.after_step is not None
        return shifted and entry.end > self._main.offset

    def _has_all_metrics(self, entry: Entry) -> bool:
        """Whether all metrics of a checkpoint's step are in the journal."""
        assert isinstance(entry.record, Checkpoint)  # noqa: S101  asked of these alone
        ended = self._main.closed or self._main.status in ENDED
        return ended or journaled.is_step_over(self.journal, entry, entry.record)

    def _upload_early(self, entry: Entry) -> None:
        """Upload a checkpoint before its step is over, so that it is safe early. Where that is
        refused, it is tried again with all metrics."""
        assert isinstance(entry.record, Checkpoint)  # noqa: S101  asked of these alone
        by_value = entry.record.keep == "best"
        undecided = by_value and journaled.value_of(self.journal, entry.record) is None
        if not undecided and entry.end not in self._uploaded_early:
            with contextlib.suppress(RejectedError):
                self._checkpoints.store(self._sink(), self._run_id, entry.record, self._resumption)
            self._uploaded_early.add(entry.end)

    def _waiting(self) -> Iterator[Entry]:
        return read_entries(self.journal, self.ack.offset, kind=self._record)

    def _send(self, entry: Entry, record: dict[str, Any]) -> None:
        try:
            self._send_again(record)
        except UnsupportedError as error:
            self._require_other_endpoints(error)
            if not self.ack.skipped:
                _logger.warning("%s of run %s are skipped: %s", self.name, self._run_id, error)
            spool.quarantine(self.journal, record, f"skipped: {error}")
            self._write(offset=entry.end, skipped=self.ack.skipped + 1)
            # Only the traces or the model: the table or the files are in the store.
            if isinstance(entry.record, Rollouts | Checkpoint):
                self._discard(record)
        except (RejectedError, TransientError) as error:
            self._require_refusal(error)
            self._put_aside([(record, error)], offset=entry.end)
        else:
            self._write(offset=entry.end)
            self._discard(record)

    def _send_again(self, entry: dict[str, Any]) -> None:
        record = self._record(**entry)
        sink = self._sink()
        if isinstance(record, Dataset):
            sink.log_dataset(self._run_id, record)
            return
        if isinstance(record, Checkpoint):
            rest = sink, self._run_id
            path = self._checkpoints.store(*rest, record, self._resumption)
            if path is not None:
                self._checkpoints.log_model(*rest, path, record, self._resumption)
            return
        sent = self._resumption.rewrite(record)
        if isinstance(sent, Rollouts):
            file = kept_files.verified(self.journal, sent.table)
            sink.log_artifact(self._run_id, file, sent.table)
            # After the table, which an old server takes too.
            key = f"{read_head(self.journal).uid}:{sent.file}"
            sink.log_traces(self._run_id, traces_of(sent, file.read_bytes(), key))
        elif isinstance(sent, Artifact):
            file = kept_files.verified(self.journal, sent)
            with sweep_children.with_names(file, sent, self.journal, self._run_id, sink) as whole:
                sink.log_artifact(self._run_id, whole, sent)

    def _discard(self, entry: dict[str, Any]) -> None:
        """Remove the kept files of an entry, after the ack, on the disk too: a crash between them
        repeats the upload, and loses nothing."""
        record = self._record(**entry)
        if isinstance(record, Checkpoint):
            disk_sync.sync_if_possible(ack_path(self.journal, self.name))
            listing.discard(self.journal, record)
        elif (kept := self._kept_file(entry)) is not None:
            disk_sync.sync_if_possible(ack_path(self.journal, self.name))
            kept_files.discard(self.journal, kept)

    def _kept_file(self, entry: dict[str, Any]) -> Artifact | None:
        record = self._record(**entry)
        if isinstance(record, Dataset | Checkpoint):
            return None
        return record.table if isinstance(record, Rollouts) else record

    def _quarantine(self, refused: RefusedEntry, rest: tuple[RefusedEntry, ...]) -> None:
        spool.quarantine(self.journal, refused.entry, refused.reason)
        if (kept := self._kept_file(refused.entry)) is not None:
            kept_files.set_aside(self.journal, kept)
        else:
            self._discard(refused.entry)
        _logger.warning(
            "MLflow refused %s of run %s for good (%s): kept in %s",
            _shown(refused.entry),
            self._run_id,
            refused.reason,
            spool.quarantine_path(self.journal),
        )
        self._write(aside=rest, refused=self.ack.refused + 1)

    def _require_other_endpoints(self, error: UnsupportedError) -> None:
        """Raise if no endpoint exists just now: something in front of the server answers in its
        place while it restarts."""
        try:
            self._write_something_harmless()
        except UnsupportedError:
            raise TransientError(str(error)) from error

    def _write_something_harmless(self) -> None:
        head = read_head(self.journal)
        # Tags that the run has already, or gets from the main lane anyway.
        if head.makes_run:
            tags = {names.UID: head.uid}
        elif head.as_written:
            tags = mark(head.uid, self._main.offset)
        else:
            tags = self._resumption.tag(head.uid)
        self._sink().log_batch(self._run_id, (), {}, tags)

    def _tag_missing(self) -> None:
        """Update the tag of an ended run that lists what is missing from the store."""
        missing = self._missing()
        if missing == self.ack.missing:
            return
        tags = self._resumption.rename_tags({_MISSING[self.name]: missing})
        if missing:
            self._sink().log_batch(self._run_id, (), {}, tags)
        else:
            self._sink().delete_tags(self._run_id, tags)
        self._write(missing=missing)

    def _missing(self) -> str:
        waiting = [asdict(entry.record) for entry in self._waiting() if entry.record is not None]
        waiting += [one.entry for one in self.ack.aside]
        parts = []
        if waiting:
            shown = ", ".join(map(_shown, waiting[:_NAMED]))
            more = f" and {len(waiting) - _NAMED} more" if len(waiting) > _NAMED else ""
            parts.append(f"not delivered yet: {shown}{more}")
        if self.ack.refused:
            gone = ", or their files gone or changed" if self.name == "checkpoints" else ""
            parts.append(f"{self.ack.refused} refused by the store{gone}")
        if self.ack.skipped:
            parts.append(names.skipped(self.name, self.ack.skipped))
        return "; ".join(parts)[: names.MAX_TAG_VALUE]

    def _sink(self) -> Sink:
        return self._open_sink(read_head(self.journal))

    def _save(self, ack: LaneAck) -> None:
        write_lane_ack(self.journal, self.name, ack)


def side_lanes(journal: Path, open_sink: Callable[[Head], Sink], **how: Any) -> list[SideLane]:
    """All side lanes of a journal."""
    return [SideLane(name, journal, open_sink, **how) for name in SIDE_LANES]


def nothing_waits(journal: Path) -> bool:
    """Whether all datasets and artifacts of a journal are in the store."""
    for name, kind in SIDE_LANES.items():
        ack = read_lane_ack(journal, name)
        if ack.aside or next(read_entries(journal, ack.offset, kind=kind), None) is not None:
            return False
    return True


def _shown(entry: dict[str, Any]) -> str:
    return "/".join(part for part in (entry.get("folder"), entry["name"]) if part)
