"""The report as an HTML page: one file that loads nothing else, and in which nothing runs.

`report.html.jinja` holds markup, style and layout; it can be edited without Python.
"""

from functools import cache
from importlib.resources import files

from jinja2 import Environment, StrictUndefined, Template

from orbiter_mlflow.gate.model import GateReport
from orbiter_mlflow.gate.reports import wording
from orbiter_mlflow.gate.reports.plot import history, in_start_order, value_words
from orbiter_mlflow.gate.reports.sections import sections
from orbiter_mlflow.text.escaping import plain, web_link

__all__ = ["render"]


def render(report: GateReport) -> str:
    """The report as a page; each metric's values over the baseline runs are plotted."""
    return _template().render(report=report, metrics=wording.worst_first(report.metrics))


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=True,
        finalize=_plain,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals |= {
        "history": history,
        "in_start_order": in_start_order,
        "sections": sections,
        "value_words": value_words,
        "web_link": web_link,
        "wording": wording,
    }
    source = files("orbiter_mlflow.gate.reports") / "report.html.jinja"
    return environment.from_string(source.read_text(encoding="utf-8"))


def _plain(value: object) -> object:
    """Every text of the page without control characters; markup is what a macro returned."""
    return value if hasattr(value, "__html__") else plain(str(value))
