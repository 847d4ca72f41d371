"""Files as they are at a git ref, so that a change is not judged by what it wrote itself."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from orbiter_mlflow.errors import CannotCompareError

_TIMEOUT = 60.0
"""Seconds that a call may take: a partial clone fetches what it is asked for."""


@dataclass(frozen=True, slots=True)
class GitRef:
    """A commit, and the ref that it was found by.

    Attributes:
        folder: where git is run; paths are told relative to it.
    """

    ref: str
    commit: str
    folder: Path

    @property
    def shown(self) -> str:
        """For messages: `origin/main (3f2a9c1e)`."""
        return f"{self.ref} ({self.commit[:8]})"

    def read(self, file: Path) -> bytes | None:
        """The content of a file at this commit; None where it has no such file.

        Raises:
            CannotCompareError: git cannot give it.
        """
        # The folder of the file is resolved, not the file: what git knows is a link, if it is one.
        there = Path(os.path.relpath(file.parent.resolve() / file.name, self.folder.resolve()))
        name = f"{self.commit}:./{there.as_posix()}"
        found = _git(self.folder, "rev-parse", "--verify", "--quiet", "--end-of-options", name)
        if found.returncode != 0:
            if said := _said(found):
                raise CannotCompareError(f"git cannot read {file} at {self.shown}: {said}")
            return None
        blob = _git(self.folder, "cat-file", "blob", found.stdout.decode().strip())
        if blob.returncode != 0:
            raise CannotCompareError(f"git cannot read {file} at {self.shown}: {_said(blob)}")
        return blob.stdout


def resolve(ref: str, folder: Path) -> GitRef:
    """The commit of a ref in the repository that `folder` lies in.

    Raises:
        CannotCompareError: there is no such commit, no repository, or no git.
    """
    if ref.startswith("-"):
        raise CannotCompareError(f"{ref!r} is no git ref: give a branch, a tag or a commit")
    inside = _git(folder, "rev-parse", "--git-dir")
    if inside.returncode != 0:
        raise CannotCompareError(
            f"{folder} is in no git repository that can be read: {_said(inside)}"
        )
    name = f"{ref}^{{commit}}"
    found = _git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", name)
    if found.returncode != 0:
        raise CannotCompareError(
            f"git knows no commit {ref!r} here: fetch it first (`git fetch origin`; in GitHub "
            "Actions `fetch-depth: 0` for actions/checkout, in GitLab CI `GIT_DEPTH: 0`)"
        )
    return GitRef(ref, found.stdout.decode().strip(), folder)


def user() -> str:
    """The name that git would sign a commit with here; empty where there is none."""
    try:
        found = _git(Path.cwd(), "config", "--get", "user.name")
    except CannotCompareError:
        return ""
    return found.stdout.decode(errors="replace").strip()


def _git(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    try:
        return subprocess.run(  # noqa: S603  no shell; what comes from outside is after the options
            ["git", "-C", str(folder), *arguments],  # noqa: S607  the user's git
            env=os.environ | {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT,
            check=False,
        )
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise CannotCompareError(f"git cannot be run: {error}") from error


def _said(ended: "subprocess.CompletedProcess[bytes]") -> str:
    return " ".join(ended.stderr.decode(errors="replace").split())
