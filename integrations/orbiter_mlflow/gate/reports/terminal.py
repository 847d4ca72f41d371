"""The report in a terminal, and as plain text for the summary of a test run."""

from collections.abc import Iterable
from io import StringIO

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.style import Style
from rich.table import Table
from rich.text import Text

from orbiter_mlflow.gate.model import GateReport, MetricResult, Outcome, Verdict
from orbiter_mlflow.gate.reports import figures, wording
from orbiter_mlflow.gate.reports.sections import Section, sections
from orbiter_mlflow.text.escaping import plain, web_link

__all__ = ["render", "renderable"]

_OUTCOMES = {
    Outcome.PASS: "bold green",
    Outcome.WARN: "bold yellow",
    Outcome.REGRESSION: "bold red",
    Outcome.CANNOT_COMPARE: "bold red",
    Outcome.INCONCLUSIVE: "bold yellow",
}
_VERDICTS = {
    Verdict.PASS: "green",
    Verdict.FAIL: "bold red",
    Verdict.CANNOT_COMPARE: "red",
    Verdict.INCONCLUSIVE: "yellow",
    Verdict.NEW: "cyan",
    Verdict.UNJUDGED: "yellow",
    Verdict.ACCEPTED: "yellow",
}


def renderable(report: GateReport) -> RenderableType:
    """The report for `rich.console.Console.print`, with colours and links if the terminal has them.

    The first line is the outcome. Names, params and reasons are shown as text, never as markup.
    """
    parts: list[RenderableType] = [
        _text(wording.headline(report), _OUTCOMES[report.outcome]),
        *(Panel(_text(warning), style="bold yellow") for warning in wording.warnings(report)),
        *_section("Problems", map(_text, report.problems)),
    ]
    if report.metrics:
        parts += [_heading(""), _metrics(wording.worst_first(report.metrics))]
    parts += _section("Why", map(_reason, wording.unsettled(report)))
    for part in sections(report):
        parts += _section(part.title, map(_text, part.lines)) or [_heading(part.title)]
        parts += [_rows(part)] if part.rows else []
    parts += _section("Links", [_link(*link) for link in (report.links or {}).items()])
    parts += [_heading(""), _provenance(report)]
    return Group(*parts)


def render(report: GateReport, width: int = 100) -> str:
    """The report as text without colours and links, `width` characters wide."""
    lines = StringIO()
    console = Console(
        file=lines, width=width, color_system=None, force_terminal=False, legacy_windows=False
    )
    console.print(renderable(report))
    return "\n".join(line.rstrip() for line in lines.getvalue().splitlines()) + "\n"


def _text(text: str, style: str = "") -> Text:
    """Text without markup: rich would interpret markup in a plain `str`."""
    return Text(plain(text), style, overflow="fold")


def _heading(text: str) -> RenderableType:
    return Padding(_text(text, "bold"), (1, 0, 0, 0)) if text else Text()


def _section(title: str, entries: Iterable[Text]) -> list[RenderableType]:
    listed = Table.grid(padding=(0, 1))
    for entry in entries:
        listed.add_row("  -", entry)
    return [_heading(title), listed] if listed.row_count else []


def _table(*titles: str) -> Table:
    """A table that fits into the 80 columns of a CI log."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for title in titles:
        table.add_column(title, overflow="fold")
    return table


def _metrics(metrics: list[MetricResult]) -> Table:
    table = _table("metric", "verdict")
    for title in ("baseline", "candidate", "change"):
        table.add_column(title, justify="right", overflow="fold")
    table.add_column("test, limits", overflow="fold")
    for metric in metrics:
        row = wording.row(metric)
        table.add_row(
            _lines(row.metric, row.direction),
            _text(row.verdict, _VERDICTS[metric.verdict]),
            _lines(*row.baseline.split(" ", 1)),
            _lines(*row.candidate.split(" ", 1)),
            _lines(*row.change),
            _lines(row.test, *_p(metric), *row.limits),
            end_section=True,
        )
    return table


def _p(metric: MetricResult) -> list[str]:
    both = (("p =", metric.p_value), ("adjusted", metric.p_adjusted))
    lines = [f"{label} {figures.p_value(p, None)}" for label, p in both if p is not None]
    return [line.replace("= <", "<").replace("<", "< ") for line in lines]


def _lines(first: str, *others: str) -> Text:
    shown = _text(first)
    for other in others:
        shown.append("\n").append(plain(other), "dim")
    return shown


def _reason(metric: MetricResult) -> Text:
    shown = _text(metric.metric, "bold")
    shown.append(f" {wording.verdict_words(metric)}", _VERDICTS[metric.verdict])
    return shown.append(f": {plain(metric.reason)}")


def _rows(section: Section) -> Table:
    table = _table(*section.columns)
    for row in section.rows:
        table.add_row(*map(_text, row))
    return table


def _link(title: str, url: str) -> Text:
    address = web_link(url)
    shown = _text(f"{title}: ")
    return shown.append(plain(url), Style(link=address) if address is not None else "")


def _provenance(report: GateReport) -> Table:
    listed = Table.grid(padding=(0, 1))
    for label, text in wording.provenance(report):
        listed.add_row(_text(f"{label}:", "dim"), _text(text))
    return listed
