"""The records of a journal, one per line, each with its sequence number and checksum.

A line is JSON: `{"n":7,"c":"9f3c2a1b","r":{"kind":"metrics",...}}`, where `c` is the CRC-32 of the
text of `r`, started from `n`. `split` keeps each record small enough to be sent in one batch. Times
are milliseconds since the epoch, UTC.
"""

import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import to_json

from orbiter_mlflow import names
from orbiter_mlflow.delivery.process_identity import ProcessIdentity
from orbiter_mlflow.errors import DamagedLineError, UnknownFormatError

FORMAT: Final = 4
"""Version of the journal format that is written."""
_READ: Final = (1, 2, 3, 4)
"""Versions that are read; a journal of another version is refused. Version 2 added journals whose
records are delivered as written, and `Update`; version 3 added `Rollouts`, version 4
`Checkpoint`."""

RunStatus = Literal["RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"]

ENDED: Final[frozenset[RunStatus | None]] = frozenset({"FINISHED", "FAILED", "KILLED"})
"""The statuses of a run that has ended."""

_Value = TypeVar("_Value", str, float)


@dataclass(frozen=True, slots=True)
class Head:
    """The first record: which run this is, and where it goes.

    Attributes:
        uid: identifies the journal; the run carries it in the tag `orbiter.uid`.
        tracking_uri: the store, without credentials.
        start_time: start of the run.
        writer: the training process.
        experiment: name of the experiment; exactly one of it and `experiment_id` is set.
        experiment_id: id of the experiment.
        run_id: an existing run to resume; None creates a run.
        run_name: name of the run; None lets MLflow choose one.
        parent_run_id: nests the run under another.
        user: who started the training.
        live: delivered in the background; False waits for `orbiter-mlflow sync`.
        keep: leaves the journal in the spool after delivery.
        folder: the writer's working folder, where MLflow would put artifacts by default.
        as_written: the records come from MLflow's own clients, and are delivered without a change.
        tags: tags that a run is created with; only where `as_written`.
        run_uid: the uid of the journal that creates the run, instead of `run_id` where that is not
            known yet.
        parent_uid: the same instead of `parent_run_id`.
        format: version of the journal format.
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
    as_written: bool = False
    tags: dict[str, str] = field(default_factory=dict)
    run_uid: str | None = None
    parent_uid: str | None = None
    format: Literal[1, 2, 3, 4] = FORMAT
    kind: Literal["head"] = "head"

    @property
    def makes_run(self) -> bool:
        """Whether the run is created for this journal: no other one has created it."""
        return self.run_id is None and self.run_uid is None

    def without_refusable_tags(self) -> tuple["Head", dict[str, str]]:
        """A head whose run no store refuses to create, and the tags that it lacks.

        MLflow does not check the tags and the name of a run that is created, so a database may
        refuse them. A trainer's are checked before.
        """
        if not self.as_written:
            return self, {}
        named = {} if self.run_name is None else {names.RUN_NAME: self.run_name}
        kept = {names.USER, names.PARENT_RUN_ID}
        tags = {key: text for key, text in (self.tags | named).items() if key not in kept}
        bare = {key: text for key, text in self.tags.items() if key in kept}
        return replace(self, tags=bare, run_name=None), tags


@dataclass(frozen=True, slots=True)
class Params:
    """Params of the run, by key."""

    values: dict[str, str]
    kind: Literal["params"] = "params"


@dataclass(frozen=True, slots=True)
class Tags:
    """Tags of the run, by key; a later value replaces an earlier one."""

    values: dict[str, str]
    kind: Literal["tags"] = "tags"


@dataclass(frozen=True, slots=True)
class Metrics:
    """Metric values, by key, of one step and one time.

    `of` names what else the values belong to, in MLflow's terms: `model_id`, `dataset_name`,
    `dataset_digest`.
    """

    step: int
    time: int
    values: dict[str, float]
    of: dict[str, str] | None = None
    kind: Literal["metrics"] = "metrics"


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset input of the run, in MLflow's terms; `schema` and `profile` are JSON or empty.

    `tags` are the tags of the input; without them it has one, its context.
    """

    name: str
    digest: str
    source_type: str
    source: str
    schema: str
    profile: str
    context: str
    tags: dict[str, str] | None = None
    kind: Literal["dataset"] = "dataset"


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file that waits beside the journal for its upload.

    Attributes:
        file: its name in the journal's folder of files.
        name: its name in the run.
        folder: the artifact folder to upload into; None for the root.
        size: bytes.
        sha256: hexadecimal digest of the content.
        names_runs: a table whose column `run_id` may hold uids of journals, for which delivery puts
            the ids of their runs.
    """

    file: str
    name: str
    folder: str | None
    size: int
    sha256: str
    names_runs: bool = False
    kind: Literal["artifact"] = "artifact"


@dataclass(frozen=True, slots=True)
class Rollouts:
    """The rollouts of one report: a table that waits beside the journal, like an artifact.

    Attributes:
        file, name, folder, size, sha256: of the table, as in `Artifact`.
        phase: `train` or `eval`.
        step: the step.
        number: counts the reports of that step and phase, from 1.
        time: of the report.
        traces: rows of the table, from 0, that become traces.
    """

    file: str
    name: str
    folder: str
    size: int
    sha256: str
    phase: str
    step: int
    number: int
    time: int
    traces: list[int]
    kind: Literal["rollouts"] = "rollouts"

    @property
    def table(self) -> Artifact:
        """The table as an artifact."""
        return Artifact(self.file, self.name, self.folder, self.size, self.sha256)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint whose files wait for their upload.

    Attributes:
        file, name, folder, size, sha256: of the list of its files, which waits beside the journal,
            as in `Artifact`. `name` and `folder` are those of its manifest in the run.
        title: what it is called: the name of its folder.
        step: the step that it holds.
        number: counts the reports of that step, from 1.
        time: of the report.
        keep: which checkpoints of the run are kept.
        metric: key of the metric by which the best one is told; None without one.
        higher: whether more of that is better.
    """

    file: str
    name: str
    folder: str
    size: int
    sha256: str
    title: str
    step: int
    number: int
    time: int
    keep: Literal["last", "best", "all"]
    metric: str | None = None
    higher: bool = False
    kind: Literal["checkpoint"] = "checkpoint"

    @property
    def listing(self) -> Artifact:
        """The list of its files, as an artifact is kept."""
        return Artifact(self.file, self.name, self.folder, self.size, self.sha256)


