"""A metric over the blessings: for a terminal, and as JSON for programs."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from orbiter_mlflow.gate.history import LEVEL, Point
from orbiter_mlflow.gate.model import counted
from orbiter_mlflow.gate.reports import figures
from orbiter_mlflow.gate.reports.sparkline import blocks
from orbiter_mlflow.text.escaping import in_json, plain
from orbiter_mlflow.text.shortening import shortened

__all__ = ["SCHEMA", "json_report", "terminal_report"]

SCHEMA = 1
"""Version of the JSON; increases with any change that could break a reader."""
_COMMIT_SHOWN = 12
_REASON_SHOWN = 60


def json_report(metric: str, points: Sequence[Point]) -> str:
    """`{schema, metric, level, points: [...]}` with the fields of `Point`, the oldest first."""
    listed = []
    for point in points:
        fields = asdict(point)
        del fields["blessing"]["metrics"]
        listed.append(fields)
    content = {"schema": SCHEMA, "metric": metric, "level": LEVEL, "points": listed}
    return in_json(json.dumps(content, indent=2, allow_nan=False))


def terminal_report(metric: str, points: Sequence[Point]) -> RenderableType:
    """A line of blocks and a table, the oldest first; texts are shown as text, never as markup."""
    changes = sum(point.is_change for point in points)
    heading = _text(f"{metric}  {blocks([point.summary.mean for point in points])}")
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for title in ("blessed", "commit"):
        table.add_column(title, overflow="fold")
    for title in ("n", "mean", "sd", "change"):
        table.add_column(title, justify="right", overflow="fold")
    for title in ("", "reason"):
        table.add_column(title, overflow="fold")
    for point in points:
        past, summary = point.blessing, point.summary
        table.add_row(
            _text(past.at[:16].replace("T", " ") or "never"),
            _text(past.commit[:_COMMIT_SHOWN] or figures.NONE),
            _text(str(summary.n)),
            _text(figures.number(summary.mean)),
            _text(figures.number(summary.sd, 3)),
            _text(figures.NONE if point.change is None else figures.signed(point.change)),
            _text("change" if point.is_change else "", "bold"),
            _text(shortened(past.reason, _REASON_SHOWN)),
        )
    end = (
        f"{counted(len(points), 'blessing')}, {counted(changes, 'change point')}: unlike the one "
        f"before beyond chance (t-test with the pooled spread, Holm, {LEVEL:.0%})"
    )
    return Group(heading, Text(), table, Text(), _text(end, "dim"))


def _text(text: str, style: str = "") -> Text:
    return Text(plain(text), style, overflow="fold")
