"""The fixture `metric_gate`, in test runs of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import scipy.stats  # noqa: F401  loaded here once, or each inner test run would load it anew

from gate_runs import BLESSED, Shelf
from orbiter_mlflow.gate import check, reports, statistics  # noqa: F401  likewise

pytest_plugins = ["pytester"]

POLICY = """
[gate]
schema = 1
candidate_runs = 1
[baseline]
filter = "tags.baseline = 'main'"
[metrics."eval/accuracy"]
direction = "higher"
max_drop = 0.01
"""

OTHERS = ("asyncio", "cacheprovider", "hypothesispytest", "randomly")
"""Plugins that have no part in this."""

Run = Callable[..., pytest.RunResult]


@pytest.fixture(scope="module")
def shelf(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    made = Shelf.fresh(empty_store, tmp_path_factory.mktemp("shelf"))
    for seed, value in enumerate((0.90, 0.91, 0.92, 0.89, 0.93)):
        made.add(f"old {seed}", {"eval/accuracy": value}, tags=BLESSED)
    for seed, value in enumerate((0.91, 0.90, 0.92)):
        made.add(f"good {seed}", {"eval/accuracy": value}, tags={"change": "good"})
    made.add("bad", {"eval/accuracy": 0.5})
    made.add("died", {"eval/accuracy": 0.9}, status="FAILED")
    for seed, value in enumerate((0.89, 0.885, 0.89)):
        made.add(f"shaky {seed}", {"eval/accuracy": value}, tags={"change": "shaky"})
    return made


@pytest.fixture
def run(pytester: pytest.Pytester, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a file of tests with the policy beside it."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", shelf.uri)
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    (pytester.path / "gate.toml").write_text(POLICY)

    def invoke(source: str, *arguments: str) -> pytest.RunResult:
        pytester.makepyfile(source)
        others = [f"-pno:{name}" for name in OTHERS]
        return pytester.runpytest_inprocess(*others, "-W", "error", *arguments)

    return invoke


def test_a_good_run_passes_and_is_listed_at_the_end(run: Run) -> None:
    result = run(
        """
        def test_it(metric_gate):
            report = metric_gate.check("good 0", policy="gate.toml")
            assert report.metrics[0].baseline.n == 5
        """
    )
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        ["*= metric gate =*", "*test_*.py::test_it: PASS: the metric is within the limits"]
    )


def test_worse_or_unjudgeable_runs_fail_with_the_table(run: Run) -> None:
    result = run(
        """
        import pytest

        @pytest.mark.parametrize("runs", ["bad", "died", "nobody", ["good 0", "died"]])
        def test_it(metric_gate, runs):
            metric_gate.check(runs, policy="gate.toml")
        """
    )
    result.assert_outcomes(failed=4)
    result.stdout.fnmatch_lines(
        [
            "REGRESSION: *",
            "eval/accuracy  higher is better",
            "  FAIL *",
            "CANNOT COMPARE: *",
            "*died is incomplete*",
        ]
    )
    result.stdout.fnmatch_lines(["*[[]died]: CANNOT COMPARE*", "*[[]nobody]: CANNOT COMPARE*"])
    result.stdout.no_fnmatch_line("*pytest_plugin.py*")


def test_a_warning_passes_and_is_shown_as_a_whole(run: Run) -> None:
    source = """
        def test_it(metric_gate):
            metric_gate.check("tags.change = 'shaky'", "gate.toml")
    """
    result = run(source)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*test_it: WARN: *", "eval/accuracy *", "  inconclusive *"])


def test_one_metric_of_runs_against_others(run: Run, shelf: Shelf) -> None:
    result = run(
        f"""
        import pytest
        from types import SimpleNamespace

        trainer = SimpleNamespace(run_id={shelf.ids["good 0"]!r})
        stored = SimpleNamespace(info=trainer)
        asked = {{"direction": "higher", "max_drop": 0.01}}

        @pytest.mark.parametrize("baseline", ["tags.baseline = 'main'", "old 0", ["old 1"]])
        @pytest.mark.parametrize("candidate", [trainer, stored, [trainer, "good 1"]])
        def test_good(metric_gate, candidate, baseline):
            report = metric_gate.assert_no_regression(
                "eval/accuracy", candidate=candidate, baseline=baseline, **asked
            )
            assert report.baseline

        def test_bad(metric_gate):
            metric_gate.assert_no_regression(
                "eval/accuracy", candidate="bad", baseline=trainer, **asked
            )

        def test_itself(metric_gate):
            metric_gate.assert_no_regression(
                "eval/accuracy", candidate=trainer, baseline=trainer, **asked
            )

        def test_missing(metric_gate):
            metric_gate.assert_no_regression(
                "eval/f1", candidate="good 0", baseline="good 1", **asked
            )
        """
    )
    result.assert_outcomes(passed=9, failed=3)


def test_a_wrong_request_fails_in_one_line(run: Run) -> None:
    result = run(
        """
        from types import SimpleNamespace

        def test_no_policy(metric_gate):
            metric_gate.check("good 0")

        def test_no_such_policy(metric_gate):
            metric_gate.check("good 0", policy="nowhere.toml")

        def test_wrong_limit(metric_gate):
            metric_gate.assert_no_regression(
                "m", candidate="good 0", baseline="old 0", direction="up", max_drop=1
            )

        def test_wrong_filter(metric_gate):
            metric_gate.check("tags.a == 'b'", policy="gate.toml")

        def test_no_runs(metric_gate):
            metric_gate.check([], policy="gate.toml")

        def test_no_baseline_for_one(metric_gate):
            metric_gate.assert_no_regression(
                "eval/accuracy", candidate="bad", baseline=[], direction="higher", max_drop=9
            )

        def test_no_baseline(metric_gate):
            metric_gate.check("good 0", policy="gate.toml", baseline=[])

        def test_no_run_id(metric_gate):
            metric_gate.check(SimpleNamespace(run_id=None), policy="gate.toml")
        """
    )
    result.assert_outcomes(failed=8)
    result.stdout.no_fnmatch_line("*validation error*")
    result.stdout.no_fnmatch_line("*another exception*")
    result.stdout.fnmatch_lines(
        [
            "no policy: pass `policy=...` to metric_gate.check, or --orbiter-policy FILE",
            "*nowhere.toml: cannot be read*",
            "*direction*",
            "the filter *tags.a == 'b'*",
            "*no candidate is given*",
            "*no baseline run is given*",
            "*no baseline run is given*",
            "*has no run id (yet)*",
        ]
    )


TWO = """
    import pytest

    @pytest.mark.parametrize("name", ["good 0", "good 1"])
    def test_it(metric_gate, name):
        metric_gate.check(name)
