"""A plugin for pytest: the fixture `metric_gate` judges runs as `orbiter-mlflow check` does.

It loads nothing but names of options until the fixture is used.
"""

import os
import warnings
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import pytest

from orbiter_mlflow.errors import ReportFileError
from orbiter_mlflow.gate.options import JUDGING, REPORTS, STORE, Option
from orbiter_mlflow.gate.reports.files import is_shared, render, require_writable, write
from orbiter_mlflow.text.escaping import plain

if TYPE_CHECKING:
    from orbiter_mlflow.gate.model import Direction, GateReport
    from orbiter_mlflow.gate.policy import Policy

__all__ = ["MetricGate"]

_PREFIX = "--orbiter-"
_POLICY = Option("policy", "The policy of `metric_gate.check` where a test names none.", "path")


class _Told(TypedDict):
    """What a process of the test run tells the one that sums up: texts, as they can be sent."""

    failed: bool
    text: str
    files: dict[str, str]


_SENT = "orbiter_gate"
"""What a test's report calls it."""
_TOLD = pytest.StashKey[list[_Told]]()


class MetricGate:
    """Judges runs, and fails the test where they are worse or cannot be judged.

    Runs are given as ids, starts of ids, names or filters of MLflow's, or as what has a run id: a
    trainer, a run; one, or several of them. A report that was asked for is written at the end.
    """

    def __init__(self, config: pytest.Config, told: list[_Told]) -> None:
        self._config = config
        self._told = told

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
            policy: a file, relative to the root of the tests, or what `load_policy` gives; by
                default that of `--orbiter-policy`.
            baseline: runs to compare with, in place of the policy's.
            bootstrap: that there is no baseline yet is known; by default as the option says.
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
        return self._answer(
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
        """Judge one metric of some runs against others.

        Args:
            metric: its key.
            candidate: the runs to judge.
            baseline: the runs to compare with; one is enough.
            direction: what is better: `higher`, `lower`, or nearer to the `target`.
            limits: as in a policy: `max_drop`, `max_drop_rel`, `min`, `max`, `target`, `at`, ...
        """
        from orbiter_mlflow.errors import PolicyError
        from orbiter_mlflow.gate.policy import Policy

        try:
            policy = Policy.for_one(metric, direction=direction, **limits)
        except PolicyError as error:
            raise _failed(error) from None
        return self._answer(
            policy, None, candidates=_texts(candidate), baseline=_texts(baseline), bootstrap=False
        )

    def _answer(self, policy: "Policy", file: Path | None, **asked: Any) -> "GateReport":
        from orbiter_mlflow.errors import FilterError, PolicyError
        from orbiter_mlflow.gate.check import Question, answer
        from orbiter_mlflow.gate.reports import terminal_text
        from orbiter_mlflow.settings import MLflowSettings, resolve

        given = {one.variable: self._option(one.name) for one in STORE}
        named = {name: text for name, text in given.items() if text is not None}
        question = Question(
            policy=policy,
            # Without a run id: one from the environment is for what trains.
            settings=resolve(MLflowSettings(run_id=None, **named), None),
            baseline_ref=self._option("baseline-ref"),
            policy_file=file,
            **asked,
        )
        try:
            with _as_the_command():
                report = answer(question)
        except (PolicyError, FilterError) as error:
            raise _failed(error) from None
        text = terminal_text(report)
        failed = report.outcome.exit_code != 0
        self._told.append(
            {"failed": failed, "text": text, "files": render(report, _files(self._config))}
        )
        if failed:
            pytest.fail(text, pytrace=False)
        return report

    def _policy_file(self, given: "str | os.PathLike[str] | None") -> Path:
        if given is not None:
            return self._config.rootpath / given
        option: Path | None = self._option("policy")
        if option is None:
            pytest.fail(
                f"no policy: give `policy=...` to metric_gate.check, or {_PREFIX}policy FILE",
                pytrace=False,
            )
        return self._config.invocation_params.dir / option

    def _option(self, name: str) -> Any:
        return self._config.getoption(_PREFIX + name)


def _failed(error: Exception) -> BaseException:
    """What fails a test in one line; raised `from None`, or pytest shows the way it came."""
    lines = map(plain, str(error).splitlines())
    return pytest.fail.Exception("\n".join(lines), pytrace=False)


def _texts(runs: object) -> list[str]:
    """The runs as the gate looks them up."""
    if isinstance(runs, str):
        return [runs]
    if isinstance(runs, Iterable):
        return [text for run in runs for text in _texts(run)]
    told = getattr(getattr(runs, "info", runs), "run_id", None)
    if not isinstance(told, str):
        raise TypeError(
            f"{runs!r} has no run id (yet): give an id, a name, a filter, or a trainer whose run "
            "exists (`await trainer.wait_run_id()`)"
        )
    return [told]


@contextmanager
def _as_the_command() -> Iterator[None]:
    """What holds for the gate's requests, and not for what the tests do besides: a store that
    does not answer is told after seconds, and warnings of its libraries fail no test."""
    from orbiter_mlflow.delivery.hosts.environment import DELIVERY_DEFAULTS

    ours = {name: text for name, text in DELIVERY_DEFAULTS.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


# -- hooks of pytest -----------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of `orbiter-mlflow check`, and the policy."""
    group = parser.getgroup("orbiter", "metric gate (orbiter-mlflow)")
    for one in (_POLICY, *STORE, *JUDGING):
        if one.kind == "flag":
            group.addoption(_PREFIX + one.name, action="store_true", help=one.help)
        else:
            kind = Path if one.kind == "path" else str
            group.addoption(_PREFIX + one.name, type=kind, metavar=one.metavar, help=one.help)


def pytest_configure(config: pytest.Config) -> None:
    """See that the reports can be written, and sum up in the one process that does."""
    policy: Path | None = config.getoption(_PREFIX + _POLICY.name)
    read = [] if policy is None else [config.invocation_params.dir / policy]
    try:
        require_writable(_files(config), _PREFIX, read)
    except ReportFileError as error:
        raise pytest.UsageError(str(error)) from error
    if not hasattr(config, "workerinput"):  # of pytest-xdist: a worker
        config.pluginmanager.register(_Summary(config), "orbiter_mlflow_summary")


@pytest.fixture
def metric_gate(request: pytest.FixtureRequest) -> MetricGate:
    """Judges runs in a tracking store by a policy: `metric_gate.check(runs, policy=...)`."""
    return MetricGate(request.config, request.node.stash.setdefault(_TOLD, []))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, pytest.TestReport]:
    """Send along what the gate has found: a report travels from the worker to the controller."""
    report: pytest.TestReport = yield
    told = item.stash.get(_TOLD, [])
    if told:
        report.__dict__[_SENT] = list(told)
        report.sections += [("metric gate", one["text"]) for one in told if not one["failed"]]
        told.clear()
    return report


def _files(config: pytest.Config) -> dict[str, Path]:
    """The reports that were asked for, by their kind."""
    folder = config.invocation_params.dir
    asked = {kind: config.getoption(_PREFIX + kind) for kind in REPORTS}
    return {kind: folder / path for kind, path in asked.items() if path is not None}


class _Summary:
    """What all tests found: shown at the end, and written to the files that were asked for."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._told: list[tuple[str, _Told]] = []
        self._lines: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take what the test's process has sent."""
        self._told += [(report.nodeid, one) for one in report.__dict__.get(_SENT, ())]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the reports; where there are several of a kind, from the second on numbered."""
        self._told.sort(key=lambda told: told[0])
        for kind, path in _files(self._config).items():
            if not self._told:
                self._lines.append(f"{path} was not written: no test has judged a run")
            for number, (_, told) in enumerate(self._told, start=1):
                name = path
                if number > 1 and not is_shared(path):
                    name = path.with_stem(f"{path.stem}-{number}")
                try:
                    write(name, told["files"][kind])
                except OSError as error:
                    self._lines.append(f"{name} was not written: {error}")
                    session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED
                else:
                    self._lines.append(f"{name} written")

    def pytest_terminal_summary(self, terminalreporter: "pytest.TerminalReporter") -> None:
        """A line for each judgement; what a failure has not shown already, as a whole."""
        if not self._told and not self._lines:
            return
        terminalreporter.section("metric gate")
        for nodeid, told in self._told:
            headline, _, rest = told["text"].partition("\n")
            terminalreporter.write_line(f"{nodeid}: {headline}")
            if not told["failed"] and not headline.startswith("PASS"):
                terminalreporter.write_line(rest)
        for line in self._lines:
            terminalreporter.write_line(plain(line))
