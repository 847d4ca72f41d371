"""Restore the code and packages of a run, and compare this machine with them.

A resumed run has several lives, each with its own code. The steps restore the first one; the
comparison covers all. Something that a run did not record is reported, and counts as a difference.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from orbiter_mlflow import names
from orbiter_mlflow.config.codec.splitting import join_value
from orbiter_mlflow.errors import GitError
from orbiter_mlflow.provenance.git import checkout, uncommitted
from orbiter_mlflow.provenance.machine import machine_tags
from orbiter_mlflow.provenance.packages import requirements
from orbiter_mlflow.redaction.redactor import REDACTED, Redactor
from orbiter_mlflow.runs.diff import Difference, differing, parse_requirements
from orbiter_mlflow.runs.model import StoredRun
from orbiter_mlflow.text.escaping import in_shell, plain

__all__ = ["ARTIFACTS", "Machine", "check", "code_tags", "steps", "this_machine"]

ARTIFACTS = {
    names.DIFF_FILE: names.GIT_DIFF,
    names.UNTRACKED_FILE: names.GIT_DIFF,
    names.REQUIREMENTS_FILE: names.PACKAGES,
}
"""Artifact in the folder `provenance` -> the tag that a run with this artifact has."""

_CLEAN = "none"
"""Stands for the digest of the uncommitted diff if everything is committed."""
_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_SECRET = REDACTED.encode()


# -- this machine against the run ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine, described like a run.

    Attributes:
        tags: the tags of a run that would start here.
        requirements: the installed packages, in the format of the artifact.
        problem: which fact could not be found, and why; else empty.
        untracked: whether there are files that git does not track.
    """

    tags: Mapping[str, str]
    requirements: str
    problem: str = ""
    untracked: bool = False


def code_tags(folder: Path) -> dict[str, str]:
    """The git tags of the code in `folder`: commit, branch, origin; empty outside a clone."""
    return dict(checkout(folder).tags)


def this_machine(folder: Path) -> Machine:
    """Describe this machine, with the repository that contains `folder`; takes seconds at most."""
    found = checkout(folder)
    tags, problem, untracked = dict(found.tags), found.problem, False
    if found.dirty:
        try:
            changed = uncommitted(folder)
            tags[names.GIT_DIFF], untracked = changed.digest, changed.untracked_size > 0
        except (GitError, OSError) as error:
            problem = str(error)
    installed = requirements(Redactor())
    tags |= machine_tags()
    tags[names.PACKAGES] = installed.digest
    return Machine(tags, installed.text, problem, untracked)


def check(run: StoredRun, here: Machine, listed: str | None) -> tuple[Difference, ...]:
    """Compare this machine with a run: commit, uncommitted diff, Python, packages.

    Args:
        here: this machine.
        listed: the run's `requirements.txt`; None if it has none.

    Returns:
        The differences, each with the run's value and this machine's. The run's value is None if
        it recorded none, which always counts as a difference.
    """
    found = [row for life in range(1, _lives(run) + 1) for row in _checked(run, here, life)]
    packages = [row for row in found if row.name == "packages"]
    if packages and None not in packages[0].values and listed is not None:
        lists = [parse_requirements(text) for text in (listed, here.requirements)]
        if apart := differing(lists):
            found.remove(packages[0])
            found += sorted(apart, key=lambda row: row.name)
    return tuple(found)


def _checked(run: StoredRun, here: Machine, life: int) -> Iterator[Difference]:
    def of_run(tag: str) -> str | None:
        return run.tags.get(tag if life == 1 else names.in_life(tag, life))

    pairs = {
        "commit": (of_run(names.GIT_COMMIT), here.tags.get(names.GIT_COMMIT)),
        "uncommitted diff": (
            _diff(of_run(names.GIT_DIRTY), of_run(names.GIT_DIFF)),
            _diff(here.tags.get(names.GIT_DIRTY), here.tags.get(names.GIT_DIFF)),
        ),
        "Python": (of_run(names.PYTHON), here.tags.get(names.PYTHON)),
        "packages": (of_run(names.PACKAGES), here.tags.get(names.PACKAGES)),
    }
    rows = [(name, pair) for name, pair in pairs.items() if pair[0] is None or pair[0] != pair[1]]
    inside = (of_run(names.GIT_SUBMODULES), here.tags.get(names.GIT_SUBMODULES))
    if inside != (None, None):  # what was changed is unknown
        rows.append(("changed submodules", (inside[0] or _CLEAN, inside[1] or _CLEAN)))
    for name, pair in rows:
        yield Difference(name if life == 1 else f"{name}, life {life}", pair)


def _diff(dirty: str | None, digest: str | None) -> str | None:
    return _CLEAN if dirty == "false" else digest


def _lives(run: StoredRun) -> int:
    numbers = [tag.removeprefix(f"{names.LIFE}.") for tag in run.tags]
    return max([1, *(int(text) for text in numbers if re.fullmatch(r"[0-9]{1,3}", text))])


# -- steps ---------------------------------------------------------------------------------------


