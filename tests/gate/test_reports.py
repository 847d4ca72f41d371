"""The gate's reports: the outcome comes first, everything is shown, and no name acts."""

import json
import re
from collections.abc import Callable
from dataclasses import fields, replace
from html.parser import HTMLParser
from io import StringIO
from math import inf, nan
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console

import gate_reports as examples
from gate_reports import EXAMPLES, GOLDEN, HOSTILE, golden, named
from orbiter_mlflow.gate.model import (
    BaselineSource,
    Bound,
    FieldDifference,
    GateReport,
    GateRun,
    LeftOut,
    MetricResult,
    Sample,
    Verdict,
    WorstRun,
)
from orbiter_mlflow.gate.reports import figures
from orbiter_mlflow.gate.reports.html import render as html
from orbiter_mlflow.gate.reports.json import render as to_json
from orbiter_mlflow.gate.reports.junit import render as junit
from orbiter_mlflow.gate.reports.markdown import MARKER, MAX_LENGTH, marker
from orbiter_mlflow.gate.reports.markdown import render as markdown
from orbiter_mlflow.gate.reports.terminal import render as as_text
from orbiter_mlflow.gate.reports.terminal import renderable

FORMATS: dict[str, Callable[[GateReport], str]] = {
    "terminal": as_text,
    "markdown": markdown,
    "junit": junit,
    "json": to_json,
    "html": html,
}
assert examples.LOSS.worst is not None
LOSS_WORST = examples.LOSS.worst
every_example = pytest.mark.parametrize("report", EXAMPLES.values(), ids=EXAMPLES.keys())

ANY_TEXT = st.text(
    st.one_of(
        st.sampled_from("`|<>[]()@#&*_\\\n\r\x00\x1b\x9b\u2028\u202e\ud800\ufffe/!$:'\"-1a"),
        st.characters(exclude_categories=()),
    ),
    max_size=30,
)


class Page(HTMLParser):
    """The elements and texts of a page; fails if elements are not closed in order."""

    VOID = frozenset({"meta"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).split())

    def count(self, tag: str, class_: str | None = None) -> int:
        return sum(
            name == tag and (class_ is None or attributes.get("class") == class_)
            for name, attributes in self.elements
        )


