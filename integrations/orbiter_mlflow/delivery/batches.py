"""Pack the records of a journal into batches within MLflow's limits on counts and bytes."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from orbiter_mlflow import names
from orbiter_mlflow.delivery.journal_reader import Entry
from orbiter_mlflow.delivery.records import (
    SIDE_LANES,
    Metrics,
    Params,
    Tags,
    entry_size,
    size_of,
)

MAX_ENTITIES = names.MAX_METRICS - 1
"""Metrics, params and tags together; one is left free for the tag that says how far the journal is
delivered."""
MAX_TAGS = names.MAX_PARAMS_OR_TAGS - 1
MAX_BYTES = names.MAX_BATCH_BYTES * 9 // 10

_IN_SIDE_LANES = tuple(SIDE_LANES.values())


class MetricPoint(NamedTuple):
    """One value of one metric, as MLflow stores it; `time` is in milliseconds since the epoch.

    The last three are what it belongs to besides the run, if anything: a logged model, and the
    dataset on which it was measured.
    """

    key: str
    value: float
    time: int
    step: int
    model_id: str | None = None
    dataset_name: str | None = None
    dataset_digest: str | None = None


@dataclass(slots=True)
class Batch:
    """The content of one request.

    Attributes:
        points: metric values.
        params: params by key.
        tags: tags by key.
        size: bytes in the request, estimated.
        end: the journal's offset behind the last record.
    """

    points: list[MetricPoint] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    size: int = 0
    end: int = 0

    def __len__(self) -> int:
        return len(self.points) + len(self.params) + len(self.tags)

    def entries(self) -> dict[str, Any]:
        """The content as JSON; `of_entries` reads it."""
        points = [point._asdict() for point in self.points]
        return {"metrics": points, "params": self.params, "tags": self.tags}

    @classmethod
    def of_entries(cls, entries: dict[str, Any]) -> "Batch":
        """The batch whose `entries` these are."""
        points = [MetricPoint(**point) for point in entries["metrics"]]
        return cls(points, dict(entries["params"]), dict(entries["tags"]))

    def takes(self, record: Metrics | Params | Tags, size: int) -> bool:
        """Whether a record fits in. A param that changes its value does not: MLflow would refuse
        the whole batch for it, and alone it can be quarantined."""
        if len(self) + len(record.values) > MAX_ENTITIES or self.size + size > MAX_BYTES:
            return False
        if isinstance(record, Params):
            changed = any(self.params.get(key, text) != text for key, text in record.values.items())
            return not changed and len(self.params) + len(record.values) <= names.MAX_PARAMS_OR_TAGS
        return isinstance(record, Metrics) or len(self.tags) + len(record.values) <= MAX_TAGS

    def add(self, record: Metrics | Params | Tags, size: int, end: int) -> None:
        """Add a record that `takes` has accepted, and that ends at the offset `end`."""
        if isinstance(record, Metrics):
            rest = (record.time, record.step, *_owners(record.of or {}))
            self.points.extend(MetricPoint(key, v, *rest) for key, v in record.values.items())
        elif isinstance(record, Params):
            self.params.update(record.values)
        else:
            self.tags.update(record.values)
        self.size += size
        self.end = end

    def parts(self) -> list["Batch"]:
        """Split a batch of several entries into two or three, in the order MLflow commits them."""
        kinds = [Batch(params=self.params), Batch(points=self.points), Batch(tags=self.tags)]
        present = [kind for kind in kinds if kind]
        if len(present) > 1:
            return present
        middle = len(self) // 2
        params, tags = list(self.params.items()), list(self.tags.items())
        return [
            Batch(points=self.points[part], params=dict(params[part]), tags=dict(tags[part]))
            for part in (slice(middle), slice(middle, None))
        ]


def _owners(of: Mapping[str, str]) -> tuple[str | None, str | None, str | None]:
    return of.get("model_id"), of.get("dataset_name"), of.get("dataset_digest")


@lru_cache(maxsize=10_000)
def _point_size(key: str) -> int:
    return entry_size(key, 0.0)


def pack(entries: Iterable[Entry]) -> Iterator[Batch | Entry]:
    """Pack entries into batches that are as full as possible. Entries of other kinds are yielded
    alone, in their order; datasets and artifacts, which have lanes of their own, are left out."""
    batch = Batch()
    for entry in entries:
        record = entry.record
        if isinstance(record, _IN_SIDE_LANES):
            batch.end = entry.end
            continue
        if not isinstance(record, Metrics | Params | Tags):
            if batch.end:
                yield batch
                batch = Batch()
            yield entry
            continue
        if isinstance(record, Metrics):
            size = sum(map(_point_size, record.values)) + len(record.values) * size_of(record.of)
        else:
            size = sum(entry_size(key, text) for key, text in record.values.items())
        if batch and not batch.takes(record, size):
            yield batch
            batch = Batch()
        batch.add(record, size, entry.end)
    if batch.end:  # it may be empty, and only move the offset
        yield batch