"""


def test_options_are_those_of_the_command(
    run: Run, shelf: Shelf, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///nowhere.db")
    files = [f"--orbiter-{kind}=r.{kind}" for kind in ("markdown", "junit", "json", "html")]
    result = run(TWO, "--orbiter-policy=gate.toml", f"--orbiter-tracking-uri={shelf.uri}", *files)
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*r.html written", "*r-2.html written"])
    found = [json.loads((pytester.path / name).read_text()) for name in ("r.json", "r-2.json")]
    assert [one["candidate"][0]["name"] for one in found] == ["good 0", "good 1"]
    assert (pytester.path / "r-2.junit").exists()


def test_a_report_of_a_step_takes_all_and_a_full_disk_fails(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = pytester.path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    result = run(TWO, "--orbiter-policy=gate.toml", "--orbiter-markdown=summary.md")
    assert result.ret == 0
    assert summary.read_text().count("PASS: ") == 2
    result = run(TWO, "--orbiter-policy=gate.toml", "--orbiter-json=/dev/full")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["/dev/full was not written: *"])


def test_bootstrap_is_an_option_and_an_argument(run: Run, pytester: pytest.Pytester) -> None:
    nothing = POLICY.replace("'main'", "'none'")
    (pytester.path / "first.toml").write_text(nothing)
    source = """
        def test_by_option(metric_gate):
            metric_gate.check("good 0")

        def test_by_argument(metric_gate):
            metric_gate.check("good 0", bootstrap=True)
    """
    run(source, "--orbiter-policy=first.toml").assert_outcomes(passed=1, failed=1)
    result = run(source, "--orbiter-policy=first.toml", "--orbiter-bootstrap")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*NOT JUDGED*"])


def test_an_unwritable_report_is_an_error_before_any_test(run: Run) -> None:
    result = run(TWO, "--orbiter-html=no/r.html")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--orbiter-html *no/r.html cannot be written*"])
    result = run(TWO, "--orbiter-policy=gate.toml", "--orbiter-json=gate.toml")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--orbiter-json *gate.toml is an input of the gate*"])


def test_a_report_without_judgements_is_mentioned(run: Run) -> None:
    result = run("def test_it(): pass", "--orbiter-html=r.html")
    result.stdout.fnmatch_lines(["*r.html was not written: no test has judged a run"])


def test_reports_of_workers_reach_the_summary(run: Run, pytester: pytest.Pytester) -> None:
    result = run(TWO, "-n1", "--orbiter-policy=gate.toml", "--orbiter-json=r.json")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*good 0*: PASS: *", "*good 1*: PASS: *"])
    assert (pytester.path / "r-2.json").exists()


def test_without_the_fixture_nothing_is_loaded(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_it(request):
            assert request.config.pluginmanager.has_plugin("orbiter_mlflow")
            heavy = {"mlflow", "numpy", "scipy", "pydantic", "rich", "click", "requests"}
            assert not heavy & set(sys.modules)
        """
    )
    environment = {key: text for key, text in os.environ.items() if not key.startswith("PYTEST_")}
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *(f"-pno:{name}" for name in OTHERS)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    assert "metric gate" not in ended.stdout
