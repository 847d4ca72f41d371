"""Put run ids for the uids of a sweep's children into what its parent says of them.

While the server is down no child has a run id, so the parent names it by the uid of its journal,
which is its provisional id. A child that nothing is known of, here or in the store, keeps that.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import mkstemp

from orbiter_mlflow import names
from orbiter_mlflow.delivery import spool
from orbiter_mlflow.delivery.ack import read_ack
from orbiter_mlflow.delivery.records import Artifact, Head
from orbiter_mlflow.delivery.resumption.starting import EarlierJournals
from orbiter_mlflow.delivery.sink import Sink
from orbiter_mlflow.errors import HeldError, TransientError

_RUN_ID = "run_id"
"""The column of the table that names runs."""


def name_best(
    tags: dict[str, str],
    sink: Sink,
    head: Head,
    beside: EarlierJournals,
    run_of: Callable[..., str],
) -> None:
    """Put the run id of the best child into the tags of a batch.

    Args:
        tags: of the batch, which this changes.
        sink: the store.
        head: of the parent's journal.
        beside: the journals beside it.
        run_of: makes the run of a journal beside, if need be.

    Raises:
        DeliveryError: the store is in trouble, or the child's run is being made just now.
    """
    uid = tags.get(names.SWEEP_BEST)
    if uid is None:
        return
    journal = beside.creating(uid)
    if journal is None:
        found = [*sink.find_runs(replace(head, uid=uid)), uid]
        tags[names.SWEEP_BEST] = found[0]
    elif not read_ack(journal).held:
        try:
            tags[names.SWEEP_BEST] = run_of(sink, uid)
        except HeldError:  # concerns the child: the parent must not wait for a person
            return


@contextmanager
def with_names(
    file: Path, artifact: Artifact, journal: Path, run_id: str, sink: Sink
) -> Iterator[Path]:
    """The file to upload for an artifact: the kept one, or a copy of it that names the runs.

    Raises:
        DeliveryError: as `named`.
    """
    if not artifact.names_runs:
        yield file
        return
    content = named(file.read_bytes(), journal, run_id, sink)
    fd, path = mkstemp()
    try:
        with os.fdopen(fd, "wb") as copy:
            copy.write(content)
        yield Path(path)
    finally:
        Path(path).unlink(missing_ok=True)


def named(table: bytes, journal: Path, run_id: str, sink: Sink) -> bytes:
    """The table of the children with their run ids.

    Args:
        table: JSON with `columns` and `data`.
        journal: of the parent.
        run_id: of the parent.
        sink: the store.

    Raises:
        TransientError: a child's run is not made yet.
        DeliveryError: the store is in trouble.
    """
    content = json.loads(table)
    column = content["columns"].index(_RUN_ID)
    ids = sink.find_children(run_id)
    for row in content["data"]:
        row[column] = ids.get(row[column], row[column])
    _require_made({row[column] for row in content["data"]} - {*ids.values()}, journal)
    return json.dumps(content, ensure_ascii=False).encode()


def _require_made(unknown: set[str], journal: Path) -> None:
    """Raise if one of these is the uid of a journal beside that waits for its run.

    Raises:
        TransientError: it is.
    """
    waiting: Mapping[str, Path] = {
        one.stem.rpartition("-")[2]: one
        for one in (spool.journals(journal.parent) if unknown else ())
    }
    for uid in sorted(unknown):
        beside = waiting.get(uid[:8])
        if beside is not None:
            ack = read_ack(beside)
            if ack.run_id is None and not ack.held:
                raise TransientError(f"the run of the journal {beside} is not made yet", soon=True)
