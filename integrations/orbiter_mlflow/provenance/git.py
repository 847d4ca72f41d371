"""Run git, and read the commit and the uncommitted changes of a repository.

The only wrapper of git. The answers do not depend on the user's git settings, so that those of two
machines can be compared.
"""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from orbiter_mlflow import names
from orbiter_mlflow.errors import GitError
from orbiter_mlflow.provenance.subprocesses import MAX_OUTPUT, Answer, run_subprocess
from orbiter_mlflow.text.urls import without_userinfo

__all__ = [
    "Checkout",
    "GitError",
    "Uncommitted",
    "checkout",
    "run_git",
    "uncommitted",
    "without_binaries",
]

GIT_TIMEOUT = 10.0
"""Default timeout of a git call, in seconds."""
MAX_DIFF = 1_000_000
"""Bytes that are kept of a diff, and of the names of untracked files, each."""

# git sets these inside its hooks; the last one would change the diff
_NOT_FOR_GIT = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_DIFF_OPTS")
_READABLE = ("-c", "core.quotePath=false")
# No `--binary`, in which nobody could see a secret, and no changes inside submodules, which
# `git apply` cannot restore.
_DIFF = (
    *(*_READABLE, "-c", "diff.suppressBlankEmpty=false"),
    *("diff", "HEAD", "--no-ext-diff", "--no-textconv", "--no-color", "--full-index"),
    *("--no-renames", "--diff-algorithm=myers", "--indent-heuristic", "--unified=3"),
    *("--inter-hunk-context=0", "--src-prefix=a/", "--dst-prefix=b/", f"-O{os.devnull}"),
    *("--no-relative", "--submodule=short", "--ignore-submodules=dirty"),
)
_STATUS = ("status", "--porcelain=v2", "-z", "--untracked-files=normal")
_SUBMODULE = re.compile(r"1 \S\S S.(?:M.|.U) (?:\S+ ){5}(.+)", re.DOTALL)
"""The line of a submodule with changed or untracked files (git-status(1))."""
_UNTRACKED = (
    *(*_READABLE, "ls-files", "--others", "--exclude-standard", "--full-name", "--", ":/"),
)


@dataclass(frozen=True, slots=True)
class Checkout:
    """A repository as tags of a run.

    Attributes:
        tags: commit, branch, origin, whether the tree is dirty, and dirty submodules, as far as
            git answered.
        problem: which answers are missing, and why; empty if none is.
    """

    tags: dict[str, str]
    problem: str = ""

    @property
    def dirty(self) -> bool:
        """Whether tracked files differ from the commit, or untracked ones lie beside them."""
        return self.tags.get(names.GIT_DIRTY) == "true"


@dataclass(frozen=True, slots=True)
class Uncommitted:
    """Uncommitted changes, not redacted.

    Attributes:
        digest: SHA-256, in hex, of the whole diff and all names.
        diff: the first `MAX_DIFF` bytes of the diff of tracked files.
        diff_size: bytes of the whole diff.
        untracked: the first `MAX_DIFF` bytes of the names of untracked files, one a line.
        untracked_size: bytes of all names.
    """

    digest: str
    diff: bytes
    diff_size: int
    untracked: bytes
    untracked_size: int


def run_git(
    folder: Path,
    *arguments: str,
    timeout: float = GIT_TIMEOUT,
    max_output: int = MAX_OUTPUT,
    digest: "hashlib._Hash | None" = None,
    fetch: bool = False,
) -> Answer:
    """Run git in a folder, without pager, prompt, optional locks, or the variables of git hooks.

    Args:
        folder: where it runs.
        arguments: the subcommand and its arguments. Put user input behind `--end-of-options`.
        timeout: seconds after which git is killed; `Answer.timed_out` says so.
        max_output: bytes of output that are kept; git is killed if it prints more.
        digest: is updated with all of the output, however long it is.
        fetch: whether a partial clone may fetch what it lacks from its server.

    Raises:
        OSError: git cannot be started: it is not installed, or there is no such folder.
        ValueError: an argument holds a NUL.
    """
    environment = {key: value for key, value in os.environ.items() if key not in _NOT_FOR_GIT}
    environment |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    if not fetch:
        environment["GIT_NO_LAZY_FETCH"] = "1"
    return run_subprocess(
        # a repository may name a program as its fsmonitor, which `status` would start
        ["git", "-c", "core.fsmonitor=false", *arguments],
        folder,
        timeout,
        environment=environment,
        max_output=max_output,
        digest=digest,
    )


