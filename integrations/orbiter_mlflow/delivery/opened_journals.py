"""A list of the journals that a program and its children open, for `orbiter-mlflow run`.

An environment variable names the file of the list; each process that opens a journal appends a line
to it.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from orbiter_mlflow.delivery.ack import Ack
from orbiter_mlflow.delivery.records import Head

VARIABLE = "ORBITER_MLFLOW_OPENED"
"""Environment variable: the files of the lists, as a JSON array. A `run` inside another adds its
own, so that both learn of each journal."""


@dataclass(frozen=True, slots=True)
class OpenedJournal:
    """What the first record of a journal says about its run.

    Attributes:
        path: the journal.
        tracking_uri: the store, without credentials.
        uid: the tag `orbiter.uid` of the run, unless the run has another journal.
        run_id: the run, if it exists already.
    """

    path: Path
    tracking_uri: str
    uid: str
    run_id: str | None


def environment(file: Path, environ: Mapping[str, str] = os.environ) -> str:
    """The value of the variable by which a child process notes its journals in `file`, too."""
    return json.dumps([*_files(environ), str(file)])


def note(journal: Path, head: Head, ack: Ack | None) -> None:
    """Note that this process has opened a journal, if somebody wants to know. Never raises.

    Args:
        journal: the file.
        head: its first record.
        ack: its first ack, if delivery has to know something from the start.
    """
    files = _files(os.environ)
    if not files:
        return
    opened = {
        "path": str(journal.absolute()),
        "tracking_uri": head.tracking_uri,
        "uid": head.run_uid or head.uid,
        "run_id": head.run_id or (ack.run_id if ack else None),
    }
    line = json.dumps(opened).encode() + b"\n"
    for file in files:
        with suppress(OSError, ValueError):  # a process that outlives `run`: its list is gone
            fd = os.open(file, os.O_WRONLY | os.O_APPEND)
            try:
                os.write(fd, line)
            finally:
                os.close(fd)


def read(file: Path) -> list[OpenedJournal]:
    """The journals noted in a list, in the order in which they were opened.

    Raises:
        OSError: the list cannot be read.
    """
    found: list[OpenedJournal] = []
    for line in file.read_bytes().splitlines():
        with suppress(ValueError, TypeError, KeyError):  # a full disk cut it short
            fields = json.loads(line)
            found.append(OpenedJournal(**{**fields, "path": Path(fields["path"])}))
    return found


def _files(environ: Mapping[str, str]) -> list[str]:
    try:
        files = json.loads(environ.get(VARIABLE, "[]"))
    except ValueError:
        return []
    return [file for file in files if isinstance(file, str)] if isinstance(files, list) else []
