"""A ranking of configs: for a terminal, and as JSON for programs."""

import json
from collections import Counter
from collections.abc import Sequence

from rich import box
from rich.console import Group as Lines
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from orbiter_mlflow.gate.model import LeftOut, Sample, counted
from orbiter_mlflow.gate.ranking import CONFIDENCE, Group, Ranking
from orbiter_mlflow.gate.reports import figures
from orbiter_mlflow.text.escaping import in_json, plain
from orbiter_mlflow.text.shortening import shortened
from orbiter_mlflow.ui.columns import table_params

__all__ = ["SCHEMA", "json_report", "terminal_report"]

SCHEMA = 1
"""Version of the JSON; increases with any change that could break a reader."""
_PARAMS = "params."
_VALUE_SHOWN = 60
_REASONS_SHOWN = 8


def json_report(ranking: Ranking) -> str:
    """Everything that was found, the best group first.

    `{schema, metric, direction, confidence, group_by, groups, left_out, notes}`; each of `groups`
    has `{fields, n, mean, sd, interval, runs}`. NaN and infinities are the strings nan, inf, -inf.
    """
    content = {
        "schema": SCHEMA,
        "metric": ranking.metric,
        "direction": ranking.direction,
        "confidence": CONFIDENCE,
        "group_by": ranking.by,
        "groups": [_json_group(group, ranking.metric) for group in ranking.groups],
        "left_out": [
            {"run_id": one.run_id, "name": one.name, "reason": one.reason}
            for one in ranking.left_out
        ],
        "notes": ranking.notes,
    }
    return in_json(json.dumps(content, indent=2, allow_nan=False))


def _json_group(group: Group, metric: str) -> dict[str, object]:
    summary = group.summary
    return {
        "fields": dict(group.fields),
        "n": len(group.runs),
        "mean": None if summary is None else summary.mean,
        "sd": None if summary is None else summary.sd,
        "interval": group.interval,
        "runs": [
            {"run_id": run.run_id, "name": run.name, "value": _json_number(run.metrics[metric])}
            for run in group.runs
        ],
    }


def _json_number(value: float) -> float | str:
    return value if figures.is_finite(value) else figures.number(value).lower()


def terminal_report(ranking: Ranking) -> RenderableType:
    """A table, the best group first; texts are shown as text, never as markup."""
    shown = _shown_fields(ranking)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for name in shown:
        table.add_column(_text(name.removeprefix(_PARAMS)), overflow="fold")
    for title in ("n", "mean", "sd", f"{CONFIDENCE:.0%} interval"):
        table.add_column(title, justify="right", overflow="fold")
    table.add_column("best run", overflow="fold")
    for group in ranking.groups:
        table.add_row(
            *(_text(_value(group.fields[name])) for name in shown),
            *_figures(group, ranking.metric),
            _text(_run(group)),
        )
    lines = [f"{ranking.metric}, the {ranking.direction} the better"]
    if more := len(ranking.by) - len(shown):
        lines.append(f"in the JSON alone: {counted(more, 'more param')} in which they differ")
    ending = [*(f"note: {note}" for note in ranking.notes), *_left_out(ranking.left_out)]
    if any(group.interval is None for group in ranking.groups):
        ending.append("an interval needs two runs or more with finite values that differ")
    return Lines(
        *map(_text, lines), Text(), table, Text(), *(_text(line, "dim") for line in ending)
    )


def _shown_fields(ranking: Ranking) -> list[str]:
    """The fields that get a column: those that the user named, else the datasets, and the params
    as in the UI's table."""
    if ranking.by_request:
        return [*ranking.by]
    params = [
        {
            name.removeprefix(_PARAMS): text
            for name, text in group.fields.items()
            if text is not None and name.startswith(_PARAMS)
        }
        for group in ranking.groups
    ]
    fitting = table_params(params)
    return [
        name
        for name in ranking.by
        if not name.startswith(_PARAMS) or name.removeprefix(_PARAMS) in fitting
    ]


def _figures(group: Group, metric: str) -> list[Text]:
    summary, interval = group.summary, group.interval
    if summary is None:
        values = Sample({run.run_id: run.metrics[metric] for run in group.runs})
        texts = [str(len(group.runs)), figures.number(figures.mean(values)), figures.NONE]
    else:
        texts = [str(summary.n), figures.number(summary.mean), figures.number(summary.sd, 3)]
    between = figures.NONE
    if interval is not None:
        between = " to ".join(figures.number(end, 4) for end in interval)
    return [_text(text) for text in (*texts, between)]


def _run(group: Group) -> str:
    best = group.runs[0]
    return f"{best.name} ({best.run_id[:8]})" if best.name else best.run_id[:8]


def _value(text: str | None) -> str:
    return figures.NONE if text is None else shortened(text, _VALUE_SHOWN)


def _left_out(left_out: Sequence[LeftOut]) -> list[str]:
    """How many runs do not count, by reason, the most frequent first."""
    reasons = Counter(one.reason for one in left_out).most_common()
    lines = [f"left out: {counted(count, 'run')}: {reason}" for reason, count in reasons]
    if len(lines) > _REASONS_SHOWN:
        more = len(left_out) - sum(count for _, count in reasons[:_REASONS_SHOWN])
        lines[_REASONS_SHOWN:] = [f"left out: {counted(more, 'more run')}: --format json has them"]
    return lines


def _text(text: str, style: str = "") -> Text:
    return Text(plain(text), style, overflow="fold")
