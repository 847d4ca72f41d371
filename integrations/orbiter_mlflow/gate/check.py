"""One check, from the store to the report: shared by the command and the pytest fixture.

Whatever keeps the gate from comparing becomes a problem in the report; only errors in the request
itself are raised.
"""

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from orbiter_mlflow.delivery.hosts.environment import DELIVERY_DEFAULTS
from orbiter_mlflow.errors import CannotCompareError, FilterError, PolicyError, StoreError
from orbiter_mlflow.gate import baseline_file, git, run_selection
from orbiter_mlflow.gate.age import baseline_age
from orbiter_mlflow.gate.attempts import incompleteness
from orbiter_mlflow.gate.baseline_file import BaselineFile
from orbiter_mlflow.gate.baseline_runs import FoundBaseline, find_baseline
from orbiter_mlflow.gate.example_tables import read_tables
from orbiter_mlflow.gate.git import GitRef
from orbiter_mlflow.gate.judge import judge
from orbiter_mlflow.gate.lineage import BaselineAge, PastBlessing
from orbiter_mlflow.gate.model import (
    BaselineSource,
    GateReport,
    GateRun,
    LeftOut,
    Outcome,
)
from orbiter_mlflow.gate.past import past_of_file
from orbiter_mlflow.gate.past_runs import read_past
from orbiter_mlflow.gate.policy import Policy, expand, require_known
from orbiter_mlflow.gate.policy_at_ref import judge_with_policy_at_ref
from orbiter_mlflow.redaction.redactor import Redactor
from orbiter_mlflow.runs.model import StoredRun
from orbiter_mlflow.settings import MLflowSettings
from orbiter_mlflow.text.clock import utc
from orbiter_mlflow.ui.links import compare_page
from orbiter_mlflow.ui.pages import server_command, ui_address

if TYPE_CHECKING:
    from orbiter_mlflow.runs.store import RunStore


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """A request to judge runs.

    Attributes:
        candidates: ids, starts of ids, names, or filters of the runs to judge.
        settings: tracking URI, experiment and spool. Names and filters are looked up in the
            experiment; without one, in `Default`, and the policy's filter in the experiments of
            the candidates.
        baseline: the runs to compare with, given like `candidates`; None for those of the policy.
        bootstrap: let the bounds alone decide if there is no baseline yet.
        baseline_ref: git ref at which the baseline file and the policy are read.
        accept_policy_change: whether the policy here decides alone if it differs from the one at
            `baseline_ref`; else the stricter of both decides.
        policy_file: the path of the policy; None for one made in code.
        today: the day in UTC, after which approvals have expired.
    """

    policy: Policy
    candidates: Sequence[str]
    settings: MLflowSettings
    baseline: Sequence[str] | None = None
    bootstrap: bool = False
    baseline_ref: str | None = None
    accept_policy_change: bool = False
    policy_file: Path | None = None
    today: date = field(default_factory=lambda: datetime.now(UTC).date())

    @property
    def folder(self) -> Path:
        """The folder that a baseline file's path is relative to, and where git runs."""
        return Path.cwd() if self.policy_file is None else self.policy_file.parent


def run_check(request: CheckRequest) -> GateReport:
    """Judge the candidates.

    Raises:
        PolicyError: the policy does not fit the runs.
        FilterError: MLflow does not understand a filter.
    """
    # Imported here because it takes seconds, which `check --help` need not wait for.
    from orbiter_mlflow.runs.store import RunStore

    try:
        with _short_timeouts():
            return _judged(request, RunStore(request.settings.tracking_uri))
    except FilterError:
        raise
    except (CannotCompareError, StoreError) as error:
        return cannot_compare(request, str(error))


