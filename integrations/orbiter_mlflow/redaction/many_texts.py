"""Redact many texts quickly: most have no secrets, and the same words come again and again.

`Redactor.text` takes some 0.6 ms for a thousand characters. A text needs it only if one of its
words may be part of a secret: the name of one, or something that looks like one. Words are judged
once. No secret is missed that `Redactor.text` finds: each shape has such a word.

In prose such a word (`token`) mostly stands alone. So only its surroundings are searched first, for
what makes it a secret: the whole pattern of a shape, or a name with its operator. None reaches
farther than the surroundings. Secrets are looked for only where something is found, to their ends,
because a secret may be as long as the text.
"""

import re
from collections.abc import Iterable
from itertools import filterfalse

from orbiter_mlflow.redaction.key_names import names_secret_in_url
from orbiter_mlflow.redaction.redactor import Redactor
from orbiter_mlflow.redaction.shapes import shapes_for
from orbiter_mlflow.text.urls import hide_userinfo

__all__ = ["ManyTexts"]

_REMEMBERED = 50_000
"""Words that are remembered, some 5 MB."""
_LONGEST = 64
"""Characters of a word that is remembered."""

_BEFORE = 8
"""Words before a suspicious one that a pattern may begin with; two, in `machine host password`."""
_AFTER = 12
"""Words behind it that a pattern may take; ten, in a `login` with options."""
_AFTER_CHARACTERS = 400
"""Characters behind it that a pattern may take; 345, in an element with attributes."""

_NEAR = 1000
"""Characters before a suspicious word that mostly have as many words."""

_WORDS = re.compile(rf"(?:\s*+\S++){{0,{_AFTER + 1}}}+")
_REST_OF_WORD = re.compile(r"\S*+")
_KEYS = re.compile(r"[\w.\-]+")
_SHORT_OPTION = "-u"
_OPTION = re.compile(r"(?<![\w-])(?:-[uU]|--user|--proxy-user)")
"""What the prefilter `-u` looks for; it is also in `non-uniform`."""


class ManyTexts:
    """A redactor for texts that come in large numbers.

    Args:
        redactor: finds the secrets.
    """

    def __init__(self, redactor: Redactor) -> None:
        self.redactor = redactor
        self._harmless: set[str] = set()

    def text(self, text: str) -> str:
        """The text without its secrets: what `Redactor.text` returns for it."""
        unknown = filterfalse(self._harmless.__contains__, text.split())
        suspicious = {word for word in unknown if not self._found_harmless(word)}
        if not suspicious:
            return text
        parts = [
            (begin, end)
            for begin, end in _surroundings(text, suspicious)
            if self.redactor.may_redact(text[begin:end])
        ]
        return self.redactor.text_near(text, parts) if parts else text

    def _found_harmless(self, word: str) -> bool:
        if _may_be_secret(word, self.redactor):
            return False
        if len(word) <= _LONGEST:
            if len(self._harmless) >= _REMEMBERED:
                self._harmless.clear()
            self._harmless.add(word)
        return True


def _surroundings(text: str, suspicious: Iterable[str]) -> list[tuple[int, int]]:
    """Begin and end of the parts of a text around suspicious words; what overlaps is one part.

    The whole text where they are longer than it.
    """
    around = []
    left = len(text)
    for word in suspicious:
        at = text.find(word)
        while at >= 0:
            end = at + len(word)
            around.append((_begin(text, at), _end(text, end)))
            left -= around[-1][1] - around[-1][0]
            if left < 0:
                return [(0, len(text))]
            at = text.find(word, end)
    parts: list[tuple[int, int]] = []
    for begin, end in sorted(around):
        if parts and begin <= parts[-1][1]:
            parts[-1] = parts[-1][0], max(parts[-1][1], end)
        else:
            parts.append((begin, end))
    return parts


def _begin(text: str, at: int) -> int:
    for near in (max(0, at - _NEAR), 0):
        words = text[near:at].rsplit(None, _BEFORE)
        if len(words) > _BEFORE:
            return near + len(words[0])
    return 0


def _end(text: str, at: int) -> int:
    last = max(_end_of(_WORDS, text, at), at + _AFTER_CHARACTERS)
    return _end_of(_REST_OF_WORD, text, min(last, len(text)))


def _end_of(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return at if found is None else found.end()


def _may_be_secret(word: str, redactor: Redactor) -> bool:
    if "@" in word and hide_userinfo(word, "") != word:
        return True
    for shape in shapes_for(word):
        if shape.value is not None:  # an assignment, to a name that is looked for below
            continue
        if not shape.in_one_word:
            parts = shape.prefilter
            if any(part in word.lower() for part in parts if part != _SHORT_OPTION):
                return True
            if _SHORT_OPTION in parts and _OPTION.search(word):
                return True
        elif shape.pattern.search(word):
            return True
    return any(
        redactor.is_secret_key(key) or names_secret_in_url(key)
        for run in _KEYS.findall(word)
        for key in {run, run.lstrip("-")}
    )