def strict_json(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


# -- golden files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", golden())
def test_a_report_matches_its_golden_file(name: str) -> None:
    """After an intended change run `python tests/support/gate_reports.py` and read the diff."""
    assert golden()[name] == (GOLDEN / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("report", "headline"),
    [
        (examples.PASS, "PASS: all 2 metrics are within the limits"),
        (examples.WARN, "WARN: 1 of 2 metrics passed, 1 FAIL (only warns)"),
        (
            examples.REGRESSION,
            (
                "REGRESSION: eval/accuracy is worse by 0.026 (3.13%), past max_drop = 0.01; "
                "1 of 2 metrics"
            ),
        ),
        (
            examples.ODD,
            "REGRESSION: eval/some: 2 of 3 runs of the candidate lack it; 2 of 4 metrics",
        ),
        (
            examples.INCONCLUSIVE,
            (
                "INCONCLUSIVE: eval/accuracy is worse by 0.026 (3.13%), past max_drop = 0.01, but "
                "the runs are too few to tell it from chance; 1 of 2 metrics"
            ),
        ),
        (
            examples.DIFFERENT,
            "CANNOT COMPARE: the candidate was not compared with the baseline: 1 problem",
        ),
        (
            replace(examples.DIFFERENT, problems=()),
            (
                "CANNOT COMPARE: the candidate differs from the baseline in 2 fields that must be "
                "equal"
            ),
        ),
        (
            replace(examples.DIFFERENT, problems=(), differences=()),
            "CANNOT COMPARE: 2 of 2 metrics cannot be compared with the baseline",
        ),
        (examples.BOOTSTRAP, "WARN: there is no baseline yet; of 2 metrics: 2 unjudged"),
        (
            replace(examples.PASS, metrics=examples.PASS.metrics[:1]),
            "PASS: the metric is within the limits",
        ),
    ],
)
def test_the_first_line_is_the_answer(report: GateReport, headline: str) -> None:
    assert " ".join(as_text(report, width=200).splitlines()[0].split()) == headline
    hidden, blank, first, *_ = markdown(report).splitlines()
    assert MARKER.fullmatch(hidden)
    assert blank == ""
    assert first.endswith(headline)
    assert headline in Page(html(report)).text
    assert strict_json(to_json(report))["headline"] == headline
    assert headline in junit(report)


@pytest.mark.parametrize("kind", ["terminal", "markdown", "html", "junit"])
def test_everything_that_was_found_is_shown(kind: str) -> None:
    report = replace(
        examples.DIFFERENT,
        source=replace(examples.DIFFERENT.source, changed="baseline.json differs from main"),
        metrics=(*examples.DIFFERENT.metrics, *examples.REGRESSION.metrics),
    )
    shown = FORMATS[kind](report)
    shown = Page(shown).text if kind == "html" else " ".join(shown.split())
    for expected in (
        "eval/accuracy",
        "FAIL",
        "cannot compare",
        "0.8307 (n = 10)",
        "0.8047 (n = 3)",
        "-0.026 (-3.13%)",
        "worse by at least 0.0213 (97.5%)",
        "0.0012 (0.0024)",
        "prediction interval",
        "max_drop = 0.01",
        "higher is better",
        "lower is better",
        "not compared: the problems of the whole report say why",
        "datasets.eval differs between the candidate and the baseline",
        "gsm8k:77aa",
        "(missing), test",
        "candidate and baseline also differ in params.batch_size (8; 16)",
        "it is FAILED, not FINISHED: 1 run, main-10 (aaaaaaaa)",
        "Different from the git ref: baseline.json differs from main",
        "filter tags.baseline = 'main' in experiment agents, last 10",
        "gate.toml",
        "5e" * 32,
    ):
        if kind == "terminal":  # cells are lines there
            expected = expected.split(" (")[0] if expected[0] in "-0" else expected
            assert all(word in shown for word in expected.split()), expected
        else:
            assert expected in shown


@pytest.mark.parametrize("kind", ["terminal", "markdown", "html", "junit"])
def test_the_worst_run_is_named_where_it_is_notable(kind: str) -> None:
    shown = FORMATS[kind](examples.REGRESSION)
    shown = Page(shown).text if kind == "html" else " ".join(shown.split())
    assert "The candidate's worst runs" in shown.replace("&apos;", "'")
    assert all(part in shown for part in ("seed 12 (322d6567)", "0.7998", "0.0309", "12.6"))
    assert "0.46" not in shown, "the worst run of a metric that passed is an ordinary one"
    far = replace(examples.LOSS, worst=replace(LOSS_WORST, spreads=777.0))
    assert "777" in FORMATS[kind](replace(examples.PASS, metrics=(far,)))
    alone = replace(examples.ACCURACY, candidate=Sample({"a": 0.5}))
    assert "worst run" not in FORMATS[kind](replace(examples.REGRESSION, metrics=(alone,)))


@pytest.mark.parametrize("kind", ["terminal", "markdown", "html", "junit"])
def test_a_pass_within_chance_is_not_called_within_the_limits(kind: str) -> None:
    lucky = replace(examples.GOOD_ACCURACY, by_chance=True)
    shown = FORMATS[kind](replace(examples.PASS, metrics=(examples.LOSS, lucky)))
    assert "all 2 metrics are within the limits, or within chance of them" in shown


@pytest.mark.parametrize("kind", ["terminal", "markdown", "html"])
def test_the_worst_metrics_come_first(kind: str) -> None:
    warned, failed, inconclusive, passed = (
        replace(examples.ACCURACY, metric=f"metric/{name}") for name in "abcd"
    )
    metrics = (
        replace(passed, verdict=Verdict.PASS),
        replace(warned, severity="warn"),
        replace(inconclusive, verdict=Verdict.INCONCLUSIVE),
        failed,
    )
    shown = FORMATS[kind](replace(examples.REGRESSION, metrics=metrics))
    positions = [shown.index(m.metric) for m in (failed, inconclusive, warned, passed)]
    assert positions == sorted(positions)


@pytest.mark.parametrize("kind", ["terminal", "markdown", "html", "junit"])
def test_an_unjudged_report_says_so(kind: str) -> None:
    assert "UNJUDGED: there is no baseline to judge by yet." in FORMATS[kind](examples.BOOTSTRAP)
    assert "UNJUDGED" not in FORMATS[kind](examples.REGRESSION)


def test_a_terminal_that_can_has_colours_and_links() -> None:
    console = Console(file=StringIO(), force_terminal=True, color_system="truecolor", width=100)
    with console.capture() as captured:
        console.print(renderable(examples.REGRESSION))
    shown = captured.get()
    assert "\x1b[1;31mREGRESSION" in shown
    assert re.search(r"\x1b\]8;id=\d+;https://mlflow.example/#/compare-runs\?", shown)


@pytest.mark.parametrize("width", [40, 80, 100, 200])
@every_example
def test_a_terminal_report_keeps_to_its_width(report: GateReport, width: int) -> None:
    shown = as_text(report, width)
    assert max(map(len, shown.splitlines())) <= width
    wide = as_text(report, 1000)
    box = re.compile(r"[\s\u2500-\u257f]")
    assert sorted(box.sub("", shown)) == sorted(box.sub("", wide))  # folded, and nothing lost


LONG = "eval/mmlu_pro/computer_science-and-engineering/algorithms.5shot/exact_match,strict"


def test_no_name_is_cut_within_a_word_at_80_columns() -> None:
    """Long names break after a separator, also in the headline and in the reasons."""
    metric = replace(examples.ACCURACY, metric=LONG)
    shown = as_text(replace(examples.REGRESSION, metrics=(examples.LOSS, metric)), width=80)
    whole = re.compile(r"\s*".join(map(re.escape, re.findall(r"[^/_-]+[/_-]?", LONG))))
    assert len(whole.findall(shown)) == 3  # headline, table, reason
    cells = re.findall(
        r"^[\w/,.-]+", shown.partition("The candidate's worst runs")[2], re.MULTILINE
    )
    assert "".join(cells).startswith(f"metric{LONG}")  # in lines of their own
    assert all(cell[-1] in "/_-" for cell in cells[1:5])
    assert re.search(r"^eval/loss  lower is better$", shown, re.MULTILINE)
    for width in (80, 100):
        table = as_text(replace(examples.REGRESSION, metrics=(metric,)), width)
        assert re.search(r"^  verdict  baseline  candidate +change  test", table, re.MULTILINE)


def test_the_worst_of_the_failed_metrics_is_in_the_headline() -> None:
    small, large, unknown = (
        replace(examples.ACCURACY, metric=name, change_rel=change, worse_by=loss)
        for name, change, loss in (("a", -0.02, 0.9), ("b", -0.3, 0.1), ("c", None, None))
    )
    by_loss = replace(examples.REGRESSION, metrics=(small, large))
    assert as_text(by_loss).startswith("REGRESSION: b is worse by")
    report = replace(examples.REGRESSION, metrics=(small, large, unknown))
    assert as_text(report).startswith("REGRESSION: c is worse by")


# -- figures ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        (nan, "NaN"),
        (inf, "inf"),
        (-1.7976931348623157e308, "-inf"),
        (0.0, "0"),
        (-0.0, "0"),
        (3.0, "3"),
        (0.812345678, "0.81235"),
        (-12345.678, "-12345.7"),
        (1.5e10, "15000000000"),
        (1.23456e-7, "1.2346e-07"),
        (1e300, "1e+300"),
    ],
)
def test_numbers(value: float | None, shown: str) -> None:
    assert figures.number(value) == shown


