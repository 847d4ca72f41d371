"""Print the tables, and write them as JSON."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.results import Column, Result

_PACKAGES = ("mlflow", "pydantic", "sqlalchemy", "lightning", "accelerate", "torch", "wandb")


def facts() -> dict[str, Any]:
    """The versions and the machine that the figures depend on."""
    versions: dict[str, str | None] = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "load_at_start": load(),
        "packages": versions,
    }


def load() -> list[float]:
    """The load averages over 1, 5 and 15 minutes."""
    return [round(average, 2) for average in os.getloadavg()]


def show(console: Console, result: Result) -> None:
    """Print one table, its targets and its note."""
    console.print(result.title, style="bold")
    table = Table()
    for column in result.columns:
        table.add_column(
            column.heading, justify="right" if column.format else "left", no_wrap=not column.format
        )
    for row in result.rows:
        table.add_row(*(_text(row.get(column.key), column) for column in result.columns))
    console.print(table)
    for check in result.checks:
        word, colour = ("met", "green") if check.met else ("missed", "red")
        figure = f"{check.figure:.3g}" if abs(check.figure) < 1000 else f"{check.figure:,.0f}"
        console.print(
            f"  [{colour}]{word:>6}[/]  {check.name}: {figure} {check.unit}"
            f" (target {check.sense} {check.target:g} {check.unit})",
            highlight=False,
        )
    console.print(f"  {result.note}\n", style="dim", highlight=False, markup=False)


def _text(value: Any, column: Column) -> str:
    if value is None:
        return "-"
    return format(value, column.format) if column.format else str(value)


def write(path: Path, facts: Mapping[str, Any], results: Sequence[Result]) -> None:
    """Write everything as JSON, including the single measurements."""
    content = {**facts, "tables": {result.name: result.as_json() for result in results}}
    path.write_text(json.dumps(content, indent=1) + "\n")
