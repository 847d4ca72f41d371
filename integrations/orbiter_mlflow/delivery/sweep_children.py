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
from orbiter_mlflow.delivery.ack import Ack, read_ack
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
    beside = {one.stem.rpartition("-")[2]: one for one in spool.journals(journal.parent)}
    for row in content["data"]:
        row[column] = _run_id(row[column], ids, beside)
    return json.dumps(content, ensure_ascii=False).encode()


def _run_id(uid: str, ids: Mapping[str, str], beside: Mapping[str, Path]) -> str:
    """The run id of a child; what is none of a known journal, such as a run id, stays.

    Raises:
        TransientError: its journal lies beside, and its run is not made yet.
    """
    journal = beside.get(uid[:8])
    ack = Ack() if journal is None else read_ack(journal)
    found = ack.run_id or ids.get(uid)
    if found is None and journal is not None and not ack.held:
        raise TransientError(f"the run of the journal {journal} is not made yet")
    return found or uid
