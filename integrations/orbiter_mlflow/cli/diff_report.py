"""Reports of a diff: for a terminal, as Markdown for a comment, and as JSON for programs.

Names and values are shown as text: whatever they contain, nothing acts on a terminal or a page.
"""

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import takewhile

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from orbiter_mlflow.runs.diff import Change, Difference, MetricDifference, RunDiff
from orbiter_mlflow.runs.model import StoredRun
from orbiter_mlflow.text.escaping import in_json, markdown_code, markdown_text, plain, web_link

__all__ = ["SCHEMA", "json_report", "markdown_report", "terminal_report"]

SCHEMA = 1
"""Version of the JSON; increases with any change that could break a reader."""

_SECTIONS = ("status", "config", "code", "machine", "packages", "datasets")
_HASH = re.compile(r"(?:[0-9a-f]{40}|[0-9a-f]{64})")
_HASH_SHOWN = 12
_MAX_LENGTH = 100
"""Characters of a value that are shown; the JSON has all."""
_CONTEXT = 20
"""Characters that are shown before the first difference."""
_MAX_ROWS = 100
"""Rows of a section in Markdown, so that the report fits into a comment."""
_MISSING = "-"

_Row = tuple[str, list[str]]


# -- rows ------------------------------------------------------------------------------------------


def _rows(diff: RunDiff) -> Iterator[tuple[str, list[_Row]]]:
    """The sections with differences: title, and name and texts of each row."""
    for title in _SECTIONS:
        found: tuple[Difference, ...] = getattr(diff, title)
        if found:
            yield title, [(row.name, _excerpts(row.values)) for row in found]
    if diff.metrics:
        yield "metrics", [(row.name, _measured(row)) for row in diff.metrics]


def _excerpts(values: Sequence[str | None]) -> list[str]:
    """The values; long ones start shortly before they begin to differ."""
    texts = [text[:_HASH_SHOWN] if text and _HASH.fullmatch(text) else text for text in values]
    present = [text for text in texts if text is not None]
    start = 0
    if len(present) > 1 and max(map(len, present)) > _MAX_LENGTH:
        alike = takewhile(lambda column: len(set(column)) == 1, zip(*present, strict=False))
        start = max(0, sum(1 for _ in alike) - _CONTEXT)
    return [_MISSING if text is None else _excerpt(text, start) for text in texts]


def _excerpt(text: str, start: int) -> str:
    shown = f"{'...' if start else ''}{text[start : start + _MAX_LENGTH]}"
    rest = len(text) - start - _MAX_LENGTH
    return f"{shown}... ({len(text)} characters)" if rest > 0 else shown


def _measured(row: MetricDifference) -> list[str]:
    first, *others = (_MISSING if value is None else f"{value:.6g}" for value in row.values)
    alike = len({first, *others}) < len({repr(value) for value in row.values})
    if alike:  # six digits do not show the difference
        first, *others = (_MISSING if value is None else repr(value) for value in row.values)
    changed = zip(others, row.changes[1:], strict=True)
    return [first, *(f"{text}{_change(change)}" for text, change in changed)]


def _change(change: Change) -> str:
    if change.direction is None:
        return ""
    arrow = {"up": "\u2191", "down": "\u2193"}[change.direction]
    percent = "n/a" if change.percent is None else f"{change.percent:+.3g}%"
    return f" {arrow} {percent}"


def _closing(diff: RunDiff) -> list[str]:
    """The lines below the rows."""
    lines = []
    if not any(True for _ in _rows(diff)):
        lines.append("no differences")
    if diff.redacted:
        paths = ", ".join(diff.redacted)
        lines.append(f"redacted, so it is unknown whether they differ: {paths}")
    return [*lines, *dict.fromkeys(diff.notes)]


def _heading(run: StoredRun) -> str:
    return f"{run.name} ({run.run_id[:8]})" if run.name else run.run_id[:8]


# -- terminal --------------------------------------------------------------------------------------


def terminal_report(diff: RunDiff) -> RenderableType:
    """For `rich.console.Console.print`: one table, and notes below it."""
    parts: list[RenderableType] = []
    table = Table()
    table.add_column("")
    for run in diff.runs:
        table.add_column(_text(_heading(run)), overflow="fold")
    table.columns[0].overflow = "fold"
    for title, rows in _rows(diff):
        table.add_section()
        table.add_row(Text(title, style="bold"))
        for name, texts in rows:
            table.add_row(*map(_text, (f"  {name}", *texts)))
    if table.rows:
        parts.append(table)
    return Group(*parts, *map(_text, _closing(diff)))


def _text(text: str) -> Text:
    return Text(plain(text))


# -- Markdown --------------------------------------------------------------------------------------


def markdown_report(diff: RunDiff, link: str | None = None) -> str:
    """For a comment on GitHub or GitLab.

    Args:
        diff: what differs.
        link: address of the page of the MLflow UI that compares the runs.
    """
    blocks = [
        _markdown_table(title, diff.runs, rows, metrics=title == "metrics")
        for title, rows in _rows(diff)
    ]
    blocks.append("\n".join(f"- {markdown_text(line)}" for line in _closing(diff)))
    address = web_link(link) if link is not None else None
    if address is not None:
        blocks.append(f"[Compare in MLflow](<{address}>)")
    return "\n\n".join(filter(None, blocks)) + "\n"


def _markdown_table(
    title: str, runs: Sequence[StoredRun], rows: list[_Row], *, metrics: bool
) -> str:
    headings = [title, *(_heading(run) for run in runs)]
    lines = [
        _markdown_row([markdown_text(text) for text in headings]),
        _markdown_row(["---"] * len(headings)),
    ]
    for name, texts in rows[:_MAX_ROWS]:
        cells = [text if metrics or text == _MISSING else markdown_code(text) for text in texts]
        lines.append(_markdown_row([markdown_code(name), *cells]))
    if len(rows) > _MAX_ROWS:
        more = f"and {len(rows) - _MAX_ROWS} more: `--format json` has them all"
        lines.append(_markdown_row([more, *([""] * len(runs))]))
    return "\n".join(lines)


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


# -- JSON ------------------------------------------------------------------------------------------


def json_report(diff: RunDiff, link: str | None = None) -> str:
    """For programs: nothing is cut; NaN and infinities are the strings nan, inf, -inf."""
    runs = [
        {
            "run_id": run.run_id,
            "name": run.name,
            "experiment_id": run.experiment_id,
            "status": run.status,
        }
        for run in diff.runs
    ]
    sections = {title: [asdict(row) for row in getattr(diff, title)] for title in _SECTIONS}
    metrics = [
        asdict(row) | {"values": [_number(value) for value in row.values]} for row in diff.metrics
    ]
    whole = {
        "schema": SCHEMA,
        "runs": runs,
        **sections,
        "metrics": metrics,
        "redacted": diff.redacted,
        "notes": diff.notes,
        "compare": link,
    }
    return f"{in_json(json.dumps(whole, indent=2, allow_nan=False))}\n"


def _number(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else str(value)
