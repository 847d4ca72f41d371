"""The report as JUnit XML, which CI services show beside the tests.

A metric, or a comparison example by example, is a test case: `failure` is a regression, `error` one
that cannot be compared, `skipped` one that is inconclusive or was not judged. What the policy only
warns about passes, so that it fails no build; its `system-out` has the warning.
"""

from xml.etree import ElementTree

from orbiter_mlflow.gate.examples.model import ExamplesResult
from orbiter_mlflow.gate.model import GateReport, MetricResult, Outcome, Verdict
from orbiter_mlflow.gate.reports import examples, wording
from orbiter_mlflow.gate.reports.sections import sections
from orbiter_mlflow.text.escaping import plain

__all__ = ["render"]

_SUITE = "orbiter-mlflow check"
_CLASS = "orbiter_mlflow.gate"
_WHOLE = "candidate and baseline can be compared"

_ELEMENTS = {
    Verdict.FAIL: "failure",
    Verdict.CANNOT_COMPARE: "error",
    Verdict.INCONCLUSIVE: "skipped",
    Verdict.UNJUDGED: "skipped",
}


def render(report: GateReport) -> str:
    """The report as JUnit XML: `testsuites` with one `testsuite`.

    If the candidate cannot be compared at all, the error is in a test case of its own. All times
    are 0, because the gate measures nothing itself.
    """
    cases = [_case(metric, metric.metric, _figures(metric)) for metric in report.metrics]
    cases += [
        _case(one, f"{one.name}, example by example", _lines(examples.summary(one)))
        for one in report.examples
    ]
    if (
        report.problems
        or report.differences
        or (
            report.outcome is Outcome.CANNOT_COMPARE
            and not any(case.find("error") is not None for case in cases)
        )
    ):
        cases.insert(0, _comparison(report))
    counts = {
        "tests": str(len(cases)),
        **{
            plural: str(sum(case.find(element) is not None for case in cases))
            for plural, element in (
                ("failures", "failure"),
                ("errors", "error"),
                ("skipped", "skipped"),
            )
        },
        "time": "0",
    }
    suites = ElementTree.Element("testsuites", counts, name=_SUITE)
    suite = ElementTree.SubElement(suites, "testsuite", counts, name=_SUITE)
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in (
        ("outcome", report.outcome.value),
        ("policy", report.policy),
        ("policy_digest", report.policy_digest),
        ("baseline", report.source.described),
    ):
        ElementTree.SubElement(properties, "property", name=name, value=plain(value))
    suite.extend(cases)
    output = [wording.headline(report), *wording.warnings(report)]
    for part in sections(report):
        output += [f"{part.title}:", *part.lines]
        output += ["; ".join(row) for row in part.rows]
    ElementTree.SubElement(suite, "system-out").text = _lines(output)
    ElementTree.indent(suites)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(suites, "unicode")}\n'


def _case(result: MetricResult | ExamplesResult, name: str, figures: str) -> ElementTree.Element:
    case = ElementTree.Element(
        "testcase", classname=_CLASS, name=plain(name) or "(empty)", time="0"
    )
    element = _ELEMENTS.get(result.verdict) if result.severity == "fail" else None
    if element is not None:
        found = ElementTree.SubElement(
            case,
            element,
            type=result.verdict.value,
            message=plain(f"{wording.verdict_words(result)}: {result.reason}"),
        )
        found.text = figures
    if element != "failure":
        ElementTree.SubElement(case, "system-out").text = figures
    return case


def _figures(metric: MetricResult) -> str:
    row = wording.row(metric)
    return _lines(
        [
            f"{row.verdict}: {metric.reason}",
            f"baseline: {row.baseline}",
            f"candidate: {row.candidate}",
            f"change: {'; '.join(row.change)} ({row.direction})",
            f"p (adjusted): {row.p}",
            f"test: {row.test}",
            f"limits: {', '.join(row.limits)}",
        ]
    )


def _comparison(report: GateReport) -> ElementTree.Element:
    case = ElementTree.Element("testcase", classname=_CLASS, name=_WHOLE, time="0")
    why = list(report.problems) + [
        f"{d.field}: candidate has {wording.field_values(d.candidate)}; "
        f"baseline has {wording.field_values(d.baseline)}"
        for d in report.differences
    ]
    message = plain(why[0]) if len(why) == 1 else plain(wording.headline(report))
    error = ElementTree.SubElement(
        case, "error", type=Outcome.CANNOT_COMPARE.value, message=message
    )
    error.text = _lines(why)
    return case


def _lines(texts: list[str]) -> str:
    return "\n".join(map(plain, texts))
