"""A run as it is in a tracking store, as plain data."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DatasetInput:
    """A dataset that a run used; our runs set `context` to `train` or `eval`."""

    name: str
    digest: str
    context: str


@dataclass(frozen=True, slots=True)
class MetricPoint:
    """One value of a metric; `timestamp` is in milliseconds since the epoch."""

    step: int
    timestamp: int
    value: float


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run; times are in milliseconds since the epoch, and `metrics` has the latest values."""

    run_id: str
    name: str
    experiment_id: str
    status: str
    start_time: int
    end_time: int | None
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    datasets: tuple[DatasetInput, ...]
    deleted: bool = False
    """Whether the run is in the store's trash."""