def checkout(folder: Path, program: str = ".", *, timeout: float = GIT_TIMEOUT) -> Checkout:
    """Describe the repository that `program` in `folder` comes from.

    A program that the repository ignores, such as an installed command in a virtual environment,
    does not come from it. Without git, a repository or a commit, the result is empty.

    Args:
        folder: in the repository.
        program: a path in it.
        timeout: seconds for each call of git; the answer of a slower one is missing.
    """
    try:
        head = run_git(folder, "rev-parse", "--verify", "-q", "HEAD", timeout=timeout)
        if head.code != 0:
            return Checkout({}, _why_no_head(folder, timeout, head))
        ignored = run_git(folder, "check-ignore", "-q", "--", program, timeout=timeout)
    except (FileNotFoundError, NotADirectoryError):  # no git; no such folder
        return Checkout({})
    if ignored.timed_out:
        return Checkout({}, f"git check-ignore took longer than {timeout:g} s")
    if ignored.code == 0:
        return Checkout({})
    tags = {names.GIT_COMMIT: head.text}
    branch = run_git(folder, "symbolic-ref", "-q", "--short", "HEAD", timeout=timeout)
    if branch.code == 0:  # else HEAD is detached
        tags[names.GIT_BRANCH] = branch.text
    # not `remote get-url`: it applies `insteadOf`, where people keep tokens
    remote = run_git(folder, "config", "--get", "remote.origin.url", timeout=timeout)
    if remote.code == 0:
        tags[names.GIT_REPO_URL] = without_userinfo(remote.text)
    status = run_git(folder, *_STATUS, max_output=MAX_DIFF, timeout=timeout)
    if submodules := _changed_inside(status.output):
        tags[names.GIT_SUBMODULES] = submodules
    if status.output:
        tags[names.GIT_DIRTY] = "true"
    elif status.code == 0:
        tags[names.GIT_DIRTY] = "false"
    answers = {"symbolic-ref": branch, "config": remote, "status": status}
    slow = [f"git {name}" for name, answer in answers.items() if answer.timed_out]
    if slow:
        return Checkout(tags, f"{', '.join(slow)} took longer than {timeout:g} s")
    if names.GIT_DIRTY not in tags:
        return Checkout(tags, f"git status failed with exit status {status.code}")
    return Checkout(tags)


def uncommitted(folder: Path, *, timeout: float = GIT_TIMEOUT) -> Uncommitted:
    """Read the uncommitted changes of the repository that `folder` lies in.

    Changes inside submodules and the content of binary files are left out; the digest covers
    binary files by git's own hash.

    Args:
        folder: in the repository.
        timeout: seconds for each call of git.

    Raises:
        GitError: git failed, or took too long.
        OSError: git cannot be started.
    """
    digest = hashlib.sha256()
    diff = run_git(folder, *_DIFF, max_output=MAX_DIFF, digest=digest, timeout=timeout)
    digest.update(b"\0")
    untracked = run_git(folder, *_UNTRACKED, max_output=MAX_DIFF, digest=digest, timeout=timeout)
    for name, answer in (("diff", diff), ("ls-files", untracked)):
        if answer.timed_out:
            raise GitError(f"git {name} took longer than {timeout:g} s")
        if answer.code != 0:
            raise GitError(f"git {name} failed with exit status {answer.code}")
    return Uncommitted(digest.hexdigest(), diff.output, diff.size, untracked.output, untracked.size)


def without_binaries(diff: bytes) -> bytes:
    """Replace binary files by a comment each, so that `git apply` takes the diff."""
    sections = re.split(rb"(?m)^(?=diff --git )", diff)
    return b"".join(
        b"# %s: what they hold is not kept\n" % match[0] if match else section
        for section in sections
        for match in [re.search(rb"(?m)^Binary files .* differ$", section)]
    )


def _changed_inside(status: bytes) -> str:
    """Names of the submodules whose own trees are dirty."""
    found = map(_SUBMODULE.fullmatch, status.decode("utf-8", "replace").split("\0"))
    return ", ".join(match[1] for match in found if match)


def _why_no_head(folder: Path, timeout: float, head: Answer) -> str:
    """Why a missing commit is a failure; empty if it is none."""
    if head.timed_out:
        return f"git rev-parse took longer than {timeout:g} s"
    if head.code == 1:  # a repository without a commit
        return ""
    problem = run_git(folder, "rev-parse", "--git-dir", timeout=timeout).errors.decode(
        errors="replace"
    )
    if "not a git repository" in problem:
        return ""
    return (
        problem.strip().partition("\n")[0] or f"git rev-parse failed with exit status {head.code}"
    )
