"""What a journal holds: one record a line, each with its sequence number and checksum.

A line is JSON: `{"n":7,"c":"9f3c2a1b","r":{"kind":"metrics",...}}`, where `c` is the CRC-32 of the
text of `r`, started from `n`. Records are small enough to be sent in one batch each; `split` sees
to that. Times are milliseconds since the epoch, UTC.
"""

import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import to_json

from orbiter_mlflow import names
from orbiter_mlflow.errors import DamagedLineError, UnknownFormatError

FORMAT: Final = 1
"""Version of the journal's format; a journal of another one is refused."""

RunStatus = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]

_Value = TypeVar("_Value", str, float)


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """The process that writes a journal, so that its death can be told.

    `boot` and `started` tell a process from a later one that was given the same `pid`, `namespace`
    from one in another container, whose pids count anew.
    """

    host: str
    boot: str
    pid: int
    started: str
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class Head:
    """The first record: which run this is, and where it goes.

    `run_id` continues a run that exists. Of `experiment` (a name) and `experiment_id` one is set.
    `keep` leaves the journal in the spool once it is delivered.
    `live` tells journals that are delivered by themselves from those that wait for `sync`.
    `folder` is the writer's working folder, where MLflow would keep artifacts by default.
    """

    uid: str
    tracking_uri: str
    start_time: int
    writer: ProcessIdentity
    experiment: str | None = None
    experiment_id: str | None = None
    run_id: str | None = None
    run_name: str | None = None
    parent_run_id: str | None = None
    user: str | None = None
    live: bool = True
    keep: bool = False
    folder: str | None = None
    format: Literal[1] = FORMAT
    kind: Literal["head"] = "head"


@dataclass(frozen=True, slots=True)
class Params:
    values: dict[str, str]
    kind: Literal["params"] = "params"


@dataclass(frozen=True, slots=True)
class Tags:
    values: dict[str, str]
    kind: Literal["tags"] = "tags"


@dataclass(frozen=True, slots=True)
class Metrics:
    step: int
    time: int
    values: dict[str, float]
    kind: Literal["metrics"] = "metrics"


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset input of the run; texts as MLflow keeps them (`schema`, `profile`: JSON or "")."""

    name: str
    digest: str
    source_type: str
    source: str
    schema: str
    profile: str
    context: str
    kind: Literal["dataset"] = "dataset"


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file kept beside the journal under `file`, to be uploaded into `folder` as `name`."""

    file: str
    name: str
    folder: str | None
    size: int
    sha256: str
    kind: Literal["artifact"] = "artifact"


@dataclass(frozen=True, slots=True)
class Status:
    """The status of the run; `end_time` is None while it runs."""

    status: RunStatus
    end_time: int | None = None
    kind: Literal["status"] = "status"


@dataclass(frozen=True, slots=True)
class Close:
    """The writer is done: nothing follows."""

    kind: Literal["close"] = "close"


Record = Head | Params | Tags | Metrics | Dataset | Artifact | Status | Close


@cache
def _reader() -> TypeAdapter[Record]:
    """Made when first read with: a training process only writes, and this takes 20 ms."""
    return TypeAdapter(Annotated[Record, Field(discriminator="kind")])


_LINE = re.compile(rb'\{"n":(\d+),"c":"([0-9a-f]{8})","r":(\{.*\})\}')


def encode(record: Record, number: int) -> bytes:
    """The line of a record, newline included. NaN and infinities are written as strings."""
    body = to_json(record, inf_nan_mode="strings")
    return b'{"n":%d,"c":"%08x","r":%s}\n' % (number, zlib.crc32(body, number & 0xFFFFFFFF), body)


def decode(line: bytes) -> Record:
    """The record of a line (without its newline).

    Raises:
        DamagedLineError: checksum or shape are wrong.
        UnknownFormatError: the line is a head of another format version.
    """
    match = _LINE.fullmatch(line)
    if match is None:
        raise DamagedLineError("not a record")
    number, checksum, body = int(match[1]), int(match[2], 16), match[3]
    if zlib.crc32(body, number & 0xFFFFFFFF) != checksum:
        raise DamagedLineError(f"record {number}: wrong checksum")
    try:
        return _reader().validate_json(body)
    except ValidationError as error:
        written = _format_of(body)
        if written != FORMAT:
            raise UnknownFormatError(
                f"journal format {written} is not known (this version reads {FORMAT}): "
                "deliver it with the version of orbiter that wrote it"
            ) from error
        raise DamagedLineError(
            f"record {number}: {error.error_count()} fields are wrong"
        ) from error


def _format_of(body: bytes) -> Any:
    content = json.loads(body)
    return content.get("format", FORMAT) if content.get("kind") == "head" else FORMAT


MAX_RECORD_BYTES = names.MAX_BATCH_BYTES // 2
"""The size of a record in a request; half a batch leaves room for MLflow's own wrapping."""

_ENTRY_OVERHEAD = 120
"""Bytes that the request's JSON adds to an entry: field names, numbers, quotes."""


_SURELY_FIT = MAX_RECORD_BYTES // (6 * names.MAX_KEY + _ENTRY_OVERHEAD)
"""Metrics that fit into a record however long and odd their keys are: spares measuring them."""


def entry_size(key: str, value: str | float) -> int:
    """Bytes that a param, tag or metric takes in a request, whose JSON may escape characters."""
    text = 0 if isinstance(value, float) else len(json.dumps(value))
    return len(json.dumps(key)) + text + _ENTRY_OVERHEAD


def split(record: Record) -> Iterator[Record]:
    """The record in parts that each fit into one batch, in the order of its keys."""
    if isinstance(record, Metrics):
        if len(record.values) <= _SURELY_FIT:
            yield record
            return
        for metrics in _parts(record.values, names.MAX_METRICS - 1):
            yield replace(record, values=metrics)
    elif isinstance(record, Params | Tags):
        for texts in _parts(record.values, names.MAX_PARAMS_OR_TAGS - 1):
            yield replace(record, values=texts)
    else:
        yield record


def _parts(values: Mapping[str, _Value], most: int) -> Iterator[dict[str, _Value]]:
    part: dict[str, _Value] = {}
    size = 0
    for key, value in values.items():
        entry = entry_size(key, value)
        if part and (len(part) >= most or size + entry > MAX_RECORD_BYTES):
            yield part
            part, size = {}, 0
        part[key] = value
        size += entry
    if part:
        yield part
