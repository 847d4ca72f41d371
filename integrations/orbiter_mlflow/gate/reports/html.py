"""The report as a page: one file that asks for nothing else, and in which nothing runs."""

from collections.abc import Iterable, Sequence

from orbiter_mlflow.gate.model import (
    GateReport,
    GateRun,
    MetricResult,
    Outcome,
    Sample,
    Verdict,
)
from orbiter_mlflow.gate.reports import figures, plot, wording
from orbiter_mlflow.gate.reports.markup import Element, element, serialized
from orbiter_mlflow.gate.reports.style import STYLE
from orbiter_mlflow.text.escaping import web_link

__all__ = ["html"]

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

_OUTCOMES = {
    Outcome.PASS: "good",
    Outcome.WARN: "warn",
    Outcome.REGRESSION: "bad",
    Outcome.CANNOT_COMPARE: "bad",
    Outcome.INCONCLUSIVE: "warn",
}
_VERDICTS = {
    Verdict.PASS: ("\u2713", "good"),
    Verdict.FAIL: ("\u2717", "bad"),
    Verdict.CANNOT_COMPARE: ("!", "bad"),
    Verdict.INCONCLUSIVE: ("?", "warn"),
    Verdict.UNJUDGED: ("\u25cb", "warn"),
    Verdict.NEW: ("+", "warn"),
}
_COLUMNS = (
    ("metric", "words"),
    ("verdict", "words"),
    ("baseline", "figure"),
    ("candidate", "figure"),
    ("change", "figure"),
    ("p (adjusted)", "figure"),
    ("test, limits", "words"),
)


def html(report: GateReport) -> str:
    """The report as a page that is read from a file: no script, no font, no image of elsewhere.

    Each metric's values over the baseline runs are plotted, with the candidate beside them.
    """
    answer = wording.headline(report)
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{answer} \u2013 {report.policy}"),
        _style(),
    )
    main = element(
        "main",
        element("h1", answer, class_=f"answer {_OUTCOMES[report.outcome]}"),
        *[element("p", text, class_="warning", role="note") for text in wording.warnings(report)],
        *_listed("Problems", report.problems),
        *_table(wording.worst_first(report.metrics)),
        *_differences(report),
        *_cards(report),
        *_listed(
            f"Left out of the baseline: {wording.counted(len(report.left_out), 'run')}",
            wording.left_out(report),
        ),
        *_listed("Notes", report.notes),
        *_links(report),
        element("h2", "What was compared, and how"),
        _provenance(report),
    )
    return serialized(element("html", head, element("body", main), lang="en"))


def _style() -> Element:
    """The text of a style element is read as it stands: it is ours, and not to be escaped."""
    made = element("style")
    made.text = STYLE
    return made


def _listed(title: str, texts: Sequence[str]) -> list[Element]:
    if not texts:
        return []
    return [element("h2", title), element("ul", *[element("li", text) for text in texts])]


# -- metrics -------------------------------------------------------------------------------------


def _verdict(metric: MetricResult) -> Element:
    mark, kind = _VERDICTS[metric.verdict]
    return element("span", f"{mark} {wording.verdict_words(metric)}", class_=f"verdict {kind}")


def _table(metrics: list[MetricResult]) -> list[Element]:
    if not metrics:
        return []
    head = [
        element("th", name, scope="col", role="columnheader", class_=kind)
        for name, kind in _COLUMNS
    ]
    rows = [_row(metric) for metric in metrics]
    table = element(
        "table",
        element("caption", "The candidate's metrics against the baseline's, worst first"),
        element("thead", element("tr", *head, role="row"), role="rowgroup"),
        element("tbody", *rows, role="rowgroup"),
        class_="stacked",
        role="table",  # a table that is laid out as blocks on a phone stays one to a screen reader
    )
    return [element("h2", "Metrics"), table]


def _row(metric: MetricResult) -> Element:
    row = wording.row(metric)
    cells: list[list[Element | str]] = [
        [_verdict(metric)],
        _lines(*row.baseline.split(" ", 1)),
        _lines(*row.candidate.split(" ", 1)),
        _lines(*row.change),
        _lines(*row.p.split(" ", 1)),
        _lines(row.test, *row.limits),
    ]
    return element(
        "tr",
        element("th", *_lines(row.metric, row.direction), scope="row", role="rowheader"),
        *[
            element("td", element("span", *cell), class_=kind, role="cell", data_label=name)
            for (name, kind), cell in zip(_COLUMNS[1:], cells, strict=True)
        ],
        role="row",
    )


def _lines(first: str, *others: str) -> list[Element | str]:
    return [f"{first} ", *[element("small", other) for other in others]]


def _cards(report: GateReport) -> list[Element]:
    cards = [
        element(
            "section",
            element("header", element("h3", element("code", metric.metric)), _verdict(metric)),
            element("p", metric.reason),
            element(
                "p", f"{wording.direction_words(metric)}; {', '.join(metric.limits)}", class_="soft"
            ),
            plot.history(report, metric, f"plot-{at}"),
            _runs(report, metric),
            class_="card",
        )
        for at, metric in enumerate(wording.worst_first(report.metrics), 1)
    ]
    if not cards:
        return []
    return [element("h2", "Each metric over the runs"), element("div", *cards, class_="cards")]


def _runs(report: GateReport, metric: MetricResult) -> Element:
    """The plot's values as a table, for those who read rather than look."""
    sides: list[tuple[str, Sequence[GateRun], Sample]] = [
        ("candidate", report.candidate, metric.candidate),
        ("baseline", report.baseline, metric.baseline),
    ]
    rows = [
        element(
            "tr",
            element("td", side, class_="side"),
            element("td", wording.run_words(run)),
            element("td", _value(run, sample), class_="figure"),
        )
        for side, runs, sample in sides
        for run in plot.in_start_order(runs)
    ]
    head = element("tr", *[element("th", name, scope="col") for name in ("side", "run", "value")])
    table = element("table", element("thead", head), element("tbody", *rows))
    return element("details", element("summary", "Values of each run"), table)


def _value(run: GateRun, sample: Sample) -> str:
    value = sample.values.get(run.run_id)
    return "missing" if value is None else figures.number(value)


# -- the rest ------------------------------------------------------------------------------------


def _differences(report: GateReport) -> list[Element]:
    if not report.differences:
        return []
    columns = ("field", "candidate", "baseline")
    rows: Iterable[Element] = (
        element(
            "tr",
            element("th", element("code", d.field), scope="row"),
            element("td", wording.seen(d.candidate)),
            element("td", wording.seen(d.baseline)),
        )
        for d in report.differences
    )
    head = element("tr", *[element("th", name, scope="col") for name in columns])
    return [
        element("h2", "Fields that must be equal, and differ"),
        element("table", element("thead", head), element("tbody", *rows)),
    ]


def _links(report: GateReport) -> list[Element]:
    if not report.links:
        return []
    entries = []
    for title, url in report.links.items():
        address = web_link(url)
        shown = (
            element("a", title, href=address, rel="noreferrer") if address else f"{title}: {url}"
        )
        entries.append(element("li", shown))
    return [element("h2", "Links"), element("ul", *entries)]


def _provenance(report: GateReport) -> Element:
    pairs = [
        (element("dt", label), element("dd", text)) for label, text in wording.provenance(report)
    ]
    return element("dl", *[part for pair in pairs for part in pair])
