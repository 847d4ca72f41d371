"""The gate's reports as files: whether each can be written, known before anything is judged."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from orbiter_mlflow.errors import ReportFileError
from orbiter_mlflow.gate.model import GateReport


def require_writable(
    files: Mapping[str, Path], prefix: str = "--", read: Iterable[Path] = ()
) -> None:
    """See that each report can be written.

    Args:
        files: path by kind.
        prefix: what the names of the options begin with.
        read: files that the gate is judged by; no report may take their place.

    Raises:
        ReportFileError: one of them cannot; it names the option, the path and why.
    """
    # Of strings: Path.resolve raises where links go round in a circle.
    taken: dict[str, str] = {}
    kept = {os.path.realpath(path) for path in read}
    for kind, path in files.items():
        folder, real = path.absolute().parent, os.path.realpath(path)
        if path.is_dir():
            why = "is a folder: name a file in it"
        elif not folder.is_dir():
            why = f"cannot be written: there is no folder {folder}"
        elif not os.access(path if path.exists() else folder, os.W_OK):
            why = "cannot be written: permission denied"
        elif real in kept:
            why = "is what the candidates are judged by: name another file"
        elif real in taken:
            why = f"is also the file of {prefix}{taken[real]}: give each its own"
        else:
            taken[real] = kind
            continue
        raise ReportFileError(f"{prefix}{kind} {path} {why}")


def render(report: GateReport, kinds: Iterable[str]) -> dict[str, str]:
    """The text of each kind of report."""
    from orbiter_mlflow.gate import reports

    renderers = {
        "markdown": reports.markdown,
        "junit": reports.junit,
        "json": reports.to_json,
        "html": reports.html,
    }
    return {kind: renderers[kind](report) for kind in kinds}


def is_shared(path: Path) -> bool:
    """Whether this is the summary of a GitHub Actions step, which all its commands add to."""
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    return bool(summary) and os.path.realpath(path) == os.path.realpath(summary or "")


def write(path: Path, text: str) -> None:
    """Write a report in place of what is there; to a file that is shared, add it.

    Raises:
        OSError: it cannot be written.
    """
    mode = "a" if is_shared(path) else "w"
    with path.open(mode, encoding="utf-8", errors="replace") as file:
        file.write(text)
