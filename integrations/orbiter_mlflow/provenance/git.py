"""Which commit the program comes from, and what in its repository is not committed.

git is asked without pager, prompt, locks and network. Its answers do not depend on the settings of
whoever runs it, so that what one machine says can be compared with what another one says.
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
"""Seconds that each call of git may take."""
MAX_DIFF = 1_000_000
"""Bytes that are kept of a diff, and of the names of untracked files."""

# Set inside git's hooks; the last one would change the diff.
_NOT_FOR_GIT = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_DIFF_OPTS")
_READABLE = ("-c", "core.quotePath=false")
# Neither `--binary` (nobody could see whether a secret is in it) nor what submodules hold: their
# commit alone can be applied.
_DIFF = (
    *(*_READABLE, "-c", "diff.suppressBlankEmpty=false"),
    *("diff", "HEAD", "--no-ext-diff", "--no-textconv", "--no-color", "--full-index"),
    *("--no-renames", "--diff-algorithm=myers", "--indent-heuristic", "--unified=3"),
    *("--inter-hunk-context=0", "--src-prefix=a/", "--dst-prefix=b/", f"-O{os.devnull}"),
    *("--no-relative", "--submodule=short", "--ignore-submodules=dirty"),
)
_STATUS = ("status", "--porcelain=v2", "-z", "--untracked-files=normal")
_SUBMODULE = re.compile(r"1 \S\S S.(?:M.|.U) (?:\S+ ){5}(.+)", re.DOTALL)
"""What it says of a submodule in which files are changed or not tracked (git-status(1))."""
_UNTRACKED = (
    *(*_READABLE, "ls-files", "--others", "--exclude-standard", "--full-name", "--", ":/"),
)


@dataclass(frozen=True, slots=True)
class Checkout:
    """A repository, as a run's tags describe it.

    Attributes:
        tags: commit, branch, origin, whether the tree is dirty, and submodules whose tree is; as
            far as git told them.
        problem: what git did not tell, and why; empty where it told all.
    """

    tags: dict[str, str]
    problem: str = ""

    @property
    def dirty(self) -> bool:
        """Whether tracked files differ from the commit, or untracked ones lie beside them."""
        return self.tags.get(names.GIT_DIRTY) == "true"


@dataclass(frozen=True, slots=True)
class Uncommitted:
    """What is not committed, with its secrets.

    Attributes:
        digest: SHA-256, in hex, of the whole diff and all names.
        diff: of tracked files, as git writes it: its first `MAX_DIFF` bytes.
        diff_size: bytes of the whole diff.
        untracked: names of untracked files, a line each: the first `MAX_DIFF` bytes.
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
    """The repository that `program` in `folder` comes from.

    A program that the repository ignores (an installed command, in a virtual environment that lies
    there) does not come from it. Where there is no git, no repository or no commit, there is
    nothing to tell.

    Args:
        folder: in the repository.
        program: a path in it.
        timeout: seconds that each call of git may take; what one that takes longer was asked for
            is missing.
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
    asked = {"symbolic-ref": branch, "config": remote, "status": status}
    slow = [f"git {name}" for name, answer in asked.items() if answer.timed_out]
    if slow:
        return Checkout(tags, f"{', '.join(slow)} took longer than {timeout:g} s")
    if names.GIT_DIRTY not in tags:
        return Checkout(tags, f"git status failed with exit status {status.code}")
    return Checkout(tags)


def uncommitted(folder: Path, *, timeout: float = GIT_TIMEOUT) -> Uncommitted:
    """What is not committed in the repository that `folder` lies in.

    Changes inside submodules are left out, and so is what binary files hold: the digest knows
    these by git's own hash of their content.

    Args:
        folder: in the repository.
        timeout: seconds that each call of git may take.

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
    """A diff that `git apply` takes: a remark for each binary file, whose content it lacks."""
    sections = re.split(rb"(?m)^(?=diff --git )", diff)
    return b"".join(
        b"# %s: what they hold is not kept\n" % match[0] if match else section
        for section in sections
        for match in [re.search(rb"(?m)^Binary files .* differ$", section)]
    )


def _changed_inside(status: bytes) -> str:
    """The submodules whose own trees are dirty."""
    found = map(_SUBMODULE.fullmatch, status.decode("utf-8", "replace").split("\0"))
    return ", ".join(match[1] for match in found if match)


def _why_no_head(folder: Path, timeout: float, head: Answer) -> str:
    """Why a commit that git did not tell is to be called a failure; empty where it is none."""
    if head.timed_out:
        return f"git rev-parse took longer than {timeout:g} s"
    if head.code == 1:  # a repository without a commit
        return ""
    said = run_git(folder, "rev-parse", "--git-dir", timeout=timeout).errors.decode(
        errors="replace"
    )
    if "not a git repository" in said:
        return ""
    return said.strip().partition("\n")[0] or f"git rev-parse failed with exit status {head.code}"
