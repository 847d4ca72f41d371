"""Upload the checkpoints of a journal: each content once, the manifest last, then its logged model.

Every step may be repeated, and asks the store first what it has.
"""

import hashlib
import logging
import os
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from orbiter_mlflow.delivery.batches import MetricPoint
from orbiter_mlflow.delivery.checkpoints import journaled, listing
from orbiter_mlflow.delivery.checkpoints.manifest import (
    Manifest,
    StoredFile,
    best,
    decoded,
    encoded,
    is_better,
    is_value,
    newest,
)
from orbiter_mlflow.delivery.checkpoints.model import CheckpointModel
from orbiter_mlflow.delivery.journal_reader import read_head
from orbiter_mlflow.delivery.records import Artifact, Checkpoint, Metrics
from orbiter_mlflow.delivery.resumption.rewriting import Resumption
from orbiter_mlflow.delivery.sink import Sink
from orbiter_mlflow.errors import DeliveryError, RejectedError
from orbiter_mlflow.text import artifact_paths

_logger = logging.getLogger(__name__)

_LOOK = 1.0
"""Seconds of an upload after which it looks whether a later checkpoint makes it needless."""


class CheckpointUpload:
    """The upload of the checkpoints of one journal.

    Args:
        journal: the file.
    """

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._hashes: dict[tuple[int, int, int], str] = {}
        self._told = False

    def store(
        self, sink: Sink, run_id: str, record: Checkpoint, resumption: Resumption
    ) -> str | None:
        """Upload a checkpoint that is kept, and delete those that it replaces.

        Args:
            sink: the store.
            run_id: the run.
            record: as it stands in the journal.
            resumption: how it is rewritten for the run.

        Returns:
            The path of its manifest; None if a later or better one is kept in its place.

        Raises:
            DeliveryError: as the sink does; a `RejectedError` also where a file is gone or changed.
        """
        sent = resumption.rewrite(record)
        assert isinstance(sent, Checkpoint)  # noqa: S101  that is what was given
        value = journaled.value_of(self._journal, record)
        path = f"{sent.folder}/{sent.name}"
        present = self._manifests(sink, run_id)
        mine = present.get(path)
        key = f"{read_head(self._journal).uid}:{record.file}"
        if mine is not None and mine.of == key:
            files = dict(mine.files)
        else:
            if not self._is_kept(record, value, present):
                return None
            uploaded = self._upload(sink, run_id, record, value)
            if uploaded is None:
                return None
            files = uploaded
        manifest = Manifest(
            of=key,
            title=record.title,
            step=sent.step,
            time=record.time,
            keep=record.keep,
            metric=record.metric,
            higher=record.higher,
            value=value,
            files=files,
        )
        if manifest != mine:
            self._put(sink, run_id, manifest, sent)
            present[path] = manifest
        return path if self._delete_replaced(sink, run_id, path, present) else None

    def log_model(
        self, sink: Sink, run_id: str, path: str, record: Checkpoint, resumption: Resumption
    ) -> None:
        """Log the model of a checkpoint in the store, with the metrics of its step.

        Raises:
            DeliveryError: as the sink does.
        """
        points: list[MetricPoint] = []
        for metrics in journaled.metrics_at(self._journal, record.step):
            sent = resumption.rewrite(metrics)
            assert isinstance(sent, Metrics)  # noqa: S101  that is what was given
            points += [
                MetricPoint(key, value, sent.time, sent.step) for key, value in sent.values.items()
            ]
        sent_record = resumption.rewrite(record)
        assert isinstance(sent_record, Checkpoint)  # noqa: S101
        sink.log_model(run_id, CheckpointModel(path, sent_record.step, points))

    def _is_kept(
        self, record: Checkpoint, value: float | None, present: dict[str, Manifest]
    ) -> bool:
        """Whether a checkpoint has to be uploaded.

        Raises:
            RejectedError: nobody can say whether it is the best.
        """
        if record.keep == "best":
            if not is_value(value):
                raise RejectedError(
                    f"{record.metric!r} was not reported for step {record.step}, so nobody knows "
                    "whether it is the best",
                    definite=True,
                )
            rivals = [one for one in present.values() if one.keep == "best"]
            rivals = [one for one in rivals if one.metric == record.metric]
            so_far = best(rivals, record.higher)
            if so_far is not None and not is_better(value, so_far.value, record.higher):
                return False
        return not journaled.replaced(self._journal, record, value)

    def _upload(
        self, sink: Sink, run_id: str, record: Checkpoint, value: float | None
    ) -> dict[str, StoredFile] | None:
        """Upload the files that the store does not have; None once a later checkpoint is kept
        instead."""
        stored = sink.artifact_sizes(run_id, artifact_paths.CHECKPOINT_FILES)
        files: dict[str, StoredFile] = {}
        looked = time.monotonic()
        for file in listing.read(self._journal, record):
            if time.monotonic() - looked > _LOOK:
                if journaled.replaced(self._journal, record, value):
                    return None
                looked = time.monotonic()
            with listing.opened(self._journal, file) as (path, fd):
                digest = self._hash(file, fd)
                if stored.get(digest) != file.size:
                    artifact = Artifact(
                        path.name, digest, artifact_paths.CHECKPOINT_FILES, file.size, digest
                    )
                    sink.log_artifact(run_id, path, artifact)
                    try:
                        listing.require_same(self._journal, file)
                    except RejectedError:
                        # What lies there now may be anything; nothing may take it for its own.
                        with suppress(DeliveryError):
                            sink.delete_artifact(run_id, _stored(digest))
                        raise
                    stored[digest] = file.size
            files[file.name] = StoredFile(file.size, digest)
        return files

    def _hash(self, file: listing.ListedFile, fd: int) -> str:
        """The SHA-256 of a file, computed once however often its upload is tried."""
        known = (file.inode, file.size, file.changed)
        if known not in self._hashes:
            with open(fd, "rb", closefd=False) as content:
                digest = hashlib.file_digest(content, "sha256").hexdigest()
            if not file.is_same(os.fstat(fd), moved=True):
                raise listing.changed(file)
            self._hashes[known] = digest
        return self._hashes[known]

    def _put(self, sink: Sink, run_id: str, manifest: Manifest, sent: Checkpoint) -> None:
        content = encoded(manifest)
        with TemporaryDirectory() as scratch:
            file = Path(scratch, "manifest")
            file.write_bytes(content)
            digest = hashlib.sha256(content).hexdigest()
            artifact = Artifact(file.name, sent.name, sent.folder, len(content), digest)
            sink.log_artifact(run_id, file, artifact)

    def _manifests(self, sink: Sink, run_id: str) -> dict[str, Manifest]:
        """The manifests in the store, by path."""
        found = {}
        for name in sink.artifact_sizes(run_id, artifact_paths.CHECKPOINTS):
            if artifact_paths.step_file_parts(name) is not None:
                path = f"{artifact_paths.CHECKPOINTS}/{name}"
                with suppress(ValueError):  # somebody else's
                    found[path] = decoded(sink.read_artifact(run_id, path))
        return found

    def _delete_replaced(
        self, sink: Sink, run_id: str, path: str, present: dict[str, Manifest]
    ) -> bool:
        """Delete all but the one that is kept of those of which one is; whether it is this one."""
        mine = present[path]
        rivals = {at: one for at, one in present.items() if one.rivals(mine)}
        if not rivals:
            return True
        last = mine.keep == "last"
        kept = newest(rivals.values()) if last else best(rivals.values(), mine.higher)
        for at, one in rivals.items():
            if one is kept:
                continue
            others = [rest.contents for rest_at, rest in present.items() if rest_at != at]
            try:
                for digest in one.contents.difference(*others):
                    sink.delete_artifact(run_id, _stored(digest))
                sink.delete_artifact(run_id, at)
                sink.delete_model(run_id, at)
            except DeliveryError as error:
                self._tell_left(run_id, one, error)
            else:
                del present[at]
        return kept is mine

    def _tell_left(self, run_id: str, manifest: Manifest, error: DeliveryError) -> None:
        if not self._told:
            _logger.warning(
                "the checkpoint of step %d of run %s is replaced by a later one, and could not be "
                "deleted (%s); the next one tries again",
                manifest.step,
                run_id,
                error,
            )
        self._told = True


def _stored(digest: str) -> str:
    return f"{artifact_paths.CHECKPOINT_FILES}/{digest}"
