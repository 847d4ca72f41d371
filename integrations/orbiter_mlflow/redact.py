"""Secrets never leave: which keys name one, and how a text looks without those it holds.

Everything that is written anywhere goes through here first. When in doubt a text loses too much.
Every pattern runs in time linear in the text: error texts and diffs come from outside.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from orbiter_mlflow.secret_names import names_secret

__all__ = ["REDACTED", "Redactor"]

REDACTED = "[redacted]"
"""What stands where a secret stood."""

# Nothing below can match a text without one of these.
_SUSPICIOUS = re.compile(
    r"[=@:]|(?:^|\s)-|bearer|eyJ|AKIA|ASIA|AIza|(?:hf|npm|r8|gh[pousr]|github_pat)_|sk[-_]|rk_"
    r"|xox|glpat-|pypi-|dapi|dckr_pat",
    re.IGNORECASE,
)

# A quantifier with a second `+` gives nothing back, so a run is read once; the look-behinds keep a
# pattern from starting anew inside a run that it has just refused.
_USERINFO = re.compile(r"://(?!git@)[^\s/?#\"'<>\\]*@")
# A password may hold a bare `/`; a port is none. `Path` leaves one slash of a URL's two.
_USERINFO_WITH_SLASH = re.compile(
    r":(/{1,3}+)[^\s/?#@:\"'<>]{0,200}+:(?![0-9]++(?:[/?#]|$))[^\s\"'<>@]{0,200}+@"
)
_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
    r"(?s:.*?)(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|\Z)"
)
_TOKENS = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"hf_(?:[A-Za-z0-9]{16,}+|(?=[a-z]{0,16}[A-Z0-9])[A-Za-z0-9]{8,}+)"
    r"|sk-[A-Za-z0-9_-]{16,}+"
    r"|[sr]k_(?:live|test)_[A-Za-z0-9]{8,}+"
    r"|gh[pousr]_[A-Za-z0-9]{16,}+"
    r"|github_pat_[A-Za-z0-9_]{16,}+"
    r"|glpat-[A-Za-z0-9_-]{16,}+"
    r"|xox[abeoprs]-[A-Za-z0-9-]{10,}+"
    r"|(?:AKIA|ASIA)[A-Z0-9]{12,}+"
    r"|AIza[A-Za-z0-9_-]{30,}+"
    r"|npm_[A-Za-z0-9]{30,}+"
    r"|r8_[A-Za-z0-9]{30,}+"
    r"|dckr_pat_[A-Za-z0-9_-]{16,}+"
    r"|pypi-[A-Za-z0-9_-]{30,}+"
    r"|dapi[0-9a-f]{32}"
    r")"
)
_JWT = re.compile(r"(?<![\w-])eyJ[\w-]{8,}+\.[\w-]{8,}+(?:\.[\w-]*+)?")
_BEARER = re.compile(
    r"\b(Bearer|bearer(?=[ \t]+[^\s]*[0-9])|BEARER)[ \t]++(?!\[redacted\])[^\s\"'\\,]++"
)

# A key with what ties it to a value; then the value, read only after a secret key, so that
# `note="api_key=x"` does not hide one in the value of the other.
_KEY = r"[\w.\-]++"
_QUERY = re.compile(rf"(?<=[?&])({_KEY})=")
_ASSIGNMENT = re.compile(
    rf"(?<![\w.\-?&])({_KEY})(?:\\{{0,4}}[\"']?[ \t]{{0,8}}+(?:=(?![=~])|:=)[ \t]{{0,8}}+"
    rf"|\\{{0,4}}[\"'][ \t]{{0,8}}+:\s{{0,8}}+)"
)
_FLAG = re.compile(rf"(?<![\w.\-])(--?{_KEY})[ \t]++(?!-)")
_MAPPING = re.compile(rf"(?<![\w.\-?&])({_KEY})[ \t]{{0,8}}+:[ \t]{{1,8}}+")
_HEADER = re.compile(
    r"(?<![\w.])((?:[A-Za-z0-9]{1,20}-){0,3}(?:authorization|cookie)2?)[ \t]{0,8}+[:=][ \t]{0,8}+",
    re.IGNORECASE,
)
_VALUE = re.compile(
    r"[bBrRuUfF]{0,2}(?:\"{3}.*?(?:\"{3}|\Z)|'{3}.*?(?:'{3}|\Z)|\"(?:[^\"\\]|\\.)*+\"?|'(?:[^'\\]|\\.)*+'?)"
    r"|\\{1,8}+[\"'].*?\\{1,8}+[\"']"  # JSON inside a string inside JSON
    r"|[\[{(][^\n]*+"  # a container: where it ends is not for a pattern to say
    r"|[^\s]++",
    re.DOTALL,
)
_QUERY_VALUE = re.compile(r"[^\s&#\"'<>]++")
_REST_OF_LINE = re.compile(r"[^\s\"'][^\r\n\"']*+")

# `token: the smallest unit of text` is prose; `token: 8c2f91aa03` is not.
_PROSE = frozenset({"token", "secret", "secrets", "auth", "cookie", "cookies", "credentials"})
_NO_SECRETS = frozenset({"", "true", "false", "none", "null"})
_TIES = (
    (_HEADER, _REST_OF_LINE),
    (_QUERY, _QUERY_VALUE),
    (_ASSIGNMENT, _VALUE),
    (_FLAG, _VALUE),
    (_MAPPING, _VALUE),
)


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

    def url(self, text: str) -> str:
        """The text with `[redacted]` for the userinfo of each URL in it: `https://[redacted]@host`.

        The user `git` without a password, as in `ssh://git@host`, is no secret and stays.
        """
        if "@" not in text:
            return text
        text = _USERINFO_WITH_SLASH.sub(rf":\1{REDACTED}@", text)
        return _USERINFO.sub(f"://{REDACTED}@", text)

    def text(self, text: str) -> str:
        """The text with `[redacted]` for each secret in it.

        Found are the userinfo of URLs, values given to a secret key (`--hf-token x`, `api_key=x`,
        `"password": "x"`, `Authorization: x`), `Bearer x`, private keys, and the shapes of
        well-known tokens (`hf_...`, `sk-...`, `ghp_...`, `AKIA...`).
        """
        return self._clean(text, lambda secret: REDACTED)

    def lines(self, lines: Sequence[str]) -> list[str]:
        """As `text`, of lines that belong together; none of them is lost.

        Of a secret that goes over several lines each one is redacted.
        """
        return self._clean("\n".join(lines), _line_by_line).split("\n") if lines else []

    def arguments(self, arguments: Sequence[str]) -> list[str]:
        """As `text`, of the arguments of a command: in `--api-key x`, `x` is a secret."""
        shown = []
        hidden = False
        for argument in arguments:
            shown.append(REDACTED if hidden else self.text(argument))
            hidden = self.precedes_secret(argument)
        return shown

    def precedes_secret(self, argument: str) -> bool:
        """Whether the argument of a command says that the next one is a secret: `--api-key`."""
        return argument[:1] == "-" and "=" not in argument and self.is_secret_key(argument)

    def _clean(self, text: str, hidden: Callable[[str], str]) -> str:
        if not _SUSPICIOUS.search(text):
            return text
        text = self.url(text)
        text = _PRIVATE_KEY.sub(lambda match: hidden(match[0]), text)
        text = _TOKENS.sub(REDACTED, text)
        text = _JWT.sub(REDACTED, text)
        text = _BEARER.sub(rf"\1 {REDACTED}", text)
        for key, value in _TIES:
            text = self._without_values(text, key, value, hidden)
        return text

    def _without_values(
        self,
        text: str,
        tie: re.Pattern[str],
        value: re.Pattern[str],
        hidden: Callable[[str], str],
    ) -> str:
        kept: list[str] = []
        done = at = 0
        while match := tie.search(text, at):
            at = match.end()
            found = value.match(text, at) if self.is_secret_key(match[1]) else None
            if found is None or _harmless(found[0], prose=tie is _MAPPING and _in_prose(match[1])):
                continue
            kept += text[done:at], hidden(found[0])
            done = at = found.end()
        return "".join((*kept, text[done:]))


def _line_by_line(secret: str) -> str:
    return "\n".join([REDACTED] * (secret.count("\n") + 1))


def _harmless(value: str, *, prose: bool) -> bool:
    if prose and not (len(value) >= 8 and any(character.isdigit() for character in value)):
        return True
    return value.startswith(REDACTED) or value.strip("\\\"'),;}]").lower() in _NO_SECRETS


def _in_prose(key: str) -> bool:
    return key.lower() in _PROSE