@pytest.mark.parametrize(
    ("absolute", "relative", "shown"),
    [
        (-0.026, -0.0313, "-0.026 (-3.13%)"),
        (0.5, 12.0, "+0.5 (+1200.00%)"),
        (1.0, 1234.5, "+1 (+1.2e+05%)"),
        (1e-9, 1e-9, "+1e-09 (+1e-07%)"),
        (0.0, 0.0, "0 (0%)"),
        (0.5, None, "+0.5"),
        (0.5, nan, "+0.5"),
        (0.5, 1e307, "+0.5"),
        (nan, nan, "NaN"),
        (inf, 0.1, "+inf"),
        (None, 0.5, "-"),
    ],
)
def test_changes(absolute: float | None, relative: float | None, shown: str) -> None:
    assert figures.change(absolute, relative) == shown


def test_p_values_and_bounds() -> None:
    assert figures.p_value(0.00001, 0.00002) == "<0.0001 (<0.0001)"
    assert figures.p_value(0.012345, None) == "0.0123"
    assert figures.p_value(None, None) == "-"
    assert (
        figures.bound(Bound("at least", 0.012, 1 - 0.05 / 3)) == "worse by at least 0.012 (98.3%)"
    )
    assert (
        figures.bound(Bound("at least", -0.003, 0.95))
        == "not shown to be worse: by at least -0.003 (95%)"
    )
    assert figures.bound(Bound("at most", 0.01, 0.9999999)) == "worse by at most 0.01 (99.99%)"
    assert figures.bound(Bound("at most", -0.01, 0.95)) == "better by at least 0.01 (95%)"
    assert figures.bound(None) is None


