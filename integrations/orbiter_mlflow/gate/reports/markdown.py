"""The report as Markdown for a comment, or for the summary of a CI job, on GitHub or GitLab."""

import re
from collections.abc import Sequence
from hashlib import sha256

from orbiter_mlflow.gate.model import GateReport, MetricResult, Outcome, Verdict, counted
from orbiter_mlflow.gate.reports import wording
from orbiter_mlflow.gate.reports.sections import Section, sections
from orbiter_mlflow.text.escaping import markdown_code, markdown_text, web_link
from orbiter_mlflow.text.shortening import shortened

__all__ = ["MARKER", "MAX_LENGTH", "marker", "render"]

MAX_LENGTH = 60_000
"""Characters of a report; GitHub refuses comments of more than 65,536."""

# The share of each part, so that none can push out the others.
_WARNINGS = 5_000
_PROBLEMS = 6_000
_OPEN_TABLE = 14_000
_TABLES = 20_000
_REASONS = 9_000
_SECTIONS = 8_000
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
_VERDICTS = {
    Verdict.PASS: "\u2705",
    Verdict.FAIL: "\u274c",
    Verdict.INCONCLUSIVE: "\u2754",
    Verdict.CANNOT_COMPARE: "\u26d4",
    Verdict.NEW: "\U0001f195",
    Verdict.UNJUDGED: "\u26aa",
    Verdict.ACCEPTED: "\u2611\ufe0f",
}
_WARNS = "\u26a0\ufe0f"
"""Instead of the icon of a verdict that only warns."""
_COLUMNS = ("verdict", "metric", "baseline", "candidate", "change", "test, p (adjusted), limits")
_ALIGNED = ("---", "---", "---:", "---:", "---:", "---")


def marker(policy: str) -> str:
    """The first line of the comments on one policy, which nobody sees; `MARKER` matches it."""
    return (
        f"<!-- orbiter-mlflow check {sha256(policy.encode(errors='replace')).hexdigest()[:16]} -->"
    )


MARKER = re.compile(r"<!-- orbiter-mlflow check [0-9a-f]{16} -->")


def render(report: GateReport) -> str:
    """The report as a comment of at most `MAX_LENGTH` characters.

    What passed is folded. A longer report keeps the worst metrics and says how much is missing. No
    name, param or reason can become a mention, a link, an image or HTML.
    """
    table = _table(wording.unsettled(report), _OPEN_TABLE)
    passed = [one for one in report.metrics if one.verdict is Verdict.PASS]
    shown = [part for part in sections(report) if not part.folded]
    blocks = [
        marker(report.policy),
        f"### {_MARKS[report.outcome]} {_sentence(wording.headline(report))}",
        "\n".join(
            _fit(
                [f"> **{_sentence(w)}**\n" for w in wording.warnings(report)], _WARNINGS, "warning"
            )
        ),
        _listed(report.problems, _PROBLEMS, "problem"),
        table,
        "\n".join(_fit(list(map(_reason, wording.unsettled(report))), _REASONS, "reason")),
        _passed(passed, _TABLES - len(table)),
        *(_section(part, _SECTIONS // len(shown)) for part in shown),
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


def _table(metrics: list[MetricResult], length: int) -> str:
    if not metrics:
        return ""
    head = [_cells(_COLUMNS), _cells(_ALIGNED)]
    return "\n".join(head + _fit([_row(metric) for metric in metrics], length, "metric"))


def _passed(metrics: list[MetricResult], length: int) -> str:
    if not metrics:
        return ""
    summary = f"{_VERDICTS[Verdict.PASS]} {counted(len(metrics), 'metric')} passed"
    return f"<details><summary>{summary}</summary>\n\n{_table(metrics, length)}\n\n</details>"


def _row(metric: MetricResult) -> str:
    row = wording.row(metric)
    verdict = _sentence(row.verdict)
    p = (
        [f"p = {row.p}".replace("= <", "< ").replace("<", "&lt;")]
        if metric.p_value is not None
        else []
    )
    return _cells(
        [
            f"{_icon(metric)} {verdict if row.verdict == 'pass' else f'**{verdict}**'}",
            f"{_name(row.metric)}<br>{_sentence(row.direction)}",
            row.baseline,
            row.candidate,
            "<br>".join(row.change),
            "<br>".join([_sentence(row.test), *p, *map(_name, row.limits)]),
        ]
    )


def _icon(metric: MetricResult) -> str:
    warns = metric.severity != "fail" and metric.verdict in (
        Verdict.FAIL,
        Verdict.CANNOT_COMPARE,
        Verdict.INCONCLUSIVE,
    )
    return _WARNS if warns else _VERDICTS[metric.verdict]


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
