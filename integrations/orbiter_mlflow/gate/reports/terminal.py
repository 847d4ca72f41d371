"""The report in a terminal, and as plain text for the summary of a test run."""

import re
from collections.abc import Iterable, Sequence
from io import StringIO

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, JustifyMethod, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.panel import Panel
from rich.rule import Rule
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
        _Breakable(_text(wording.headline(report), _OUTCOMES[report.outcome])),
        *(Panel(_text(warning), style="bold yellow") for warning in wording.warnings(report)),
        *_section("Problems", map(_text, report.problems)),
    ]
    if report.metrics:
        parts += [_heading(""), _Metrics(wording.worst_first(report.metrics))]
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


class _Breakable:
    """A text whose words, where they are longer than a line, break after `/`, `_` and `-`."""

    def __init__(self, text: Text) -> None:
        self._text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        breaks: list[int] = []
        for word in re.finditer(r"\S+", self._text.plain):
            if cell_len(word[0]) > options.max_width:
                breaks += _breaks(word[0], word.start(), options.max_width)
        lines = self._text.divide(at for at in breaks if at)
        yield Text("\n", overflow="fold").join(lines)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, self._text)


def _breaks(word: str, start: int, width: int) -> list[int]:
    """Where a word that starts there is broken into lines; also before it."""
    found, used = [start], 0
    for piece in re.finditer(r"[^/_-]+[/_-]*|[/_-]+", word):
        length = cell_len(piece[0])
        if used and used + length > width:
            found.append(start + piece.start())
            used = 0
        used += length
    return found


def _heading(text: str) -> RenderableType:
    return Padding(_text(text, "bold"), (1, 0, 0, 0)) if text else Text()


def _section(title: str, entries: Iterable[RenderableType]) -> list[RenderableType]:
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


class _Metrics:
    """The table of metrics: each name on a line of its own, so that none is cut in the middle."""

    _JUSTIFY: tuple[JustifyMethod, ...] = ("left", "right", "right", "right", "left")
    _GAP = 2

    def __init__(self, metrics: list[MetricResult]) -> None:
        self._metrics = metrics

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        head = [
            _text(title, "bold")
            for title in ("verdict", "baseline", "candidate", "change", "test, limits")
        ]
        rows = [_figures(metric) for metric in self._metrics]
        columns = ["\n".join(cell.plain for cell in of) for of in zip(head, *rows, strict=True)]
        room = options.max_width - self._GAP * len(columns)
        widths = _narrowed(
            [max(map(cell_len, column.split("\n"))) for column in columns],
            [max(map(cell_len, column.split())) for column in columns],
            room,
        )
        yield self._row(head, widths)
        yield Rule(style="", characters="\u2500")
        for at, (metric, cells) in enumerate(zip(self._metrics, rows, strict=True)):
            if at:
                yield Text()
            yield _Breakable(_lines(metric.metric, f"  {wording.direction_words(metric)}", by=""))
            yield self._row(cells, widths)

    def _row(self, cells: Sequence[Text], widths: Sequence[int]) -> RenderableType:
        row = Table.grid()
        shown: list[RenderableType] = []
        for cell, width, justify in zip(cells, widths, self._JUSTIFY, strict=True):
            row.add_column(width=self._GAP)
            row.add_column(width=width, justify=justify, overflow="fold")
            shown += ["", _Breakable(cell)]
        row.add_row(*shown)
        return row


def _narrowed(widths: list[int], words: list[int], room: int) -> list[int]:
    """Widths that fit into the room: the widest columns break first between words, then in them."""
    for least in (words, [1] * len(words)):
        while sum(widths) > room:
            spare = [width if width > low else 0 for width, low in zip(widths, least, strict=True)]
            if not any(spare):
                break
            widths[spare.index(max(spare))] -= 1
    return widths


def _figures(metric: MetricResult) -> list[Text]:
    row = wording.row(metric)
    return [
        _text(row.verdict, _VERDICTS[metric.verdict]),
        _lines(*row.baseline.split(" ", 1)),
        _lines(*row.candidate.split(" ", 1)),
        _lines(*row.change),
        _lines(row.test, *_p(metric), *row.limits),
    ]


def _p(metric: MetricResult) -> list[str]:
    both = (("p =", metric.p_value), ("adjusted", metric.p_adjusted))
    lines = [f"{label} {figures.p_value(p, None)}" for label, p in both if p is not None]
    return [line.replace("= <", "<").replace("<", "< ") for line in lines]


def _lines(first: str, *others: str, by: str = "\n") -> Text:
    shown = _text(first)
    for other in others:
        shown.append(by).append(plain(other), "dim")
    return shown


def _reason(metric: MetricResult) -> RenderableType:
    shown = _text(metric.metric, "bold")
    shown.append(f" {wording.verdict_words(metric)}", _VERDICTS[metric.verdict])
    return _Breakable(shown.append(f": {plain(metric.reason)}"))


def _rows(section: Section) -> Table:
    table = _table(*section.columns)
    for row in section.rows:
        table.add_row(*(_Breakable(_text(cell)) for cell in row))
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