def steps(
    run: StoredRun, artifacts: Mapping[str, bytes], tracking_uri: str, mlflow: str
) -> list[str]:
    """Shell commands with comments that restore code and packages, and how to run them again.

    All texts that come from the run are quoted, or in comments of one line.

    Args:
        artifacts: the artifacts in `ARTIFACTS` that the run has: name -> content.
        tracking_uri: the store without credentials; a sqlite file with its absolute path.
        mlflow: the command `mlflow`, callable from another folder.
    """
    lines = [f"# Restore run {run.run_id} ({run.name}):"]
    if (lives := _lives(run)) > 1:
        lines.append(f"# It was resumed (lives: {lives}); these steps restore its first life.")
    if artifacts.keys() & {names.DIFF_FILE, names.REQUIREMENTS_FILE}:
        # Not into the clone, where they would be untracked files.
        lines.append("kept=$(mktemp -d)")
        lines.append(
            f"MLFLOW_TRACKING_URI={in_shell(tracking_uri)} {in_shell(mlflow)} artifacts download "
            f'--run-id {in_shell(run.run_id)} --artifact-path {names.PROVENANCE} --dst-path "$kept"'
        )
    lines += ["", *_code(run, artifacts), "", *_packages(run, artifacts), "", *_rerun(run)]
    return [plain(line) for line in lines]


def _code(run: StoredRun, artifacts: Mapping[str, bytes]) -> Iterator[str]:
    commit, url = run.tags.get(names.GIT_COMMIT, ""), run.tags.get(names.GIT_REPO_URL)
    if not _COMMIT.fullmatch(commit):
        yield "# The code: the run recorded no commit."
        return
    branch = run.tags.get(names.GIT_BRANCH)
    yield f"# The code{f', of branch {branch}' if branch else ''}:"
    dirty = run.tags.get(names.GIT_DIRTY)
    if dirty != "false" and names.GIT_DIFF not in run.tags:
        if dirty == "true":
            yield "# The run had uncommitted changes that it did not record: its code may differ."
        else:
            yield "# The run did not record whether all was committed: its code may differ."
    if submodules := run.tags.get(names.GIT_SUBMODULES):
        yield f"# The run had changes inside submodules, which it did not record: {submodules}"
    if names.DIFF_FILE in artifacts:
        yield from _about_diff(run, artifacts[names.DIFF_FILE])
    # One chain: a later step must not run in another folder, or at another commit.
    if url is None:
        yield "# (no remote was recorded: go to a clone of the repository without changes)"
        yield 'cd "$(git rev-parse --show-toplevel)" &&'  # in a subfolder, git applies a part
    else:
        folder = in_shell(f"run-{run.run_id[:8]}")
        yield f"git clone -- {in_shell(url)} {folder} && cd {folder} &&"
    yield f"git checkout --detach {commit} &&"
    if names.DIFF_FILE in artifacts:
        # Also to the index, which restores added files and the commits of submodules.
        yield f'git apply --index "$kept/{names.PROVENANCE}/{names.DIFF_FILE}" &&'
    yield "git submodule update --init --recursive"
    if untracked := artifacts.get(names.UNTRACKED_FILE, b"").decode("utf-8", "replace"):
        yield "# Untracked files, of which only the names were recorded:"
        yield from (f"#   {name}" for name in untracked.splitlines())


def _about_diff(run: StoredRun, diff: bytes) -> Iterator[str]:
    if cut := run.tags.get(names.GIT_DIFF_CUT):
        yield f"# Only the start of the uncommitted diff was recorded, {cut}: it will not apply."
    if _SECRET in diff:
        yield f"# Secrets in the diff were replaced by {REDACTED}, also in the restored code."


def _packages(run: StoredRun, artifacts: Mapping[str, bytes]) -> Iterator[str]:
    python = run.tags.get(names.PYTHON)
    version = f"Python {python}" if python else "the run did not record its Python version"
    yield f"# The packages, in a new environment ({version}):"
    if names.REQUIREMENTS_FILE not in artifacts:
        yield "# the run recorded none"
        return
    text = artifacts[names.REQUIREMENTS_FILE].decode("utf-8", "replace")
    for line in text.splitlines():
        if line.startswith("#"):
            yield f"# not from an index: {line.removeprefix('#').strip()}"
    yield f'pip install -r "$kept/{names.PROVENANCE}/{names.REQUIREMENTS_FILE}"'


def _rerun(run: StoredRun) -> Iterator[str]:
    command = run.tags.get(names.COMMAND)
    program = run.tags.get(names.SOURCE_NAME, "?")
    yield "# The command, as the run recorded it:"
    yield f"# {command}" if command else f"# not recorded; the program was {program}"
    for name, tag in (("platform", names.PLATFORM), ("CPU", names.CPU), ("GPU", names.GPU)):
        if tag in run.tags:
            yield f"# {name}: {run.tags[tag]}"
    if seeds := _seeds(run):
        yield f"# seeds: {seeds}"
    for dataset in run.datasets:
        context = f" ({dataset.context})" if dataset.context else ""
        yield f"# dataset: {dataset.name}{context}, digest {dataset.digest}"
    if not run.datasets:
        yield "# dataset: none was recorded"


def _seeds(run: StoredRun) -> str:
    try:
        seeds = json.loads(join_value(run.tags, names.SEEDS) or "{}")
    except ValueError:
        return ""
    return ", ".join(f"{path} = {value}" for path, value in seeds.items()) if seeds else ""
