"""The formats of a report, and the files it is written to.

A new format is a module in this package with a function `render`, and an entry in `FORMATS`: the
command and pytest then have an option of that name.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from orbiter_mlflow.errors import ReportFileError

if TYPE_CHECKING:
    from orbiter_mlflow.gate.model import GateReport


@dataclass(frozen=True, slots=True)
class Format:
    """A file format: `name` is that of its option and of its module in this package."""

    name: str
    help: str


FORMATS = (
    Format(
        "markdown",
        "A comment for a pull request; it is appended if FILE is $GITHUB_STEP_SUMMARY.",
    ),
    Format(
        "junit",
        "JUnit XML: failure = regression, error = cannot compare, skipped = inconclusive.",
    ),
    Format("json", "Everything that was found, for programs."),
    Format("html", "One page for people, with a plot of each metric's values."),
)


def render(report: "GateReport", name: str) -> str:
    """The report as text in the format of that name; loads the module of this format only."""
    text: str = import_module(f"orbiter_mlflow.gate.reports.{name}").render(report)
    return text


def require_writable(
    files: Mapping[str, Path], prefix: str = "--", inputs: Iterable[Path] = ()
) -> None:
    """Check, before anything is judged, that all reports can be written.

    Args:
        files: name of the format -> path.
        prefix: prefix of the options' names, for messages.
        inputs: files that the gate reads; no report may replace them.

    Raises:
        ReportFileError: one of them cannot be written; the message names option, path and reason.
    """
    # `realpath`, because Path.resolve raises on a cycle of links.
    taken: dict[str, str] = {}
    kept = {os.path.realpath(path) for path in inputs}
    for name, path in files.items():
        folder, real = path.absolute().parent, os.path.realpath(path)
        if path.is_dir():
            reason = "is a folder: name a file in it"
        elif not folder.is_dir():
            reason = f"cannot be written: there is no folder {folder}"
        elif not os.access(path if path.exists() else folder, os.W_OK):
            reason = "cannot be written: permission denied"
        elif real in kept:
            reason = "is an input of the gate: name another file"
        elif real in taken:
            reason = f"is also the file of {prefix}{taken[real]}: give each its own"
        else:
            taken[real] = name
            continue
        raise ReportFileError(f"{prefix}{name} {path} {reason}")


def is_step_summary(path: Path) -> bool:
    """Whether this is the summary of a GitHub Actions step, to which all commands append."""
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    return bool(summary) and os.path.realpath(path) == os.path.realpath(summary or "")


def write(path: Path, text: str) -> None:
    """Write a report over what is there, or append it to a step summary.

    Raises:
        OSError: it cannot be written.
    """
    mode = "a" if is_step_summary(path) else "w"
    with path.open(mode, encoding="utf-8", errors="replace") as file:
        file.write(text)
