"""Collect the provenance of a run, section by section, as tags and artifacts."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from orbiter_mlflow import names
from orbiter_mlflow.provenance.diff_redaction import redact_diff
from orbiter_mlflow.provenance.git import (
    GIT_TIMEOUT,
    MAX_DIFF,
    Checkout,
    checkout,
    uncommitted,
    without_binaries,
)
from orbiter_mlflow.provenance.machine import gpus, machine_tags
from orbiter_mlflow.provenance.packages import requirements
from orbiter_mlflow.provenance.program import command_line, context_tags, origins, redacted
from orbiter_mlflow.redaction.redactor import Redactor

__all__ = ["Finding", "Sections"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A part of the provenance, redacted.

    Attributes:
        tags: tags of the run.
        files: name of an artifact -> its content.
        problem: what is missing, and why; empty if nothing is.
    """

    tags: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    problem: str = ""


class Sections:
    """The sections of the provenance; each yields its findings, and raises if it fails.

    A missing git, repository or GPU is no failure: the section is then empty.

    Args:
        redactor: takes the secrets out of everything.
        trainer: the trainer's class; its file locates the code if the program does not.
        git_timeout: seconds for each call of git.
    """

    def __init__(
        self, redactor: Redactor, trainer: type = object, *, git_timeout: float = GIT_TIMEOUT
    ) -> None:
        self._redactor = redactor
        self._trainer = trainer
        self._git_timeout = git_timeout
        self._checkout: Checkout | None = None
        self._folder = Path()

    def command(self) -> Iterator[Finding]:
        """The command line."""
        yield Finding({names.COMMAND: command_line(self._redactor)})

    def machine(self) -> Iterator[Finding]:
        """Python, platform, CPU and GPUs."""
        yield Finding(redacted(machine_tags(), self._redactor))
        if found := gpus():
            yield Finding(redacted({names.GPU: found}, self._redactor))

    def git(self) -> Iterator[Finding]:
        """The commit of the code's repository, and whether its tree is dirty."""
        problems: list[str] = []
        for folder, name in origins(self._trainer):
            found = checkout(folder, name, timeout=self._git_timeout)
            if found.problem:
                problems.append(found.problem)
            if found.tags:
                self._folder, self._checkout = folder, found
                break
        own = context_tags()
        tags = {} if self._checkout is None else self._checkout.tags
        tags = {key: text for key, text in tags.items() if key not in own}
        yield Finding(redacted(tags, self._redactor), problem="; ".join(dict.fromkeys(problems)))

    def packages(self) -> Iterator[Finding]:
        """The installed packages."""
        found = requirements(self._redactor)
        unreadable = f"{found.unreadable} installed packages could not be read"
        yield Finding(
            {names.PACKAGES: found.digest},
            {names.REQUIREMENTS_FILE: found.text.encode()},
            unreadable if found.unreadable else "",
        )

    def diff(self) -> Iterator[Finding]:
        """The uncommitted changes; `git` must run first."""
        if self._checkout is None or not self._checkout.dirty:
            return
        found = uncommitted(self._folder, timeout=self._git_timeout)
        tags = {names.GIT_DIFF: found.digest}
        if found.diff_size > MAX_DIFF:
            tags[names.GIT_DIFF_CUT] = f"{MAX_DIFF} of {found.diff_size} bytes"
        yield Finding(tags)
        sources = {
            names.DIFF_FILE: without_binaries(_cut(found.diff, found.diff_size)),
            names.UNTRACKED_FILE: _cut(found.untracked, found.untracked_size),
        }
        for name, content in sources.items():
            if content:
                yield self._redacted(name, content)

    def _redacted(self, name: str, content: bytes) -> Finding:
        text = content.decode("utf-8", "surrogateescape")  # files may be in any encoding
        shown, left_out = redact_diff(text, self._redactor)
        problem = ""
        if left_out:
            problem = f"the redaction of {name} timed out: its last {left_out} lines are left out"
            shown += f"\n# cut here: {left_out} lines are left out, their redaction timed out\n"
        return Finding(files={name: shown.encode("utf-8", "surrogateescape")}, problem=problem)


def _cut(start: bytes, size: int) -> bytes:
    """The whole lines of the start of a text of `size` bytes; a last line says if it was cut."""
    if size <= MAX_DIFF:
        return start
    kept = start[: start.rfind(b"\n") + 1]
    return kept + b"# cut here: %d of %d bytes are kept\n" % (len(kept), size)
