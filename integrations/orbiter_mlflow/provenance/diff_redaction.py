"""Takes the secrets out of a diff, in a process of its own.

    python -m orbiter_mlflow.provenance.diff_redaction

A regular expression keeps the interpreter from all other threads while it runs over a text, and a
diff may take it a second. What it gives back is a diff again: no line is lost.
"""

import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from orbiter_mlflow.errors import RedactionError
from orbiter_mlflow.provenance.subprocesses import run_subprocess
from orbiter_mlflow.redaction.redactor import REDACTED, Redactor

__all__ = ["RedactionError", "redact_diff", "redacted_apart"]

_TIMEOUT = 60.0
"""Seconds; a megabyte takes one."""

_HUNK = re.compile(r"@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@")
_END_OF_KEY = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_KEY_MATERIAL = re.compile(r"[ \t\"']{0,40}[A-Za-z0-9+/=]{16,}[ \t\"',+\\nr]{0,40}\r?")


class Hunk(NamedTuple):
    """Lines of a diff: the head of a hunk with what it shows, or what stands before a hunk."""

    head: list[str]
    shown: list[str]
    """Each with its sign: ` `, `-`, `+`, or `\\`."""


def redacted_apart(texts: Sequence[bytes], patterns: Sequence[str]) -> list[bytes]:
    """`redact_diff` of each text, done by a child, in UTF-8 or whatever the texts are in.

    Args:
        texts: diffs, or other texts of lines.
        patterns: `Redactor.extra_patterns`.

    Raises:
        RedactionError: the child failed, or took too long.
        OSError: it cannot be started.
    """
    if not sys.executable:
        raise RedactionError("this Python does not know its own interpreter")
    order = {"patterns": list(patterns), "sizes": [len(text) for text in texts]}
    hidden = ("PYTHONSTARTUP", "PYTHONINSPECT")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    answer = run_subprocess(
        [sys.executable, "-P", "-m", "orbiter_mlflow.provenance.diff_redaction"],
        Path("/"),
        _TIMEOUT,
        environment=environment,
        stdin=b"\n".join((json.dumps(order).encode(), b"".join(texts))),
        max_output=10 * sum(map(len, texts)) + 10_000,  # `[redacted]` may stand for one character
    )
    if answer.timed_out:
        raise RedactionError(f"its redaction took longer than {_TIMEOUT:g} s")
    if answer.code != 0:
        raise RedactionError(f"its redaction failed with exit status {answer.code}")
    head, _, rest = answer.output.partition(b"\n")
    shown = []
    for size in json.loads(head):
        shown.append(rest[:size])
        rest = rest[size:]
    return shown


def redact_diff(text: str, redactor: Redactor) -> str:
    """A diff without its secrets, line for line.

    The old and the new side of a hunk are read apart, each as a whole: a secret that goes over
    several lines is found whatever was changed in it. Other texts are read line by line.
    """
    shown: list[str] = []
    for hunk in _hunks(text.split("\n")):
        shown += (redactor.text(line) for line in hunk.head)
        shown += _redact_hunk(hunk.shown, redactor)
    return "\n".join(shown)


def _hunks(lines: Sequence[str]) -> Iterator[Hunk]:
    head: list[str] = []
    at = 0
    while at < len(lines):
        head.append(lines[at])
        match = _HUNK.match(lines[at])
        at += 1
        if match is None:
            continue
        start, old, new = at, int(match[1] or 1), int(match[2] or 1)
        while at < len(lines) and (old > 0 or new > 0 or lines[at][:1] == "\\"):
            old -= lines[at][:1] in (" ", "-")
            new -= lines[at][:1] in (" ", "+")
            if lines[at][:1] not in (" ", "-", "+", "\\"):  # cut, or not git's
                break
            at += 1
        yield Hunk(head, list(lines[start:at]))
        head = []
    yield Hunk(head, [])


def _redact_hunk(lines: Sequence[str], redactor: Redactor) -> list[str]:
    shown = list(lines)
    for side in (" -", " +"):
        places = [place for place, line in enumerate(lines) if line[0] in side]
        texts = [lines[place][1:] for place in places]
        clean = redactor.lines(_without_end_of_key(texts))
        for place, text, before in zip(places, clean, texts, strict=True):
            if text != before:
                other = shown[place] != lines[place] and shown[place][1:] != text
                shown[place] = lines[place][0] + (REDACTED if other else text)
    return shown


def _without_end_of_key(lines: list[str]) -> list[str]:
    """The lines without a private key whose beginning stands above the hunk."""
    for end, line in enumerate(lines):
        if _END_OF_KEY.search(line):
            start = end
            while start and _KEY_MATERIAL.fullmatch(lines[start - 1]):
                start -= 1
            if start == 0 or "-----BEGIN " not in lines[start - 1]:
                lines = [*lines[:start], *[REDACTED] * (end - start), *lines[end:]]
    return lines


def main() -> None:
    """Answer on standard output what came on standard input: a line of sizes, then the texts."""
    head, _, rest = sys.stdin.buffer.read().partition(b"\n")
    order = json.loads(head)
    redactor = Redactor(tuple(order["patterns"]))
    shown = []
    for size in order["sizes"]:
        text = rest[:size].decode("utf-8", "surrogateescape")  # no text of its own encoding is lost
        shown.append(redact_diff(text, redactor).encode("utf-8", "surrogateescape"))
        rest = rest[size:]
    sys.stdout.buffer.write(json.dumps([len(text) for text in shown]).encode() + b"\n")
    sys.stdout.buffer.write(b"".join(shown))


if __name__ == "__main__":
    main()
