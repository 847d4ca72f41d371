"""A pytest plugin: the fixture `metric_gate` judges runs like `orbiter-mlflow check`.

It loads only the options until the fixture is used.
"""

import os
import warnings
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import pytest

from orbiter_mlflow.errors import ReportFileError
from orbiter_mlflow.gate.options import JUDGING, STORE, Option
from orbiter_mlflow.gate.reports.formats import (
    FORMATS,
    is_step_summary,
    render,
    require_writable,
    write,
)
from orbiter_mlflow.text.escaping import plain

if TYPE_CHECKING:
    from orbiter_mlflow.gate.model import Direction, GateReport
    from orbiter_mlflow.gate.policy import Policy

__all__ = ["MetricGate"]

_PREFIX = "--orbiter-"
_POLICY = Option("policy", "The policy of `metric_gate.check` if a test names none.", "path")


class _Judgement(TypedDict):
    """One report of the gate, as text, which pytest-xdist can send to the controller."""

    failed: bool
    text: str
    files: dict[str, str]


_ATTRIBUTE = "orbiter_gate"
"""The attribute of a test's report that carries its judgements."""
_JUDGEMENTS = pytest.StashKey[list[_Judgement]]()


class MetricGate:
    """Judges runs, and fails the test if they are worse or cannot be judged.

    Runs are given as ids, starts of ids, names or MLflow filters, or as objects with a run id, such
    as a trainer or an MLflow run; one or several. Report files are written at the end of the tests.
    """

    def __init__(self, config: pytest.Config, judgements: list[_Judgement]) -> None:
        self._config = config
        self._judgements = judgements

    def check(
        self,
        runs: object,
        policy: "Policy | str | os.PathLike[str] | None" = None,
        *,
        baseline: object = None,
        bootstrap: bool | None = None,
    ) -> "GateReport":
        """Judge runs by a policy.

        Args:
            runs: the candidates.
            policy: a file, relative to pytest's root folder, or a `Policy`; by default the file of
                `--orbiter-policy`.
            baseline: runs to compare with, instead of the policy's.
            bootstrap: let the bounds alone decide if there is no baseline; by default, the option.
        """
        from orbiter_mlflow.errors import PolicyError
        from orbiter_mlflow.gate.policy import Policy, load_policy

        file = None
        if not isinstance(policy, Policy):
            file = self._policy_file(policy)
            try:
                policy = load_policy(file)
            except PolicyError as error:
                raise _failed(error) from None
        return self._judge(
            policy,
            file,
            candidates=_texts(runs),
            baseline=None if baseline is None else _texts(baseline),
            bootstrap=self._option("bootstrap") if bootstrap is None else bootstrap,
        )

    def assert_no_regression(
        self,
        metric: str,
        *,
        candidate: object,
        baseline: object,
        direction: "Direction",
        **limits: Any,
    ) -> "GateReport":
        """Judge one metric of runs against other runs.

        Args:
            metric: its key.
            candidate: the runs to judge.
            baseline: the runs to compare with; one is enough.
            direction: what is better: `higher`, `lower`, or closer to the `target`.
            limits: fields of a policy: `max_drop`, `max_drop_rel`, `min`, `max`, `target`, `at`.
        """
        from orbiter_mlflow.errors import PolicyError
        from orbiter_mlflow.gate.policy import Policy

        try:
            policy = Policy.for_one(metric, direction=direction, **limits)
        except PolicyError as error:
            raise _failed(error) from None
        return self._judge(
            policy, None, candidates=_texts(candidate), baseline=_texts(baseline), bootstrap=False
        )

    def _judge(self, policy: "Policy", file: Path | None, **request_fields: Any) -> "GateReport":
        from orbiter_mlflow.errors import FilterError, PolicyError
        from orbiter_mlflow.gate.check import CheckRequest, gate_failed, run_check
        from orbiter_mlflow.settings import MLflowSettings, resolve

        options = {option.variable: self._option(option.name) for option in STORE}
        fields = {name: text for name, text in options.items() if text is not None}
        request = CheckRequest(
            policy=policy,
            # Without a run id: one in the environment is for training.
            settings=resolve(MLflowSettings(run_id=None, **fields), None),
            baseline_ref=self._option("baseline-ref"),
            accept_policy_change=self._option("accept-policy-change"),
            policy_file=file,
            **request_fields,
        )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("default")  # warnings of MLflow's libraries fail no test
                report = run_check(request)
        except (PolicyError, FilterError) as error:
            raise _failed(error) from None
        except Exception as error:
            # The test fails with the traceback, and the report files say why nothing was judged.
            self._record(gate_failed(request, error))
            raise
        text = self._record(report)
        if report.outcome.exit_code != 0:
            pytest.fail(text, pytrace=False)
        return report

    def _record(self, report: "GateReport") -> str:
        """Keep a report for the summary and the files; returns it as text."""
        from orbiter_mlflow.gate.reports import terminal

        text = terminal.render(report)
        files = {name: render(report, name) for name in _files(self._config)}
        failed = report.outcome.exit_code != 0
        self._judgements.append({"failed": failed, "text": text, "files": files})
        return text

    def _policy_file(self, path: "str | os.PathLike[str] | None") -> Path:
        if path is not None:
            return self._config.rootpath / path
        option: Path | None = self._option("policy")
        if option is None:
            pytest.fail(
                f"no policy: pass `policy=...` to metric_gate.check, or {_PREFIX}policy FILE",
                pytrace=False,
            )
        return self._config.invocation_params.dir / option

    def _option(self, name: str) -> Any:
        return self._config.getoption(_PREFIX + name)