def test_the_largest_float_counts_as_infinite_in_a_mean() -> None:
    assert figures.mean(Sample({"a": 1.0, "b": 1.7976931348623157e308})) == inf
    assert figures.mean(Sample({})) is None


def test_a_mean_of_finite_values_is_finite() -> None:
    assert figures.mean(Sample({"a": 1e308, "b": 1.5e308})) == 1.25e308


def test_a_very_small_p_value_is_an_inequality() -> None:
    metric = replace(examples.ACCURACY, p_value=0.00001, p_adjusted=0.00002)
    shown = as_text(replace(examples.REGRESSION, metrics=(metric,)))
    assert "p < 0.0001" in shown
    assert "adjusted < 0.0001" in shown
    assert "= <" not in shown


# -- JUnit -----------------------------------------------------------------------------------------

COUNTED = {"failures": "failure", "errors": "error", "skipped": "skipped"}


def suite_of(report: GateReport) -> ElementTree.Element:
    """The test suite, after what services rely on was checked."""
    suites = ElementTree.fromstring(junit(report).encode())
    assert suites.tag == "testsuites"
    (suite,) = suites
    assert suite.tag == "testsuite"
    cases = suite.findall("testcase")
    for counting in (suites, suite):
        assert {"name", "tests", "failures", "errors", "skipped", "time"} == set(counting.attrib)
        assert int(counting.attrib["tests"]) == len(cases)
        for plural, singular in COUNTED.items():
            assert int(counting.attrib[plural]) == len(suite.findall(f"testcase/{singular}"))
    assert [child.tag for child in suite] == [
        "properties",
        *["testcase"] * len(cases),
        "system-out",
    ]
    for case in cases:
        assert {"classname", "name", "time"} == set(case.attrib)
        assert {child.tag for child in case} <= {*COUNTED.values(), "system-out"}
        assert len(case) == 1 or [child.tag for child in case][1:] == ["system-out"]
        for child in case:
            assert child.tag == "system-out" or {"type", "message"} == set(child.attrib)
    return suite


def said(report: GateReport) -> dict[str, str]:
    """Test case -> its result."""
    return {
        case.attrib["name"]: case[0].tag if case[0].tag in COUNTED.values() else "passed"
        for case in suite_of(report).findall("testcase")
    }


