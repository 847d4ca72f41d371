"""Secrets never leave: which keys name one, and how a text looks without those it holds.

Everything that is written anywhere goes through here first. When in doubt a text loses too much.
What a secret looks like is `secret_shapes`, which names are a secret's `secret_names`.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from orbiter_mlflow.redaction.key_names import is_special_token, names_secret
from orbiter_mlflow.redaction.shapes import Shape, shapes_for
from orbiter_mlflow.text.urls import hide_userinfo

__all__ = ["REDACTED", "Redactor"]

REDACTED = "[redacted]"
"""What stands where a secret stood."""

_NO_SECRETS = frozenset({"", "true", "false", "none", "null"})
_TYPE = re.compile(
    r"(?:Optional\[)?(?:str|int|float|bool|bytes|None|Any|string|SecretStr)\]?"
    r"(?:[ \t]*\|[ \t]*\w+)*[ \t]*(?:[=,)].*)?",
    re.DOTALL,
)
"""The annotation of a name in code, and what follows it: a value there is another shape's."""
_BEFORE_SECRET = frozenset({"-u", "-U", "--user", "--proxy-user", "-p", "login"})
"""Words of a command line after which, in some commands, a secret comes."""
_COMMAND = 4
"""Words of a command line that are looked at before one that may be a secret."""
_NAME = re.compile(r"[A-Za-z_]{1,20}")


@dataclass(frozen=True, slots=True)
class Redactor:
    """Knows secrets by their key and by their shape.

    Args:
        extra_patterns: globs (`*`, `?`, `[...]`) of further key names that name a secret; letter
            case does not matter.
    """

    extra_patterns: tuple[str, ...] = ()

    def is_secret_key(self, key: str) -> bool:
        """Whether what stands under this key is to be taken for a secret."""
        if names_secret(key):
            return True
        return any(fnmatchcase(key.lower(), pattern.lower()) for pattern in self.extra_patterns)

    def value(self, key: str, text: str) -> str:
        """The text without its secrets, of which it is one where its key says so."""
        if self.is_secret_key(key) and not _harmless(key, text):
            return REDACTED
        return self.text(text)

    def text(self, text: str) -> str:
        """The text with `[redacted]` for each secret in it.

        Found are the userinfo of URLs, and all of `secret_shapes.SHAPES`.
        """
        return self._clean(text, lambda secret: REDACTED)

    def lines(self, lines: Sequence[str]) -> list[str]:
        """As `text`, of lines that belong together; none of them is lost.

        Of a secret that goes over several lines each one is redacted.
        """
        return self._clean("\n".join(lines), _line_by_line).split("\n") if lines else []

    def arguments(self, arguments: Sequence[str]) -> list[str]:
        """As `text`, of the arguments of a command: in `--api-key x`, `x` is a secret."""
        return [
            REDACTED
            if self.follows_as_secret(arguments[max(0, at - _COMMAND) : at], argument)
            else self.text(argument)
            for at, argument in enumerate(arguments)
        ]

    def follows_as_secret(self, before: Sequence[str], item: str) -> bool:
        """Whether an item of a list is a secret for the items before it: `--api-key`, `-u`."""
        last = before[-1] if before else ""
        if last[:1] == "-" and "=" not in last and self.is_secret_key(last):
            return True
        if last not in _BEFORE_SECRET and "login" not in before:
            return False
        words = (*before, item)
        return self.text(" ".join(words)) != " ".join(map(self.text, words))

    def is_pair(self, key: str, item: str) -> bool:
        """Whether two items that stand alone are a secret's name and the secret."""
        if _NAME.fullmatch(item) and names_secret(item):  # two names
            return False
        if self.text(key) != key:  # a secret itself, as a URL with a password
            return False
        text = f"({key!r}, {item!r})"
        return self.text(text) != text

    def _clean(self, text: str, hidden: Callable[[str], str]) -> str:
        text = hide_userinfo(text, REDACTED)
        for shape in shapes_for(text):
            text = self._without(shape, text, hidden)
        return text

    def _without(self, shape: Shape, text: str, hidden: Callable[[str], str]) -> str:
        kept: list[str] = []
        done = at = 0
        while found := shape.pattern.search(text, at):
            at = found.end()
            if shape.value is not None:
                key, known = found["key"], shape.names
                if not (self.is_secret_key(key) or (known is not None and known(key))):
                    continue
                value = shape.value.match(text, at)
                if value is None or _harmless(key, value[0], shape.prose):
                    continue
                found = value
            start, end = found.span("secret" if "secret" in found.re.groupindex else 0)
            if not text.startswith(REDACTED, start):
                kept += text[done:start], hidden(text[start:end])
                done = end
            at = max(at, end)
        return "".join((*kept, text[done:])) if kept else text


def _line_by_line(secret: str) -> str:
    return "\n".join([REDACTED] * (secret.count("\n") + 1))


def _harmless(key: str, value: str, prose: frozenset[str] = frozenset()) -> bool:
    """Whether what stands under a secret's name is none."""
    bare = value.strip("\\\"'),;}] \n")
    if value.startswith(REDACTED) or bare.lower() in _NO_SECRETS or is_special_token(key, value):
        return True
    if _TYPE.fullmatch(value):
        return True
    if key.lower() in prose:
        return not (len(value) >= 8 and any(character.isdigit() for character in value))
    return False
