"""Sources of metrics, and the key that each owns for the life of a run.

A source is a place in a report: a path of keys under a prefix. Its key is legal for MLflow,
the same in each run, and never that of another source.
"""

import re
from collections.abc import Callable
from hashlib import sha256
from itertools import count
from typing import Any

from orbiter_mlflow import names
from orbiter_mlflow.text.values import placeholder, type_name

__all__ = ["Source", "claim", "doubled_by", "escape", "path_of", "shortened"]

_NEEDS_ESCAPE = re.compile(r"[^\w.\- :]|:(?:[0-9a-f]+|empty):|^\.\.|^\.\Z")
_ESCAPED = re.compile(r"[^\w.\- ]|^\.\.+|^\.\Z")
_SEPARATOR = re.compile(r"(?<=[^/])/(?=.)", re.DOTALL)
"""A slash between two segments; one at an end, or after another, belongs to its segment."""


class Source:
    """One place in a report, and the keys that it owns once it has needed them."""

    __slots__ = (
        "children",
        "depth",
        "doubled",
        "given",
        "known",
        "metric",
        "path",
        "root",
        "stem",
        "tag",
        "undoubled",
    )

    def __init__(self, path: str, given: str, depth: int, doubled: tuple[str, ...] = ()) -> None:
        self.path = path
        self.given = given
        self.depth = depth
        self.root = self  # the source of the prefix itself
        self.doubled = doubled  # of a root: beginnings of keys that only repeat it
        self.undoubled: str | None = None  # the path without such a beginning
        self.stem: str | None = None  # the start of the children's undoubled paths
        self.metric: str | None = None
        self.tag: str | None = None
        self.children: dict[str | tuple[str, str, int], Source] = {}
        self.known: dict[str, str] = {}  # of the children: key -> metric key

    def child(
        self, key: Any, seen: dict[tuple[str, str], int], redact: Callable[[str], str]
    ) -> "Source":
        """The source of `key`; `seen` counts the keys of one mapping that read alike.

        Keys that are no strings are told apart by type, text and order, not by themselves: keys
        that are made anew for each report must find their source again.
        """
        if isinstance(key, str):
            text = str.__str__(key)
            identity: str | tuple[str, str, int] = text
        else:
            kind, text = type_name(key), _key_text(key)
            seen[kind, text] = order = seen.get((kind, text), 0) + 1
            identity = (kind, text, order)
        child = self.children.get(identity)
        if child is None:
            shown = redact(text)
            path, given = f"{self.path}/{escape(shown)}", f"{self.given}/{shown}"
            child = Source(path, given, self.depth + 1)
            child.root = self.root
            child.undoubled, child.stem = self._undoubled(shown)
            child = self.children.setdefault(identity, child)
        return child

    def _undoubled(self, text: str) -> tuple[str | None, str | None]:
        """`undoubled` and `stem` of the child `text`."""
        if self.stem is not None:
            path = f"{self.stem}/{escape(text)}"
            return path, path
        for phase in self.doubled:
            if text == phase:  # a mapping by phase
                return None, self.path
            if text.startswith((f"{phase}_", f"{phase}/")) and len(text) > len(phase) + 1:
                path = f"{self.path}/{escape(text[len(phase) + 1 :])}"
                return path, path
        return None, None


# -- keys ----------------------------------------------------------------------------------------


def path_of(parts: tuple[str | int, ...]) -> str:
    """The start of all keys under a prefix, without a `/` at its end, from the prefix' parts."""
    return "/".join(escape(str(part)) for part in parts)


def doubled_by(parts: tuple[str | int, ...]) -> tuple[str, ...]:
    """Beginnings of keys that repeat this prefix: `eval_hard_` and `eval/` for `eval/hard`."""
    texts = [str(part) for part in parts]
    return tuple(dict.fromkeys(["_".join(texts), "/".join(texts), texts[0]]))


def escape(key: str) -> str:
    """Escape `key` so that MLflow takes it; different keys stay different.

    MLflow allows `[/\\w.\\- :]*` and only paths that `posixpath.normpath` leaves alone
    (mlflow/utils/validation.py, 3.17). A segment that breaks this, or that could be read as
    escaped, gets each colon and each offender as `:<hex code point>:`; so escaped and plain
    segments never meet, and the escapes can be read back.
    """
    if not key:
        return ":empty:"
    return "/".join(
        _ESCAPED.sub(_code_points, segment) if _NEEDS_ESCAPE.search(segment) else segment
        for segment in _SEPARATOR.split(key)
    )


def _code_points(match: re.Match[str]) -> str:
    return "".join(f":{ord(character):x}:" for character in match[0])


def shortened(key: str) -> str:
    """`key` within MLflow's limit."""
    if len(key) <= names.MAX_KEY:
        return key
    digest = sha256(key.encode()).hexdigest()[:16]
    return f"{key[: names.MAX_KEY - 17]}:{digest}"


def claim(key: str, source: Source, owners: dict[str, Source]) -> str:
    """Make `source` the owner of `key`, shortened to the limit, or of the first free variant."""
    variant = key = shortened(key)
    for number in count(2):  # `setdefault` is atomic: of two threads one owns, the other goes on
        if owners.setdefault(variant, source) is source:
            break
        suffix = f":{number}"
        variant = key[: names.MAX_KEY - len(suffix)] + suffix
    return variant


def _key_text(key: object) -> str:
    try:
        return str.__str__(str(key))
    except Exception as error:
        return placeholder(key, error)