@every_example
def test_junit_has_the_structure_that_services_read(report: GateReport) -> None:
    suite_of(report)


def test_a_metric_is_a_test_case() -> None:
    assert said(examples.REGRESSION) == {"eval/loss": "passed", "eval/accuracy": "failure"}
    assert said(examples.INCONCLUSIVE) == {"eval/loss": "passed", "eval/accuracy": "skipped"}
    assert said(examples.BOOTSTRAP) == {"eval/loss": "skipped", "eval/accuracy": "skipped"}
    assert said(examples.ODD) == {
        "eval/new": "passed",
        "eval/some": "failure",
        "eval/nan": "failure",
        "eval/inf": "error",
    }


def test_an_incomparable_candidate_is_an_error_of_its_own() -> None:
    whole = "candidate and baseline can be compared"
    assert said(examples.UNREADABLE) == {whole: "error"}
    assert said(examples.DIFFERENT)[whole] == "error"
    unexplained = replace(examples.UNREADABLE, problems=())
    assert said(unexplained) == {whole: "error"}
    (error,) = suite_of(examples.DIFFERENT).findall("testcase[1]/error")
    assert "candidate has (missing), test; baseline has test" in (error.text or "")


def test_warnings_fail_no_build() -> None:
    for severity in ("warn", "info"):
        metric = replace(examples.ACCURACY, severity=severity)
        report = replace(examples.WARN, metrics=(examples.LOSS, metric))
        assert said(report) == {"eval/loss": "passed", "eval/accuracy": "passed"}
        assert metric.reason in junit(report)


# -- JSON ------------------------------------------------------------------------------------------


@every_example
def test_json_holds_every_field(report: GateReport) -> None:
    found = strict_json(to_json(report))
    assert found["schema"] == 1
    assert found["outcome"] == report.outcome.value
    assert found["exit_code"] == report.outcome.exit_code
    renamed = {"source": "baseline_source"}
    assert {renamed.get(f.name, f.name) for f in fields(GateReport)} <= set(found)
    for kind, entries in (
        (MetricResult, found["metrics"]),
        (GateRun, found["candidate"] + found["baseline"]),
        (LeftOut, found["left_out"]),
        (FieldDifference, found["differences"]),
        (BaselineSource, [found["baseline_source"]]),
    ):
        names = [field.name for field in fields(kind)]
        assert all(list(entry) == names for entry in entries)
    for metric in found["metrics"]:
        for side in ("candidate", "baseline"):
            assert list(metric[side]) == ["n", "mean", "values", "missing"]
    assert [m["metric"] for m in found["metrics"]] == [
        m.metric.replace("\ud800", "\\ud800") for m in report.metrics
    ]


def test_json_spells_out_nan_and_infinities() -> None:
    metrics = {m["metric"]: m for m in strict_json(to_json(examples.ODD))["metrics"]}
    assert "NaN" in metrics["eval/nan"]["candidate"]["values"].values()
    assert metrics["eval/nan"]["change"] == "NaN"
    assert metrics["eval/inf"]["baseline"]["mean"] == "-Infinity"
    assert metrics["eval/inf"]["candidate"]["mean"] == "Infinity"
    assert metrics["eval/new"]["baseline"] == {
        "n": 0,
        "mean": None,
        "values": {},
        "missing": [run.run_id for run in examples.ODD.baseline],
    }


# -- size ------------------------------------------------------------------------------------------


def many(metrics: int, runs: int, failed: int = 0) -> GateReport:
    """A report on that many metrics and runs of the baseline; the last metrics failed."""
    keys = [f"eval/suite-{at // 10}/task-{at}/exact_match" for at in range(metrics)]

    def side(name: str, count: int) -> tuple[GateRun, ...]:
        values = [dict.fromkeys(keys, 0.8 + at / 1e5) for at in range(count)]
        return tuple(examples.a_run(f"{name}-{at}", at, **of) for at, of in enumerate(values))

    baseline, candidate = side("release-lr-0.0003-seed", runs), side("change-lr-0.0003-seed", 3)
    return replace(
        examples.REGRESSION,
        metrics=tuple(
            replace(
                examples.GOOD_ACCURACY if at < metrics - failed else examples.ACCURACY,
                metric=key,
                baseline=examples.sample(baseline, key),
                candidate=examples.sample(candidate, key),
            )
            for at, key in enumerate(keys)
        ),
        baseline=baseline,
        candidate=candidate,
    )


