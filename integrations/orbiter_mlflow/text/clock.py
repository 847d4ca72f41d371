"""Times in milliseconds since the epoch, as MLflow has them, and one way to write them."""

import time
from datetime import UTC, datetime

__all__ = ["now", "utc"]


def now() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def utc(milliseconds: int) -> str:
    """Write a time in ISO 8601, in UTC: `2026-03-01T09:30:00.250+00:00`."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")
