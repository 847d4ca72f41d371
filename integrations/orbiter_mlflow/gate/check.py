"""One judgement, from the store to the report: what the command and the pytest fixture share.

Whatever keeps the gate from comparing ends up in the report as a problem; raised is only what is
wrong with the question itself.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orbiter_mlflow.errors import CannotCompareError, FilterError, PolicyError, StoreError
from orbiter_mlflow.gate import baseline_file, git, run_selection
from orbiter_mlflow.gate.baseline_file import BaselineFile
from orbiter_mlflow.gate.git import GitRef
from orbiter_mlflow.gate.judge import judge
from orbiter_mlflow.gate.model import BaselineSource, GateReport, GateRun, LeftOut, Outcome
from orbiter_mlflow.gate.policy import Policy, expand
from orbiter_mlflow.runs.model import StoredRun
from orbiter_mlflow.settings import MLflowSettings
from orbiter_mlflow.ui.links import compare_page
from orbiter_mlflow.ui.pages import ui_address

if TYPE_CHECKING:
    from orbiter_mlflow.runs.store import RunStore


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of the gate.

    Attributes:
        candidates: ids, starts of ids, names, or filters of the runs to judge.
        baseline: the same for the runs to compare with, in place of the policy's; None for those.
        settings: where the store, the experiment and the spool are. Names and filters are looked
            up in its experiment; without one, in `Default`, and the policy's filter in the
            experiments of the candidates.
        bootstrap: that there is no baseline yet is known.
        baseline_ref: git ref at which a baseline file is read.
        policy_file: where the policy was read, None for one made in code.
    """

    policy: Policy
    candidates: Sequence[str]
    settings: MLflowSettings
    baseline: Sequence[str] | None = None
    bootstrap: bool = False
    baseline_ref: str | None = None
    policy_file: Path | None = None

    @property
    def folder(self) -> Path:
        """What the path of a baseline file is relative to, and where git is asked."""
        return Path.cwd() if self.policy_file is None else self.policy_file.parent


def answer(question: Question) -> GateReport:
    """Judge the candidates.

    Raises:
        PolicyError: the policy does not fit what is there.
        FilterError: MLflow does not understand a filter.
    """
    # Here: a store costs seconds of imports, and `check --help` needs none.
    from orbiter_mlflow.runs.store import RunStore

    try:
        store = RunStore(question.settings.tracking_uri)
        return _judged(question, store)
    except FilterError:
        raise
    except (CannotCompareError, StoreError) as error:
        return refused(question, str(error))


def refused(question: Question, problem: str) -> GateReport:
    """The report where nothing could be compared."""
    return GateReport(
        outcome=Outcome.CANNOT_COMPARE,
        metrics=(),
        candidate=(),
        baseline=(),
        source=BaselineSource(_described(question)),
        policy=question.policy.path,
        policy_digest=question.policy.digest,
        alpha=question.policy.gate.alpha,
        problems=(problem,),
    )


def _described(question: Question) -> str:
    given = question.policy.baseline
    if question.baseline is not None:
        return f"runs {', '.join(question.baseline)}"
    if given.run is not None:
        return f"run {given.run}"
    return f"filter {given.filter}" if given.filter is not None else f"file {given.file}"


def _judged(question: Question, store: "RunStore") -> GateReport:
    if not question.candidates:
        raise CannotCompareError("no candidate was given: name the runs to judge")
    experiment = run_selection.experiment_of(question.settings, store)
    stored = run_selection.named(store, question.candidates, experiment=experiment)
    try:
        sides = _sides(question, store, stored)
    except FilterError:
        raise
    except (CannotCompareError, StoreError) as error:
        return _alone(question, store, stored, str(error))
    return judge(
        question.policy,
        sides.candidate,
        sides.baseline,
        source=sides.source,
        left_out=sides.left_out,
        bootstrap=question.bootstrap,
        links=_links(store, sides.stored),
    )


@dataclass(frozen=True, slots=True)
class _Sides:
    """What is compared; `stored` are the runs of it that the store has."""

    candidate: Sequence[GateRun]
    baseline: Sequence[GateRun]
    stored: Sequence[StoredRun]
    source: BaselineSource
    left_out: Sequence[LeftOut] = ()


def _sides(question: Question, store: "RunStore", stored: Sequence[StoredRun]) -> _Sides:
    if question.baseline is not None and not question.baseline:
        raise CannotCompareError("no baseline run was given: name the runs to compare with")
    ref = None
    if question.baseline_ref is not None:
        ref = git.resolve(question.baseline_ref, question.folder)
    by_file = question.policy.baseline.file is not None and question.baseline is None
    return (_beside_file if by_file else _beside_runs)(question, store, stored, ref)


def _alone(
    question: Question, store: "RunStore", stored: Sequence[StoredRun], problem: str
) -> GateReport:
    """The report where the baseline cannot be had: bounds hold all the same."""
    waiting = run_selection.waiting_here(*question.settings.spool_folders)
    try:
        candidate, _ = run_selection.gate_runs(store, question.policy, stored, [], waiting)
        return judge(
            question.policy,
            candidate,
            [],
            source=BaselineSource(_described(question)),
            problems=[problem],
        )
    except PolicyError:  # what a pattern means, the baseline may have told
        return refused(question, problem)