@pytest.mark.parametrize("runs", [10, 60, 500])
def test_a_page_of_200_metrics_is_below_two_megabytes(runs: int) -> None:
    shown = html(many(200, runs, failed=2))
    assert len(shown.encode()) < 2_000_000
    page = Page(shown)
    for at in range(200):
        assert f"eval/suite-{at // 10}/task-{at}/exact_match" in page.text
    first = shown.index("<section")
    assert shown.index("task-198/", first) < shown.index("task-0/", first)
    drawn = page.count("section", "card")
    assert drawn == page.count("svg") > 2
    if drawn < 200:
        assert f"The {drawn} worst metrics are drawn, to keep this page small." in page.text
        assert page.text.count("within tolerance: worse by 0.0006 (0.07%)") == 198


# -- Markdown --------------------------------------------------------------------------------------

MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])
OURS = re.compile(
    r"<br>|</?span>|<details><summary>(What was compared, and how|\u2705 \d+ metrics? passed)"
    rf"</summary>|</details>|{MARKER.pattern}"
)


def assert_only_our_markup(text: str) -> None:
    tokens = MARKDOWN.parse(text)
    tokens += [child for token in tokens for child in token.children or []]
    for token in tokens:
        if token.type in ("html_inline", "html_block"):
            assert OURS.fullmatch(token.content.strip()), token.content
        assert token.type not in ("image", "fence", "code_block", "hr", "s_open")
        if token.type == "link_open":
            assert str(token.attrs["href"]).startswith("http")
    for lines in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        rows = [row.attrs for row in MARKDOWN.parse(lines) if row.type in ("tr_open",)]
        cells = [row.type for row in MARKDOWN.parse(lines) if row.type in ("td_open", "th_open")]
        assert len(rows) == lines.count("\n") - 1  # the line below the head is no row
        assert len(cells) == len(rows) * (lines.split("\n")[1].count("|") - 1)


def test_a_comment_folds_what_passed() -> None:
    report = replace(examples.REGRESSION, metrics=(*examples.REGRESSION.metrics, WARNED))
    shown, folded = markdown(report).split("<details><summary>\u2705 1 metric passed</summary>")
    assert "`eval/accuracy`" in shown
    assert "`eval/loss`" not in shown
    assert "`eval/loss`" in folded.split("</details>")[0]
    assert "passed</summary>" not in markdown(examples.DIFFERENT)


def test_each_row_of_a_comment_has_an_icon_and_at_most_six_columns() -> None:
    report = replace(examples.REGRESSION, metrics=(*examples.REGRESSION.metrics, WARNED))
    rows = re.findall(r"^\| [^|`]+ \| `eval/.*\|$", markdown(report), re.MULTILINE)
    assert [row.split()[1:3] for row in rows] == [
        ["\u274c", "**FAIL**"],
        ["\u26a0\ufe0f", "**FAIL"],
        ["\u2705", "pass"],
    ]
    assert all(row.count("|") <= 7 for row in rows)


WARNED = replace(examples.ACCURACY, metric="eval/speed", severity="warn")


def test_each_policy_has_a_marker_of_its_own() -> None:
    assert marker("gate.toml") != marker("other/gate.toml")
    assert MARKER.fullmatch(marker("--> <b>\ud800"))
    assert markdown(examples.PASS).startswith(marker(examples.PASS.policy))
    assert marker(examples.PASS.policy) == marker(examples.REGRESSION.policy)


