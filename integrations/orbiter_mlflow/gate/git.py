"""Read files as they are at a git ref, so that a change is not judged by what it wrote itself."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from orbiter_mlflow.errors import CannotCompareError
from orbiter_mlflow.provenance.git import run_git
from orbiter_mlflow.provenance.subprocesses import Answer

_TIMEOUT = 60.0
"""Seconds for one call: a partial clone may fetch the file from its server."""
_HASH = re.compile(r"[0-9a-fA-F]{4,64}")
_MAX_FILE = 100_000_000
"""Bytes of a file that is read."""


@dataclass(frozen=True, slots=True)
class GitRef:
    """A commit, and the ref it was found by.

    Attributes:
        folder: where git runs; a folder in the repository.
    """

    ref: str
    commit: str
    folder: Path

    @property
    def shown(self) -> str:
        """For messages: `origin/main (3f2a9c1e)`."""
        return f"{self.ref} ({self.commit[:8]})"

    def read_file(self, file: Path) -> bytes | None:
        """The content of a file at this commit; None if the commit has no such file.

        Raises:
            CannotCompareError: git cannot read it.
        """
        # Resolve the folder, not the file: git knows a link as a link.
        path = Path(os.path.relpath(file.parent.resolve() / file.name, self.folder.resolve()))
        found = _rev_parse(self.folder, f"{self.commit}:./{path.as_posix()}")
        if found.code != 0:
            if found.error_text:
                raise CannotCompareError(
                    f"git cannot read {file} at {self.shown}: {found.error_text}"
                )
            return None
        blob = _git(self.folder, "cat-file", "blob", found.text)
        if blob.code != 0:
            raise CannotCompareError(f"git cannot read {file} at {self.shown}: {blob.error_text}")
        return blob.output


def resolve(ref: str, folder: Path) -> GitRef:
    """Find the commit of a ref in the repository that contains `folder`.

    Raises:
        CannotCompareError: there is no such commit, no repository, or no git.
    """
    if ref.startswith("-"):
        raise CannotCompareError(f"{ref!r} is not a git ref: give a branch, a tag or a commit")
    inside = _git(folder, "rev-parse", "--git-dir")
    if inside.code != 0:
        raise CannotCompareError(
            f"{folder} is not in a readable git repository: {inside.error_text}"
        )
    found = _rev_parse(folder, f"{ref}^{{commit}}")
    if found.code != 0:
        raise CannotCompareError(
            f"git finds no commit {ref!r} here: fetch it first (`git fetch origin`; in GitHub "
            "Actions `fetch-depth: 0` for actions/checkout, in GitLab CI `GIT_DEPTH: 0`)"
        )
    return GitRef(ref, found.text, folder)


def count_commits(old: str, new: str, folder: Path) -> int | None:
    """The number of commits that `new` has and `old` has not; None if git cannot tell.

    Args:
        old: a commit's hash.
        new: likewise.
        folder: a folder in the repository.
    """
    if not all(_HASH.fullmatch(commit) for commit in (old, new)):
        return None
    try:
        counted = _git(folder, "rev-list", "--count", f"{old}..{new}", "--")
    except CannotCompareError:
        return None
    return int(counted.text) if counted.code == 0 and counted.text.isdigit() else None


def user_name() -> str:
    """git's `user.name` here; empty if it is not set or there is no git."""
    try:
        return _git(Path.cwd(), "config", "--get", "user.name").text
    except CannotCompareError:
        return ""


def _rev_parse(folder: Path, name: str) -> Answer:
    return _git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", name)


def _git(folder: Path, *arguments: str) -> Answer:
    try:
        answer = run_git(folder, *arguments, timeout=_TIMEOUT, max_output=_MAX_FILE, fetch=True)
    except (OSError, ValueError) as error:
        raise CannotCompareError(f"git cannot be run: {error}") from error
    if answer.timed_out:
        raise CannotCompareError(f"git {arguments[0]} took longer than {_TIMEOUT:g} s")
    if answer.size >= _MAX_FILE:
        raise CannotCompareError(f"git {arguments[0]} printed more than {_MAX_FILE} bytes")
    return answer