def _beside_runs(
    question: Question, store: "RunStore", stored: Sequence[StoredRun], ref: GitRef | None
) -> _Sides:
    """Candidates and baseline, both from the store."""
    given = question.policy.baseline
    waiting = run_selection.waiting_here(*question.settings.spool_folders)
    left_out: Sequence[LeftOut] = ()
    described = _described(question)
    if question.baseline is not None or given.run is not None:
        texts = [given.run or ""] if question.baseline is None else question.baseline
        experiment = run_selection.experiment_of(question.settings, store)
        runs = run_selection.named(store, texts, experiment=experiment)
    else:
        found = run_selection.latest_finished(
            store,
            given.filter or "",
            _experiments(question, store, stored),
            last=given.last,
            candidates={run.run_id for run in stored},
            waiting=waiting,
        )
        runs, left_out, described = list(found.runs), found.left_out, found.described
    candidate, baseline = run_selection.gate_runs(store, question.policy, stored, runs, waiting)
    if ref is not None:
        described += f", as the store has them now: {ref.ref} says nothing of that"
    told = BaselineSource(described, _policy_change(question, ref))
    return _Sides(candidate, baseline, [*stored, *runs], told, left_out)


def _experiments(
    question: Question, store: "RunStore", stored: Sequence[StoredRun]
) -> dict[str, str]:
    """Where the policy's filter looks: in the experiment that was named, else in those of the
    candidates."""
    settings = question.settings
    if settings.experiment is not None or settings.experiment_id is not None:
        name = run_selection.experiment_of(settings, store)
        return {store.experiment_id(name): name}
    ids = {run.experiment_id for run in stored}
    return {one: store.experiment_name(one) for one in sorted(ids)}


def _beside_file(
    question: Question, store: "RunStore", stored: Sequence[StoredRun], ref: GitRef | None
) -> _Sides:
    """Candidates from the store, the baseline from a file here or at a git ref."""
    policy, path = question.policy, question.folder / (question.policy.baseline.file or "")
    waiting = run_selection.waiting_here(*question.settings.spool_folders)
    if ref is None:
        file, described = baseline_file.load(path), f"file {path}"
    else:
        content = ref.read(path)
        described = f"file {path} at {ref.shown}"
        file = None if content is None else baseline_file.read(content, described)
    if file is None and not question.bootstrap:
        raise CannotCompareError(
            f"there is no {described}: write it with `orbiter-mlflow bless RUN... --file` and "
            "commit it; for the first time there is --bootstrap"
        )
    changed = [_policy_change(question, ref)]
    if ref is not None:
        changed.insert(0, _file_change(file, path, ref))
    keys = set(file.metrics) if file is not None else set()
    candidate, _ = run_selection.gate_runs(store, policy, stored, [], waiting, also=keys)
    if file is not None:
        keys |= {key for run in candidate for key in run.metrics}
        _require_same_points(policy, file, keys, described)
        described += f", blessed {file.blessed.at} by {file.blessed.by}: {file.blessed.reason}"
    told = BaselineSource(described, "; ".join(filter(None, changed)))
    return _Sides(candidate, [] if file is None else file.gate_runs(), stored, told)


def _require_same_points(
    policy: Policy, file: BaselineFile, keys: Collection[str], described: str
) -> None:
    for key, wanted in expand(policy, keys).items():
        blessed = file.metrics.get(key)
        if blessed is not None and blessed.point != baseline_file.point_of(wanted):
            raise CannotCompareError(
                f"{described} holds {key} at {blessed.point}, the policy asks for "
                f"{baseline_file.point_of(wanted)}: bless the runs again, with this policy"
            )


def _file_change(judged_by: BaselineFile | None, path: Path, ref: GitRef) -> str:
    """What the file here says otherwise than the one that judges."""
    try:
        here = baseline_file.load(path)
    except CannotCompareError as error:
        return f"here, {error}"
    if here is None or judged_by is None:
        if here is judged_by:
            return ""
        return f"{path} is {'not here' if here is None else f'here, but not at {ref.shown}'}"
    told = baseline_file.difference(judged_by, here)
    return f"{path} differs from the one at {ref.shown}, which counts: {told}" if told else ""


def _policy_change(question: Question, ref: GitRef | None) -> str:
    """That the limits are not those at the ref: they are the change's own."""
    path = question.policy_file
    if ref is None or path is None:
        return ""
    there = ref.read(path)
    if there is None:
        return f"the policy {path} is not at {ref.shown}: its limits are new"
    if there.splitlines() == path.read_bytes().splitlines():
        return ""
    return f"the policy {path} differs from the one at {ref.shown}: it judges as it is here"


def _links(store: "RunStore", runs: Sequence[StoredRun]) -> dict[str, str] | None:
    """The page of MLflow that shows the runs side by side."""
    if not 1 < len(runs) <= _LINKED:
        return None
    experiments = {run.experiment_id for run in runs}
    ids = [run.run_id for run in runs]
    page = compare_page(ui_address(store.shown_uri), sorted(experiments), ids)
    return {"compare in MLflow": page}


_LINKED = 100
"""Runs, at most, in an address."""