def test_a_comment_never_grows_too_long() -> None:
    passed = [
        replace(examples.LOSS, metric=f"eval/task-{at}/{'x' * 60}/loss") for at in range(1000)
    ]
    failed = [replace(examples.ACCURACY, metric=f"eval/failed-{at}") for at in range(30)]
    shown = markdown(replace(examples.REGRESSION, metrics=(*passed, *failed)))
    assert len(shown) <= MAX_LENGTH
    # In the table, with the reason, and with its worst run.
    assert all(shown.count(f"`{metric.metric}`") == 3 for metric in failed)
    (more,) = re.findall(r"\.\.\. and (\d+) more metrics, cut for length", shown)
    assert shown.count("`eval/task-") + int(more) == len(passed)


@pytest.mark.parametrize("character", ["x", "$", "|", "@a", "\x00"])
def test_nor_does_a_comment_with_long_texts(character: str) -> None:
    report = named(character * 3000, character * 6000)
    many = replace(
        report,
        metrics=report.metrics * 100,
        problems=report.problems * 100,
        notes=report.notes * 100,
        left_out=tuple(
            LeftOut("a", character * 9000, f"{at}" + character * 900) for at in range(99)
        ),
        differences=report.differences * 100,
        links={f"{at}": f"http://x/{'y' * 300}" for at in range(100)},
    )
    shown = markdown(many)
    assert len(shown) <= MAX_LENGTH
    assert "cut for length" in shown
    assert shown.endswith("</details>\n")


# -- the page --------------------------------------------------------------------------------------


@every_example
def test_a_page_is_whole_and_needs_nothing_else(report: GateReport) -> None:
    page = Page(html(report))
    (policy,) = [a["content"] for tag, a in page.elements if "http-equiv" in a and tag == "meta"]
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "img", "link", "iframe", "object", "embed", "base", "form"}
    for tag, attributes in page.elements:
        assert not {"src", "srcset", "style", "background"} & set(attributes)
        assert not any(name.startswith("on") for name in attributes)
        assert "href" not in attributes or (
            tag == "a" and str(attributes["href"]).startswith(("http://", "https://"))
        )
    assert page.elements[0] == ("html", {"lang": "en"})
    assert page.count("h1") == page.count("main") == 1
    assert "@import" not in html(report)
    assert "url(" not in html(report).split("</style>")[0]


def test_each_metric_is_plotted_over_the_baseline_runs() -> None:
    page = Page(html(examples.REGRESSION))
    assert page.count("svg") == 2
    assert page.count("circle", "run") == 2 * len(examples.BASELINE)
    assert page.count("path", "candidate") == 2 * len(examples.CANDIDATE)
    assert page.count("line", "mean") == page.count("line", "limit") == 2
    titles = {str(a.get("id")) for tag, a in page.elements if tag == "title"}
    plots = [a for tag, a in page.elements if tag == "svg"]
    assert all(a["role"] == "img" and a["aria-labelledby"] in titles for a in plots)
    assert "main-3 (332d6e69): 0.829, 2025-10-12 08:53 UTC" in page.text
    assert "limit 0.8207" in page.text


def test_the_plot_runs_from_the_oldest_to_the_latest() -> None:
    backwards = replace(examples.REGRESSION, baseline=examples.BASELINE[::-1])
    assert re.findall("<svg.*?</svg>", html(backwards), re.DOTALL) == re.findall(
        "<svg.*?</svg>", html(examples.REGRESSION), re.DOTALL
    )


def test_runs_without_a_finite_value_are_marked_at_the_edge() -> None:
    page = Page(html(examples.ODD))
    lost = [a for tag, a in page.elements if tag == "path" and a.get("class") == "lost"]
    # new: 3 + 1 missing; some: 2 missing; nan: 1; inf: 3 of the baseline and 1
    assert len(lost) == 4 + 2 + 1 + 4
    for label in ("missing", "NaN", "inf", "-inf"):
        assert f" {label} " in f" {page.text} "