def _failed(error: Exception) -> BaseException:
    """The failure of a test, without a traceback; raise it `from None`."""
    lines = map(plain, str(error).splitlines())
    return pytest.fail.Exception("\n".join(lines), pytrace=False)


def _texts(runs: object) -> list[str]:
    """The texts by which the gate finds these runs."""
    if isinstance(runs, str):
        return [runs]
    if isinstance(runs, Iterable):
        return [text for run in runs for text in _texts(run)]
    run_id = getattr(getattr(runs, "info", runs), "run_id", None)
    if not isinstance(run_id, str):
        raise TypeError(
            f"{runs!r} has no run id (yet): pass an id, a name, a filter, or a trainer whose run "
            "exists (`await trainer.wait_run_id()`)"
        )
    return [run_id]


# -- hooks of pytest -----------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of `orbiter-mlflow check`, and one for the policy."""
    group = parser.getgroup("orbiter", "metric gate (orbiter-mlflow)")
    for option in (_POLICY, *STORE, *JUDGING):
        name = _PREFIX + option.name
        if option.kind == "flag":
            group.addoption(name, action="store_true", help=option.help)
        else:
            kind = Path if option.kind == "path" else str
            group.addoption(name, type=kind, metavar=option.metavar, help=option.help)


def pytest_configure(config: pytest.Config) -> None:
    """Check that the reports can be written, and register the summary in the controller."""
    accept, ref = f"{_PREFIX}accept-policy-change", f"{_PREFIX}baseline-ref"
    if config.getoption(accept) and config.getoption(ref) is None:
        raise pytest.UsageError(f"{accept} needs {ref}, whose policy it skips")
    policy: Path | None = config.getoption(_PREFIX + _POLICY.name)
    inputs = [] if policy is None else [config.invocation_params.dir / policy]
    try:
        require_writable(_files(config), _PREFIX, inputs)
    except ReportFileError as error:
        raise pytest.UsageError(str(error)) from error
    if not hasattr(config, "workerinput"):  # which a worker of pytest-xdist has
        config.pluginmanager.register(_Summary(config), "orbiter_mlflow_summary")


@pytest.fixture
def metric_gate(request: pytest.FixtureRequest) -> MetricGate:
    """Judge runs in a tracking store by a policy: `metric_gate.check(runs, policy=...)`."""
    return MetricGate(request.config, request.node.stash.setdefault(_JUDGEMENTS, []))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, pytest.TestReport]:
    """Attach the judgements to the test's report, which travels from worker to controller."""
    report: pytest.TestReport = yield
    judgements = item.stash.get(_JUDGEMENTS, [])
    if judgements:
        report.__dict__[_ATTRIBUTE] = list(judgements)
        report.sections += [("metric gate", one["text"]) for one in judgements if not one["failed"]]
        judgements.clear()
    return report


def _files(config: pytest.Config) -> dict[str, Path]:
    """The requested reports: name of the format -> file."""
    folder = config.invocation_params.dir
    paths = {one.name: config.getoption(_PREFIX + one.name) for one in FORMATS}
    return {name: folder / path for name, path in paths.items() if path is not None}


class _Summary:
    """The judgements of all tests: printed at the end, and written to the requested files."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._judgements: list[tuple[str, _Judgement]] = []
        self._lines: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collect the judgements of a test."""
        self._judgements += [(report.nodeid, one) for one in report.__dict__.get(_ATTRIBUTE, ())]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the reports; from the second of a format on, file names are numbered."""
        self._judgements.sort(key=lambda judgement: judgement[0])
        for format_name, path in _files(self._config).items():
            if not self._judgements:
                self._lines.append(f"{path} was not written: no test has judged a run")
            for number, (_, judgement) in enumerate(self._judgements, start=1):
                name = path
                if number > 1 and not is_step_summary(path):
                    name = path.with_stem(f"{path.stem}-{number}")
                try:
                    write(name, judgement["files"][format_name])
                except OSError as error:
                    self._lines.append(f"{name} was not written: {error}")
                    session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED
                else:
                    self._lines.append(f"{name} written")

    def pytest_terminal_summary(self, terminalreporter: "pytest.TerminalReporter") -> None:
        """Print a line for each judgement, and warnings in full."""
        if not self._judgements and not self._lines:
            return
        terminalreporter.section("metric gate")
        for nodeid, judgement in self._judgements:
            headline, _, rest = judgement["text"].partition("\n")
            terminalreporter.write_line(f"{nodeid}: {headline}")
            if not judgement["failed"] and not headline.startswith("PASS"):
                terminalreporter.write_line(rest)
        for line in self._lines:
            terminalreporter.write_line(plain(line))
