"""What a sweep's parent shows of its children: counts, the best one, a table. Pure."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from orbiter_mlflow import names
from orbiter_mlflow.text.values import tag_value
from orbiter_mlflow.tracking.sweeps.folder import ChildNote

__all__ = ["Ranking", "Summary", "summary_of"]

NOT_SEEN = "not seen"
"""How children are counted that were given settings, and of which no run is known."""
_MAX_PARAMS = 50
"""Params that the table shows at most."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """By what children are ranked."""

    metric: str
    direction: Literal["higher", "lower"]


@dataclass(frozen=True, slots=True)
class Summary:
    """The children of a sweep at some time.

    Attributes:
        counts: status -> how many children have it; `not seen` where there are any.
        best: the best FINISHED child; None without a metric, or if none has it.
        children: the best first, then those without a value, in the order of their numbers.
    """

    counts: Mapping[str, int]
    best: ChildNote | None
    children: Sequence[ChildNote]

    def tags(self) -> dict[str, str]:
        """The tags of the parent. A best child whose run id is not known is named by its uid, which
        delivery replaces."""
        tags = {names.SWEEP_CHILDREN: json.dumps(self.counts)}
        if self.best is not None:
            tags[names.SWEEP_BEST] = self.best.run_id or self.best.uid
            tags[names.SWEEP_BEST_VALUE] = repr(self.best.value)
        return tags

    def table(self, ranking: Ranking | None) -> dict[str, Any]:
        """The table in the format of `mlflow.log_table`: run id, name, status, metric, and the
        params in which the children differ."""
        params = _differing([child.params for child in self.children])
        stopped = any(child.ended_by for child in self.children)
        columns = ["run_id", "name", "status", *(["ended_by"] if stopped else [])]
        columns += [ranking.metric] if ranking else []
        data = []
        for child in self.children:
            row: list[Any] = [child.run_id or child.uid, child.name or "", child.status]
            row += [child.ended_by or ""] if stopped else []
            row += [_cell(child.value)] if ranking else []
            data.append([*row, *(child.params.get(name, "") for name in params)])
        return {"columns": [*columns, *params], "data": data}


def summary_of(children: Sequence[ChildNote], given: int, ranking: Ranking | None) -> Summary:
    """Count and rank children.

    Args:
        children: in any order. Of several with one run id, the one that began last counts: the
            others were continued by it.
        given: how many children were given settings.
        ranking: None if there is no metric.
    """
    latest: dict[str, ChildNote] = {}
    for child in sorted(children, key=lambda child: (child.start_time, child.uid)):
        latest[child.run_id or child.uid] = child
    sign = -1.0 if ranking is not None and ranking.direction == "higher" else 1.0

    def place(child: ChildNote) -> tuple[bool, float, int]:
        value = child.value if _counts(child) else None
        return value is None, sign * (value or 0.0), child.number

    ordered = sorted(latest.values(), key=place)
    counts = dict(sorted(Counter(child.status for child in ordered).items()))
    unseen = given - len({child.number for child in children})
    if unseen > 0:
        counts[NOT_SEEN] = unseen
    best = ordered[0] if ranking and ordered and _counts(ordered[0]) else None
    return Summary(counts, best, ordered)


def _counts(child: ChildNote) -> bool:
    """Whether a child may be the best one."""
    return child.status == "FINISHED" and child.value is not None and math.isfinite(child.value)


def _differing(columns: Sequence[Mapping[str, str]]) -> list[str]:
    keys = dict.fromkeys(key for column in columns for key in column if key != names.CONFIG_ROOT)
    found = [key for key in keys if len({column.get(key) for column in columns if column}) > 1]
    return found[:_MAX_PARAMS]


def _cell(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else tag_value(str(value))
