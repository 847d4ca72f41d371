"""The report as Markdown for a comment, or for the summary of a CI job, on GitHub or GitLab."""

from collections.abc import Sequence

from orbiter_mlflow.gate.model import GateReport, MetricResult, Outcome, counted
from orbiter_mlflow.gate.reports import wording
from orbiter_mlflow.gate.reports.sections import Section, sections
from orbiter_mlflow.text.escaping import markdown_code, markdown_text, web_link
from orbiter_mlflow.text.shortening import shortened

__all__ = ["MAX_LENGTH", "render"]

MAX_LENGTH = 60_000
"""Characters of a report; GitHub refuses comments of more than 65,536."""

# The share of each part, so that none can push out the others.
_WARNINGS = 7_000
_PROBLEMS = 7_000
_TABLE = 18_000
_REASONS = 10_000
_SECTION = 5_000
_LINKS = 2_000
_DETAILS = 8_000

_LONGEST_TEXT = 500
"""Characters of a sentence, before escaping makes it longer."""

_MARKS = {
    Outcome.PASS: "\u2705",
    Outcome.WARN: "\u26a0\ufe0f",
    Outcome.REGRESSION: "\u274c",
    Outcome.CANNOT_COMPARE: "\u26d4",
    Outcome.INCONCLUSIVE: "\u2754",
}
_COLUMNS = (
    "metric",
    "verdict",
    "baseline",
    "candidate",
    "change",
    "p (adjusted)",
    "test",
    "limits",
)


def render(report: GateReport) -> str:
    """The report as a comment of at most `MAX_LENGTH` characters.

    A longer report keeps the worst metrics and says how much is missing. No name, param or reason
    can become a mention, a link, an image or HTML.
    """
    blocks = [
        f"### {_MARKS[report.outcome]} {_sentence(wording.headline(report))}",
        "\n".join(
            _fit(
                [f"> **{_sentence(w)}**\n" for w in wording.warnings(report)], _WARNINGS, "warning"
            )
        ),
        _listed(report.problems, _PROBLEMS, "problem"),
        _table(wording.worst_first(report.metrics)),
        "\n".join(_fit(list(map(_reason, wording.unsettled(report))), _REASONS, "reason")),
        *(_section(part, _SECTION) for part in sections(report) if not part.folded),
        "\n".join(_fit([_link(*link) for link in _public_links(report)], _LINKS, "link")),
        _details(report),
    ]
    return "\n\n".join(block.strip("\n") for block in blocks if block) + "\n"


def _public_links(report: GateReport) -> list[tuple[str, str]]:
    """Links that work for other people: not those to a server on this machine."""
    links = (report.links or {}).items()
    return [(title, url) for title, url in links if not url.startswith("http://127.0.0.1:")]


def _sentence(text: str) -> str:
    return markdown_text(shortened(text, _LONGEST_TEXT))


def _name(text: str) -> str:
    return markdown_code(shortened(text, wording.LONGEST_VALUE))


def _listed(texts: Sequence[str], length: int, what: str) -> str:
    return "\n".join(_fit([f"- {_sentence(text)}" for text in texts], length, what))


def _fit(lines: list[str], length: int, what: str) -> list[str]:
    """The lines that fit into `length` characters, and how many more there are."""
    left = length
    for at, line in enumerate(lines):
        left -= len(line) + 1
        if left < 0:
            more = counted(len(lines) - at, f"more {what}")
            return [*lines[:at], "", f"_... and {more}, cut for length: see the other reports_"]
    return lines


def _table(metrics: list[MetricResult]) -> str:
    if not metrics:
        return ""
    head = [_cells(_COLUMNS), _cells(["---"] * 2 + ["---:"] * 4 + ["---"] * 2)]
    return "\n".join(head + _fit([_row(metric) for metric in metrics], _TABLE, "metric"))


def _row(metric: MetricResult) -> str:
    row = wording.row(metric)
    verdict = _sentence(row.verdict)
    return _cells(
        [
            f"{_name(row.metric)}<br>{_sentence(row.direction)}",
            verdict if row.verdict == "pass" else f"**{verdict}**",
            row.baseline,
            row.candidate,
            "<br>".join(row.change),
            row.p.replace("<", "&lt;"),
            _sentence(row.test),
            "<br>".join(map(_name, row.limits)),
        ]
    )


def _cells(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _reason(metric: MetricResult) -> str:
    verdict = _sentence(wording.verdict_words(metric))
    return f"- {_name(metric.metric)} **{verdict}**: {_sentence(metric.reason)}"


def _section(section: Section, length: int) -> str:
    blocks = [f"{_sentence(section.title)}:"]
    if section.lines:
        blocks.append(_listed(section.lines, length, "line"))
    if section.rows:
        head = [_cells(section.columns), _cells(["---"] * len(section.columns))]
        rows = [_cells(list(map(_name, row))) for row in section.rows]
        blocks.append("\n".join(head + _fit(rows, length, section.columns[0])))
    return "\n\n".join(blocks)


def _details(report: GateReport) -> str:
    parts = [f"- **{label}**: {_sentence(text)}" for label, text in wording.provenance(report)]
    folded = [_section(part, _DETAILS) for part in sections(report) if part.folded]
    shown = _fit(
        [*parts, *(line for text in folded for line in ("", *text.split("\n")))], _DETAILS, "line"
    )
    summary = "<details><summary>What was compared, and how</summary>"
    return "\n".join([summary, "", *shown, "", "</details>"])


def _link(title: str, url: str) -> str:
    address = web_link(url)
    if address is None:
        return f"- {_sentence(title)}: {_name(url)}"
    return f"- [{_sentence(title)}](<{address.replace('&', '&amp;')}>)"
