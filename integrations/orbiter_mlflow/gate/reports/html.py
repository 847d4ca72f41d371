"""The report as an HTML page: one file that loads nothing else, and in which nothing runs.

The templates `*.html.jinja` hold markup, style and layout; they can be edited without Python.
"""

from functools import cache
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from orbiter_mlflow.gate.model import GateReport, MetricResult
from orbiter_mlflow.gate.reports import wording
from orbiter_mlflow.gate.reports.plot import history, in_start_order, value_words
from orbiter_mlflow.gate.reports.sections import sections
from orbiter_mlflow.gate.reports.sparkline import sparkline
from orbiter_mlflow.text.escaping import plain, web_link

__all__ = ["MAX_CARDS", "render"]

MAX_CARDS = 1_300_000
"""Bytes of the plots and the values of runs, so that the page of 200 metrics is below 2 MB."""


def render(report: GateReport) -> str:
    """The report as a page; the values of the worst metrics are plotted over the baseline runs."""
    metrics = wording.worst_first(report.metrics)
    cards = _cards(report, metrics)
    page = _environment().get_template("report.html.jinja")
    return page.render(report=report, metrics=metrics, cards=cards, undrawn=metrics[len(cards) :])


def _cards(report: GateReport, metrics: list[MetricResult]) -> list[Markup]:
    """A card with plot and values for each metric, as long as `MAX_CARDS` allows."""
    template = _environment().get_template("card.html.jinja")
    cards: list[Markup] = []
    left = MAX_CARDS
    for metric in metrics:
        card = template.render(report=report, metric=metric, id=f"plot-{len(cards)}")
        left -= len(card.encode())
        if left < 0 and cards:
            break
        cards.append(Markup(card))  # noqa: S704  the template has escaped it
    return cards


@cache
def _environment() -> Environment:
    environment = Environment(
        autoescape=True,
        finalize=_plain,
        loader=FunctionLoader(_source),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals |= {
        "history": history,
        "in_start_order": in_start_order,
        "sections": sections,
        "sparkline": sparkline,
        "value_words": value_words,
        "web_link": web_link,
        "wording": wording,
    }
    return environment


def _source(name: str) -> str:
    return (files("orbiter_mlflow.gate.reports") / name).read_text(encoding="utf-8")


def _plain(value: object) -> object:
    """Every text of the page without control characters; markup is what a macro returned."""
    return value if hasattr(value, "__html__") else plain(str(value))
