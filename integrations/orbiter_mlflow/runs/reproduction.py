"""The way back to the code and packages of a run, and whether this machine is there already.

A run that was continued has several lives, each with code of its own. The steps lead to the first;
the comparison is with all. What a run did not record is said, and counts as a difference.
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

__all__ = ["ARTIFACTS", "Machine", "check", "steps", "this_machine"]

ARTIFACTS = {
    names.DIFF_FILE: names.GIT_DIFF,
    names.UNTRACKED_FILE: names.GIT_DIFF,
    names.REQUIREMENTS_FILE: names.PACKAGES,
}
"""Artifacts that a run may have in its folder `provenance` -> the tag without which it has none."""

_CLEAN = "none"
"""The digest of the uncommitted diff where all is committed."""
_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_SECRET = REDACTED.encode()


# -- this machine against the run ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine, in the words of a run's tags.

    Attributes:
        tags: as a run has them that starts here.
        requirements: what is installed, as the artifact has it.
        problem: what could not be found out, and why; empty where all was.
        untracked: whether there are files that git does not track.
    """

    tags: Mapping[str, str]
    requirements: str
    problem: str = ""
    untracked: bool = False


def this_machine(folder: Path) -> Machine:
    """This machine, with the repository that `folder` lies in. It asks git, for seconds at most."""
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
    """Where this machine is not as the run's: commit, uncommitted diff, Python, packages.

    Args:
        run: the run.
        here: this machine.
        listed: the run's own `requirements.txt`; None where it has none.

    Returns:
        Of each difference what the run has, and what this machine has. Where the run recorded
        nothing, None: that is never the same.
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
    if inside != (None, None):  # nobody knows what was changed
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
    """Lines for a shell, with comments, that bring back code and packages, and run it again.

    Whatever the run says of itself stands quoted or in a comment, on one line.

    Args:
        run: the run.
        artifacts: those of `ARTIFACTS` that the run has.
        tracking_uri: as one may type it; a sqlite file by its whole path.
        mlflow: the command `mlflow`, as one can type it from another folder.
    """
    lines = [f"# The way back to run {run.run_id} ({run.name}):"]
    if (lives := _lives(run)) > 1:
        lines.append(f"# It was continued (lives: {lives}); this is how its first life began.")
    if artifacts.keys() & {names.DIFF_FILE, names.REQUIREMENTS_FILE}:
        # Not into the clone, where they would be files that git does not track.
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
        known = "had uncommitted changes, and did not record" if dirty == "true" else "did not say"
        yield f"# The run {known} what was not committed: this may not be its code."
    if submodules := run.tags.get(names.GIT_SUBMODULES):
        yield f"# The run had changes inside submodules, which were not kept: {submodules}"
    if names.DIFF_FILE in artifacts:
        yield from _about_diff(run, artifacts[names.DIFF_FILE])
    # In one chain: what follows must not change a folder that is not the clone, or another commit.
    if url is None:
        yield "# (no address was recorded: go to a clone of the repository, with nothing changed)"
        yield 'cd "$(git rev-parse --show-toplevel)" &&'  # below it, git would apply but a part
    else:
        folder = in_shell(f"run-{run.run_id[:8]}")
        yield f"git clone -- {in_shell(url)} {folder} && cd {folder} &&"
    yield f"git checkout --detach {commit} &&"
    if names.DIFF_FILE in artifacts:
        # Into the index as well: added files are such again, and submodules go where they were.
        yield f'git apply --index "$kept/{names.PROVENANCE}/{names.DIFF_FILE}" &&'
    yield "git submodule update --init --recursive"
    if untracked := artifacts.get(names.UNTRACKED_FILE, b"").decode("utf-8", "replace"):
        yield "# Files that git did not track, of which nothing but the name was kept:"
        yield from (f"#   {name}" for name in untracked.splitlines())


def _about_diff(run: StoredRun, diff: bytes) -> Iterator[str]:
    if cut := run.tags.get(names.GIT_DIFF_CUT):
        yield f"# Only the start of the uncommitted diff was kept, {cut}: it will not apply whole."
    if _SECRET in diff:
        yield f"# Secrets in the diff were replaced by {REDACTED}; so they are in the code."


def _packages(run: StoredRun, artifacts: Mapping[str, bytes]) -> Iterator[str]:
    python = run.tags.get(names.PYTHON)
    version = f"Python {python}" if python else "the run did not record which Python"
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
