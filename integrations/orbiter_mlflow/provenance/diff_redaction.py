"""Take the secrets out of a diff, a slice at a time.

A regular expression keeps the interpreter from all other threads while it runs over a text. So a
long diff is read in slices with a pause after each, and for a limited time. The result is a diff
again: no line is lost.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from time import monotonic, sleep
from typing import NamedTuple

from orbiter_mlflow.redaction.redactor import REDACTED, Redactor

__all__ = ["Redacted", "redact_diff"]

TIMEOUT = 60.0
"""Seconds; a megabyte takes about one."""
_SLICE = 32_000
"""Characters that are read at once, beside what overlaps."""
_OVERLAP = 16_000
"""Characters before and after a slice that are read with it: a secret of this length, which may go
over many lines, is found wherever a slice ends."""

_HUNK = re.compile(r"@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@")
_END_OF_KEY = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_KEY_MATERIAL = re.compile(r"[ \t\"']{0,40}[A-Za-z0-9+/=]{16,}[ \t\"',+\\nr]{0,40}\r?")


class Redacted(NamedTuple):
    """A redacted diff; `left_out` lines at its end could not be read in time."""

    text: str
    left_out: int


class _Hunk(NamedTuple):
    head: list[str]
    """The lines before a hunk, its `@@` line included."""
    shown: list[str]
    """Its lines, each with its sign: ` `, `-`, `+`, or `\\`."""


def redact_diff(text: str, redactor: Redactor, *, timeout: float = TIMEOUT) -> Redacted:
    """Redact a diff line for line; other texts, too.

    The old and the new side of a hunk are read apart: a secret that goes over several lines is
    found whatever was changed in it. What stands outside of hunks is read line by line.

    Args:
        text: the diff.
        redactor: takes the secrets out of lines.
        timeout: seconds after which the hunks that are not read yet are left out.
    """
    deadline = monotonic() + timeout

    def pause() -> None:
        sleep(0)  # hands the interpreter to a thread that waits for it
        if monotonic() > deadline:
            raise TimeoutError

    lines = text.split("\n")
    shown: list[str] = []
    with suppress(TimeoutError):
        for hunk in _hunks(lines):
            for start, end in _slices(hunk.head):
                shown += map(redactor.text, hunk.head[start:end])
                pause()
            shown += _redact_hunk(hunk.shown, redactor, pause)
    return Redacted("\n".join(shown), len(lines) - len(shown))


def _hunks(lines: Sequence[str]) -> Iterator[_Hunk]:
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
        yield _Hunk(head, list(lines[start:at]))
        head = []
    yield _Hunk(head, [])


def _redact_hunk(lines: Sequence[str], redactor: Redactor, pause: Callable[[], None]) -> list[str]:
    shown = list(lines)
    for side in (" -", " +"):
        places = [place for place, line in enumerate(lines) if line[0] in side]
        texts = [lines[place][1:] for place in places]
        clean = _redact_side(_without_end_of_key(texts), redactor, pause)
        for place, text, before in zip(places, clean, texts, strict=True):
            if text != before:
                other = shown[place] != lines[place] and shown[place][1:] != text
                shown[place] = lines[place][0] + (REDACTED if other else text)
    return shown


def _without_end_of_key(texts: Sequence[str]) -> list[str]:
    """The lines without a private key whose beginning stands above the hunk."""
    lines = list(texts)
    for end, line in enumerate(lines):
        if _END_OF_KEY.search(line):
            start = end
            while start and _KEY_MATERIAL.fullmatch(lines[start - 1]):
                start -= 1
            if start == 0 or "-----BEGIN " not in lines[start - 1]:
                lines[start:end] = [REDACTED] * (end - start)
    return lines


def _redact_side(lines: list[str], redactor: Redactor, pause: Callable[[], None]) -> list[str]:
    clean: list[str] = []
    for start, end in _slices(lines):
        first, last = _reach(lines, start, -_OVERLAP), _reach(lines, end, _OVERLAP)
        clean += redactor.lines(lines[first:last])[start - first : end - first]
        pause()
    return clean


def _slices(lines: Sequence[str]) -> Iterator[tuple[int, int]]:
    start = 0
    while start < len(lines):
        end = _reach(lines, start, _SLICE)
        yield start, end
        start = end


def _reach(lines: Sequence[str], at: int, size: int) -> int:
    """The place `size` characters behind `at`, or before it; at least one line away."""
    step, left = (1, size) if size > 0 else (-1, -size)
    while left > 0 and 0 <= (at if step > 0 else at - 1) < len(lines):
        left -= 1 + len(lines[at if step > 0 else at - 1])
        at += step
    return at