def test_a_limit_far_away_is_named_without_flattening_the_plot() -> None:
    far = replace(examples.ACCURACY, allowed=(-1000.0, None))
    page = Page(html(replace(examples.REGRESSION, metrics=(far,))))
    assert page.count("line", "limit") == 0
    assert "limit -1000 ↓" in page.text


def test_many_runs_are_drawn_as_far_as_there_is_room() -> None:
    runs = tuple(examples.a_run(f"r{at}", at, m=float(at)) for at in range(250))
    metric = replace(examples.ACCURACY, baseline=examples.sample(runs, "m"))
    page = Page(html(replace(examples.REGRESSION, baseline=runs, metrics=(metric,))))
    assert page.count("circle", "run") == 200
    assert "latest 200 of the baseline" in page.text


@given(
    st.lists(st.floats(), min_size=1, max_size=4),
    st.lists(st.floats(), max_size=4),
    st.tuples(st.none() | st.floats(), st.none() | st.floats()),
)
@settings(max_examples=60, deadline=None)
def test_a_plot_can_be_drawn_of_any_numbers(
    old: list[float], new: list[float], allowed: tuple[float | None, float | None]
) -> None:
    baseline = tuple(examples.a_run(f"b{at}", at, m=value) for at, value in enumerate(old))
    candidate = tuple(examples.a_run(f"c{at}", at, m=value) for at, value in enumerate(new))
    metric = replace(
        examples.ACCURACY,
        baseline=examples.sample(baseline, "m"),
        candidate=examples.sample(candidate, "m"),
        allowed=allowed,
        change=old[0],
        change_rel=old[-1],
        bound=Bound("at least", old[0], 0.95),
        worst=WorstRun("c0", "c0", old[0], old[-1], old[0]),
        p_value=old[0],
        p_adjusted=old[-1],
    )
    report = replace(examples.REGRESSION, metrics=(metric,), baseline=baseline, candidate=candidate)
    for tag, attributes in Page(html(report)).elements:
        if tag in ("circle", "line", "text", "rect"):
            for name in {"cx", "cy", "x", "y", "x1", "y1", "x2", "y2", "height"} & set(attributes):
                assert 0 <= float(str(attributes[name])) <= 500
    for render in (as_text, markdown):
        assert "nan%" not in render(report)
        assert "inf%" not in render(report)
    strict_json(to_json(report))


# -- names from outside ----------------------------------------------------------------------------


def assert_harmless(report: GateReport) -> None:
    shown = as_text(report)
    assert not re.search(
        "[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", shown
    )
    suite_of(report)
    strict_json(to_json(report)).__str__().encode()
    comment = markdown(report)
    assert_only_our_markup(comment)
    tags = {tag for tag, _ in Page(html(examples.named("name"))).elements}
    page = html(report)
    assert {tag for tag, _ in Page(page).elements} <= tags | {"a"}
    for text in (comment, page, junit(report)):
        text.encode()


def test_no_name_acts() -> None:
    report = named(HOSTILE, HOSTILE[::-1])
    assert_harmless(report)
    assert "<img" not in html(report)
    assert "<img" not in junit(report)
    assert "[red]x[/red]" in as_text(report)
    assert re.search(r"`[^`\n]*@everyone[^`\n]*`", markdown(report))
    assert not re.search(
        r"(?<!`)@everyone", re.sub(r"`[^`\n]*`|\(<[^>\n]*>\)", "", markdown(report))
    )


@given(ANY_TEXT, ANY_TEXT)
@settings(max_examples=40, deadline=None)
def test_no_text_acts(text: str, other: str) -> None:
    assert_harmless(named(text, other))


def test_a_comment_holds_no_link_to_the_machine_that_wrote_it() -> None:
    links = {"here": "http://127.0.0.1:5000/#/x", "there": "https://mlflow.example/#/y"}
    report = replace(examples.PASS, links=links)
    assert "mlflow.example" in markdown(report)
    assert "127.0.0.1" not in markdown(report)
    assert "127.0.0.1" in as_text(report)