@contextmanager
def _short_timeouts() -> Iterator[None]:
    """Report a store that does not answer after seconds, not after MLflow's minutes of retries, and
    download without a progress bar."""
    wanted = {**DELIVERY_DEFAULTS, "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
    defaults = {name: text for name, text in wanted.items() if name not in os.environ}
    os.environ.update(defaults)
    try:
        yield
    finally:
        for name in defaults:
            os.environ.pop(name, None)


def cannot_compare(request: CheckRequest, problem: str) -> GateReport:
    """The report if nothing could be compared."""
    report = without_policy(request.policy.path, problem)
    return replace(
        report,
        source=BaselineSource(_described(request)),
        policy_digest=request.policy.digest,
        alpha=request.policy.gate.alpha,
    )


def gate_failed(request: CheckRequest, error: Exception) -> GateReport:
    """The report if the gate itself failed: a bug in it lets no change through."""
    reason = Redactor().text(f"{type(error).__name__}: {error}")
    return cannot_compare(request, f"the gate itself failed: {reason}")


def without_policy(path: str, problem: str) -> GateReport:
    """The report if not even the policy could be read, for a reason other than its content."""
    return GateReport(
        outcome=Outcome.CANNOT_COMPARE,
        metrics=(),
        candidate=(),
        baseline=(),
        source=BaselineSource("unknown"),
        policy=path,
        policy_digest="",
        alpha=0.05,
        problems=(problem,),
    )


def _described(request: CheckRequest) -> str:
    source = request.policy.baseline
    if request.baseline is not None:
        return f"runs {', '.join(request.baseline)}"
    if source.run is not None:
        return f"run {source.run}"
    return f"filter {source.filter}" if source.filter is not None else f"file {source.file}"


def _judged(request: CheckRequest, store: "RunStore") -> GateReport:
    if not request.candidates:
        raise CannotCompareError("no candidate is given: name the runs to judge")
    experiment = run_selection.experiment_of(request.settings, store)
    stored = run_selection.find_runs(store, request.candidates, experiment=experiment)
    if request.baseline_ref is None:
        return _judged_by_policy(request, store, stored, None)
    try:
        ref = git.resolve(request.baseline_ref, request.folder)
    except CannotCompareError as error:
        return _without_baseline(request, store, stored, str(error))
    return judge_with_policy_at_ref(
        ref,
        request.policy,
        request.policy_file,
        accepted=request.accept_policy_change,
        judge_by=lambda policy: _judged_by_policy(
            replace(request, policy=policy), store, stored, ref
        ),
    )


def _judged_by_policy(
    request: CheckRequest, store: "RunStore", stored: Sequence[StoredRun], ref: GitRef | None
) -> GateReport:
    try:
        sides = _sides(request, store, stored, ref)
    except FilterError:
        raise
    except (CannotCompareError, StoreError) as error:
        return _without_baseline(request, store, stored, str(error))
    return judge(
        request.policy,
        sides.candidate,
        sides.baseline,
        source=sides.source,
        today=request.today,
        left_out=sides.left_out,
        bootstrap=request.bootstrap,
        links=_links(store, sides.stored),
        tables=read_tables(store, request.policy, sides.candidate, sides.baseline),
        past=sides.past,
        age=_age(request, sides),
    )


@dataclass(frozen=True, slots=True)
class _Sides:
    """The runs to compare; `stored` are those that come from the store."""

    candidate: Sequence[GateRun]
    baseline: Sequence[GateRun]
    stored: Sequence[StoredRun]
    source: BaselineSource
    left_out: Sequence[LeftOut] = ()
    past: Sequence[PastBlessing] = ()


def _age(request: CheckRequest, sides: _Sides) -> BaselineAge | None:
    if not sides.baseline:
        return None
    newest = max(sides.baseline, key=lambda run: run.start_time)
    at = sides.past[0].at if sides.past else ""
    commits = {run.commit for run in sides.candidate}
    return baseline_age(
        request.policy.baseline,
        at or utc(newest.start_time),
        commit=newest.commit,
        candidate=commits.pop() if len(commits) == 1 else "",
        folder=request.folder,
    )


def _sides(
    request: CheckRequest, store: "RunStore", stored: Sequence[StoredRun], ref: GitRef | None
) -> _Sides:
    if request.baseline is not None and not request.baseline:
        raise CannotCompareError("no baseline run is given: name the runs to compare with")
    by_file = request.policy.baseline.file is not None and request.baseline is None
    return (_against_file if by_file else _against_runs)(request, store, stored, ref)


def _without_baseline(
    request: CheckRequest, store: "RunStore", stored: Sequence[StoredRun], problem: str
) -> GateReport:
    """The report if the baseline cannot be read: only bounds are checked."""
    waiting = run_selection.waiting_here(*request.settings.spool_folders)
    try:
        candidate, _ = run_selection.gate_runs(store, request.policy, stored, [], waiting)
        return judge(
            request.policy,
            candidate,
            [],
            source=BaselineSource(_described(request)),
            today=request.today,
            problems=[problem],
        )
    except PolicyError:  # a pattern may match metrics of the baseline only
        return cannot_compare(request, problem)


def _against_runs(
    request: CheckRequest, store: "RunStore", stored: Sequence[StoredRun], ref: GitRef | None
) -> _Sides:
    """Candidates and baseline, both from the store."""
    source = request.policy.baseline
    waiting = run_selection.waiting_here(*request.settings.spool_folders)
    left_out: Sequence[LeftOut] = ()
    found: FoundBaseline | None = None
    described = _described(request)
    if request.baseline is not None or source.run is not None:
        texts = [source.run or ""] if request.baseline is None else request.baseline
        experiment = run_selection.experiment_of(request.settings, store)
        runs = run_selection.find_runs(store, texts, experiment=experiment)
    else:
        experiments = _experiments(request, store, stored)
        found = find_baseline(store, source, experiments, candidates=stored, waiting=waiting)
        runs, left_out, described = found.runs, found.left_out, found.described
    candidate, baseline = run_selection.gate_runs(store, request.policy, stored, runs, waiting)
    past: Sequence[PastBlessing] = ()
    if found is not None:
        baseline = [replace(run, batch=found.batch_of(run.run_id)) for run in baseline]
        keys = {key for run in candidate for key in run.metrics}
        past = read_past(store, request.policy, found, baseline, waiting, also=keys)
    _require_known(request.policy, candidate, {key for run in runs for key in run.metrics}, stored)
    if ref is not None:
        described += f", as they are in the store now, not at {ref.ref}"
    return _Sides(candidate, baseline, [*stored, *runs], BaselineSource(described), left_out, past)


def _require_known(
    policy: Policy,
    candidate: Sequence[GateRun],
    baseline_keys: Collection[str],
    stored: Sequence[StoredRun],
) -> None:
    """Refuse a metric that no run has, unless a candidate is incomplete and may still log it."""
    if not any(incompleteness(run) for run in candidate):
        require_known(policy, {key for run in stored for key in run.metrics}.union(baseline_keys))


def _experiments(
    request: CheckRequest, store: "RunStore", stored: Sequence[StoredRun]
) -> dict[str, str]:
    """The experiments in which the policy's filter is applied: the one in the settings, else those
    of the candidates."""
    settings = request.settings
    if settings.experiment is not None or settings.experiment_id is not None:
        name = run_selection.experiment_of(settings, store)
        return {store.experiment_id(name): name}
    ids = {run.experiment_id for run in stored}
    return {experiment_id: store.experiment_name(experiment_id) for experiment_id in sorted(ids)}


def _against_file(
    request: CheckRequest, store: "RunStore", stored: Sequence[StoredRun], ref: GitRef | None
) -> _Sides:
    """Candidates from the store, and the baseline from a file here or at a git ref."""
    policy, path = request.policy, request.folder / (request.policy.baseline.file or "")
    waiting = run_selection.waiting_here(*request.settings.spool_folders)
    if ref is None:
        file, described = baseline_file.load_baseline(path), f"file {path}"
    else:
        content = ref.read_file(path)
        described = f"file {path} at {ref.shown}"
        file = None if content is None else baseline_file.parse_baseline(content, described)
    if file is None and not request.bootstrap:
        raise CannotCompareError(
            f"there is no {described}: write it with `orbiter-mlflow bless RUN... --file` and "
            "commit it, or pass --bootstrap until there is one"
        )
    changed = "" if ref is None else _file_change(file, path, ref)
    keys = set(file.metrics) if file is not None else set()
    candidate, _ = run_selection.gate_runs(store, policy, stored, [], waiting, also=keys)
    _require_known(policy, candidate, keys, stored)
    if file is not None:
        keys |= {key for run in candidate for key in run.metrics}
        _require_same_points(policy, file, keys, described)
        described += f", blessed {file.blessed.at} by {file.blessed.by}: {file.blessed.reason}"
    source = BaselineSource(described, changed)
    if file is None:
        return _Sides(candidate, [], stored, source)
    past = past_of_file(policy, file)[: policy.baseline.last]
    return _Sides(candidate, file.gate_runs(), stored, source, past=past)


def _require_same_points(
    policy: Policy, file: BaselineFile, keys: Collection[str], described: str
) -> None:
    for key, expected in expand(policy, keys).items():
        blessed = file.metrics.get(key)
        if blessed is not None and blessed.point != baseline_file.point_of(expected):
            raise CannotCompareError(
                f"{described} has the {blessed.point} value of {key}, but the policy uses "
                f"{baseline_file.point_of(expected)}: bless the runs again, with this policy"
            )


def _file_change(used: BaselineFile | None, path: Path, ref: GitRef) -> str:
    """How the file here differs from the one that is used; empty if it does not."""
    try:
        here = baseline_file.load_baseline(path)
    except CannotCompareError as error:
        return f"here, {error}"
    if here is None or used is None:
        if here is used:
            return ""
        return f"{path} is {'not here' if here is None else f'here, but not at {ref.shown}'}"
    changes = baseline_file.summarize_changes(used, here)
    return (
        f"{path} differs from the one at {ref.shown}, which is used: {changes}" if changes else ""
    )


def _links(store: "RunStore", runs: Sequence[StoredRun]) -> dict[str, str] | None:
    """The page of the MLflow UI that compares the runs; none in a CI job whose store has no UI."""
    serve = server_command(store.shown_uri)
    if serve is not None and os.environ.get("CI"):
        return None
    if not 1 < len(runs) <= _MAX_LINKED:
        return None
    experiments = {run.experiment_id for run in runs}
    ids = [run.run_id for run in runs]
    page = compare_page(ui_address(store.shown_uri), sorted(experiments), ids)
    return {"compare in MLflow" + (f", while `{serve}` runs" if serve else ""): page}


_MAX_LINKED = 100
"""Runs in the address of a page, at most."""