@dataclass(frozen=True, slots=True)
class Status:
    """A status of the run, in MLflow's words; `end_time` is None while it runs."""

    status: RunStatus
    end_time: int | None = None
    kind: Literal["status"] = "status"


@dataclass(frozen=True, slots=True)
class Update:
    """A change of the run by an MLflow client; what is None stays as it is.

    Attributes:
        status: one of `RunStatus`.
        end_time: milliseconds since the epoch.
        name: name of the run.
    """

    status: RunStatus | None = None
    end_time: int | None = None
    name: str | None = None
    kind: Literal["update"] = "update"


@dataclass(frozen=True, slots=True)
class Close:
    """The last record: the writer has finished."""

    kind: Literal["close"] = "close"


_Aside = Dataset | Artifact | Rollouts | Checkpoint
Record = Head | Params | Tags | Metrics | _Aside | Status | Update | Close

SIDE_LANES: Final[Mapping[str, type[_Aside]]] = {
    "datasets": Dataset,
    "artifacts": Artifact,
    "rollouts": Rollouts,
    "checkpoints": Checkpoint,
}
"""The kinds of records that have a lane of their own: delivered beside the others, which never wait
for them."""


def kind_of(record: type[Record]) -> str:
    """The text that stands for a class of records in a journal."""
    return next(str(one.default) for one in fields(record) if one.name == "kind")


@cache
def _reader() -> TypeAdapter[Record]:
    """Built on first use: a training process only writes, and building it takes 20 ms."""
    return TypeAdapter(Annotated[Record, Field(discriminator="kind")])


_LINE = re.compile(rb'\{"n":(\d+),"c":"([0-9a-f]{8})","r":(\{.*\})\}')


def encode(record: Record, number: int) -> bytes:
    """Encode a record as a line, newline included. NaN and infinities become strings."""
    body = to_json(record, inf_nan_mode="strings")
    return b'{"n":%d,"c":"%08x","r":%s}\n' % (number, zlib.crc32(body, number & 0xFFFFFFFF), body)


def decode(line: bytes) -> Record:
    """Decode a line, given without its newline.

    Raises:
        DamagedLineError: the checksum or a field is wrong.
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
        if written not in _READ:
            raise UnknownFormatError(
                f"journal format {written} is not known (this version reads {FORMAT} and older): "
                "deliver it with the version of orbiter that wrote it"
            ) from error
        raise DamagedLineError(
            f"record {number}: {error.error_count()} fields are wrong"
        ) from error


def _format_of(body: bytes) -> Any:
    content = json.loads(body)
    return content.get("format", FORMAT) if content.get("kind") == "head" else FORMAT


MAX_RECORD_BYTES = names.MAX_BATCH_BYTES // 2
"""The largest size of a record in a request; half a batch leaves space for MLflow's own JSON."""

_ENTRY_OVERHEAD = 120
"""Bytes that the request's JSON adds to an entry: field names, numbers, quotes."""

_LARGEST_METRIC = 6 * names.MAX_KEY + _ENTRY_OVERHEAD
"""Bytes of a metric with the longest key."""


def entry_size(key: str, value: str | float) -> int:
    """Bytes that a param, tag or metric takes in a request, after JSON's escapes."""
    text = 0 if isinstance(value, float) else len(json.dumps(value))
    return len(json.dumps(key)) + text + _ENTRY_OVERHEAD


def size_of(owners: Mapping[str, str] | None) -> int:
    """Bytes that `Metrics.of` adds to each of its values in a request."""
    if owners is None:
        return 0
    return sum(len(json.dumps(key)) + len(json.dumps(text)) + 4 for key, text in owners.items())


def split(record: Record) -> Iterator[Record]:
    """Split a record into parts that each fit into one batch, in the order of its keys."""
    if isinstance(record, Metrics):
        each = size_of(record.of)
        if len(record.values) * (_LARGEST_METRIC + each) <= MAX_RECORD_BYTES:
            yield record  # whatever its keys are, so they need not be measured
            return
        for metrics in _parts(record.values, names.MAX_METRICS - 1, each):
            yield replace(record, values=metrics)
    elif isinstance(record, Params | Tags):
        for texts in _parts(record.values, names.MAX_PARAMS_OR_TAGS - 1):
            yield replace(record, values=texts)
    else:
        yield record


def _parts(values: Mapping[str, _Value], most: int, each: int = 0) -> Iterator[dict[str, _Value]]:
    """Parts of at most `most` values, each of which takes `each` bytes besides its own."""
    part: dict[str, _Value] = {}
    size = 0
    for key, value in values.items():
        entry = entry_size(key, value) + each
        if part and (len(part) >= most or size + entry > MAX_RECORD_BYTES):
            yield part
            part, size = {}, 0
        part[key] = value
        size += entry
    if part:
        yield part
