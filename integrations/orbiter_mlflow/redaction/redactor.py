"""`Redactor`: finds secrets by their key and by their shape, and takes them out of a text.

Everything is redacted before it is written anywhere. When in doubt, too much is redacted. `shapes`
is the table of what secrets look like, `key_names` has the rules for the names of secrets.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from orbiter_mlflow.redaction.key_names import is_special_token, names_secret
from orbiter_mlflow.redaction.shapes import SHAPES, Shape, shapes_for
from orbiter_mlflow.text.urls import hide_userinfo

__all__ = ["REDACTED", "Redactor"]

REDACTED = "[redacted]"
"""Replaces a secret."""

_NO_SECRETS = frozenset({"", "true", "false", "none", "null"})
_TYPE = re.compile(
    r"(?:Optional\[)?(?:str|int|float|bool|bytes|None|Any|string|SecretStr)\]?"
    r"(?:[ \t]*\|[ \t]*\w+)*[ \t]*(?:[=,)].*)?",
    re.DOTALL,
)
"""The annotation of a name in code, and the rest: another shape finds a value in it."""
_BEFORE_SECRET = frozenset({"-u", "-U", "--user", "--proxy-user", "-p", "login"})
"""Words of a command line that a secret follows in some commands."""
_COMMAND = 4
"""Words of a command line to look at before one that may be a secret."""
_NAME = re.compile(r"[A-Za-z_]{1,20}")


@dataclass(frozen=True, slots=True)
class Redactor:
    """Finds secrets by their key and by their shape.

    Args:
        extra_patterns: globs (`*`, `?`, `[...]`) of further key names whose values are secrets,
            case-insensitive.
    """

    extra_patterns: tuple[str, ...] = ()

    def is_secret_key(self, key: str) -> bool:
        """Whether a value under this key counts as a secret."""
        if names_secret(key):
            return True
        return any(fnmatchcase(key.lower(), pattern.lower()) for pattern in self.extra_patterns)

    def value(self, key: str, text: str) -> str:
        """The text without its secrets; `[redacted]` if its key names a secret."""
        if self.is_secret_key(key) and not _harmless(key, text):
            return REDACTED
        return self.text(text)

    def text(self, text: str) -> str:
        """The text with `[redacted]` in place of each secret.

        Finds the userinfo of URLs, and all of `shapes.SHAPES`.
        """
        return self._clean(text, _as_one)

    def text_near(self, text: str, parts: Sequence[tuple[int, int]]) -> str:
        """As `text`, if all secrets begin in some parts of the text. They may end anywhere.

        Args:
            text: the text.
            parts: (begin, end) of each, in order and apart; whole words.
        """
        shapes = {shape.name: shape for at, end in parts for shape in shapes_for(text[at:end])}
        found = [
            (begin, end, shown)
            for begin, end in parts
            if (shown := hide_userinfo(text[begin:end], REDACTED)) != text[begin:end]
        ]
        text, parts = _replaced(text, found, parts)
        for shape in SHAPES:  # in the order of the table
            if shape.name in shapes:
                found = [(*span, REDACTED) for span in self._secrets(shape, text, parts)]
                text, parts = _replaced(text, found, parts)
        return text

    def may_redact(self, text: str) -> bool:
        """Whether `text` may find a secret that begins in it, whatever follows.

        It looks for a whole pattern, or a secret's name with its operator, but at no value: where
        that ends, and whether it is harmless, may depend on what follows.
        """
        if hide_userinfo(text, REDACTED) != text:
            return True
        return any(self._begins(shape, text) for shape in shapes_for(text))

    def _begins(self, shape: Shape, text: str) -> bool:
        at = 0
        while found := shape.pattern.search(text, at):
            if shape.value is None or self._is_key_of(shape, found["key"]):
                return True
            at = found.start() + 1  # what overlaps counts too: `text` may have begun elsewhere
        return False

    def _is_key_of(self, shape: Shape, key: str) -> bool:
        return self.is_secret_key(key) or (shape.names is not None and shape.names(key))

    def lines(self, lines: Sequence[str]) -> list[str]:
        """As `text`, for lines that belong together; their number stays the same.

        In a secret of several lines, each line is redacted.
        """
        return self._clean("\n".join(lines), _line_by_line).split("\n") if lines else []

    def arguments(self, arguments: Sequence[str]) -> list[str]:
        """As `text`, for the arguments of a command: in `--api-key x`, `x` is a secret."""
        return [
            REDACTED
            if self.follows_as_secret(arguments[max(0, at - _COMMAND) : at], argument)
            else self.text(argument)
            for at, argument in enumerate(arguments)
        ]

    def follows_as_secret(self, before: Sequence[str], item: str) -> bool:
        """Whether the items before it make an item of a list a secret: `--api-key`, `-u`."""
        last = before[-1] if before else ""
        if last[:1] == "-" and "=" not in last and self.is_secret_key(last):
            return True
        if last not in _BEFORE_SECRET and "login" not in before:
            return False
        words = (*before, item)
        return self.text(" ".join(words)) != " ".join(map(self.text, words))

    def is_pair(self, key: str, item: str) -> bool:
        """Whether a list of two items is the name of a secret and the secret."""
        if _NAME.fullmatch(item) and names_secret(item):  # two names
            return False
        if self.text(key) != key:  # a secret itself, such as a URL with a password
            return False
        text = f"({key!r}, {item!r})"
        return self.text(text) != text

    def _clean(self, text: str, replace: Callable[[str], str]) -> str:
        text = hide_userinfo(text, REDACTED)
        for shape in shapes_for(text):
            spans = self._secrets(shape, text, [(0, len(text))])
            found = [(start, end, replace(text[start:end])) for start, end in spans]
            text, _ = _replaced(text, found, ())
        return text

    def _secrets(
        self, shape: Shape, text: str, parts: Sequence[tuple[int, int]]
    ) -> Iterator[tuple[int, int]]:
        """Where secrets of a shape are, of those that begin in some parts."""
        at = 0
        for begin, stop in parts:
            at = max(at, begin)
            while found := shape.pattern.search(text, at, stop):
                at = found.end()
                if shape.value is not None:
                    key = found["key"]
                    if not self._is_key_of(shape, key):
                        continue
                    value = shape.value.match(text, at)
                    if value is None or _harmless(key, value[0], shape.prose):
                        continue
                    found = value
                elif stop < len(text):  # the secret may go on
                    found = shape.pattern.match(text, found.start()) or found
                start, end = found.span("secret" if "secret" in found.re.groupindex else 0)
                if not text.startswith(REDACTED, start):
                    yield start, end
                at = max(at, end)


def _as_one(secret: str) -> str:
    return REDACTED


def _replaced(
    text: str, found: Sequence[tuple[int, int, str]], parts: Sequence[tuple[int, int]]
) -> tuple[str, Sequence[tuple[int, int]]]:
    """A text with some spans replaced, and where its parts are then."""
    if not found:
        return text, parts
    pieces: list[str] = []
    done = 0
    for start, end, shown in found:
        pieces += text[done:start], shown
        done = end

    def moved(at: int) -> int:
        by = 0
        for start, end, shown in found:
            if at < end:
                return min(at, start) + by + (len(shown) if at > start else 0)
            by += len(shown) - (end - start)
        return at + by

    after = [(moved(begin), moved(end)) for begin, end in parts]
    return "".join((*pieces, text[done:])), after


def _line_by_line(secret: str) -> str:
    return "\n".join([REDACTED] * (secret.count("\n") + 1))


def _harmless(key: str, value: str, prose: frozenset[str] = frozenset()) -> bool:
    """Whether a value under a secret's name is no secret."""
    bare = value.strip("\\\"'),;}] \n")
    if value.startswith(REDACTED) or bare.lower() in _NO_SECRETS or is_special_token(key, value):
        return True
    if _TYPE.fullmatch(value):
        return True
    if key.lower() in prose:
        return not (len(value) >= 8 and any(character.isdigit() for character in value))
    return False
