"""A run as it lies in a tracking store: plain data, for all that reads runs and decides."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DatasetInput:
    """A dataset that a run says it has used; `context` is `train` or `eval` for ours."""

    name: str
    digest: str
    context: str


@dataclass(frozen=True, slots=True)
class Point:
    """One value of a metric. `timestamp` in milliseconds since the epoch."""

    step: int
    timestamp: int
    value: float


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run. Times are milliseconds since the epoch; `metrics` holds the latest values."""

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
    """It is in the store's trash."""
