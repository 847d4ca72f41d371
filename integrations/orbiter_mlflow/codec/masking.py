"""Redaction of a config's params: by the names on the path, by the names inside, by the texts.

What is redacted stays recognisable as such, `{"$redacted": ...}`, and is listed by path.
"""

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from orbiter_mlflow.codec.flatten import Entry
from orbiter_mlflow.codec.json_text import Json, canonical, to_text
from orbiter_mlflow.codec.markers import REDACTED, TEXT
from orbiter_mlflow.escaping import shortened
from orbiter_mlflow.redact import Redactor
from orbiter_mlflow.secret_names import is_special_token

__all__ = ["Masked", "mask_entries"]

_LONGEST_TEXT = 2_000
"""Characters that are shown of what cannot be loaded anyway."""
_WRAPPERS = frozenset({"$json", "$tuple", "$set", "$frozenset", "$dict"})
_BYTES = frozenset({"$bytes", "$bytearray"})
_SECRET: Json = {REDACTED: None}


@dataclass(frozen=True, slots=True)
class Masked:
    """The params without their secrets.

    Attributes:
        texts: the text of each param by its path.
        redacted: paths of what was redacted.
        unencodable: paths of what is kept as text only.
    """

    texts: dict[tuple[str, ...], str]
    redacted: tuple[str, ...]
    unencodable: tuple[str, ...]


def mask_entries(entries: Iterable[Entry], redactor: Redactor) -> Masked:
    """The params of these entries without their secrets."""
    texts: dict[tuple[str, ...], str] = {}
    verdicts: dict[str, tuple[bool, bool]] = {}
    collapsed: set[tuple[str, ...]] = set()
    redacted: dict[str, None] = {}
    unencodable: dict[str, None] = {}
    for entry in entries:
        secret = _secret_part(entry, redactor, verdicts)
        if secret is not None:
            collapsed.add(secret)
            redacted[".".join(secret)] = None
            texts[secret] = canonical(_SECRET)
        elif entry.path not in collapsed:
            masked, paths, has_text = _mask_leaf(entry, redactor)
            texts[entry.path] = masked
            redacted.update(dict.fromkeys(paths))
            if has_text:
                unencodable[".".join(entry.path)] = None
    return Masked(texts, tuple(redacted), tuple(unencodable))


def _secret_part(
    entry: Entry, redactor: Redactor, verdicts: dict[str, tuple[bool, bool]]
) -> tuple[str, ...] | None:
    """The start of the path whose whole value is a secret, if there is one.

    `verdicts` remembers of each part of a path whether it names a secret, and whether it is one.
    """
    path = entry.path
    for i, part in enumerate(path):
        if part not in verdicts:
            verdicts[part] = (redactor.is_secret_key(part), redactor.text(part) != part)
        names_secret, is_secret = verdicts[part]
        if is_secret and i:
            return path[:i]
        if names_secret and not (i == len(path) - 1 and _is_harmless(part, entry.leaf.json)):
            return path[: i + 1]
    return None


def _mask_leaf(entry: Entry, redactor: Redactor) -> tuple[str, list[str], bool]:
    json = entry.leaf.json
    is_atom = entry.leaf.named is None and type(json) is not dict and type(json) is not list
    if is_atom and (type(json) is not str or redactor.text(json) == json):
        return entry.text, [], False
    path = ".".join(entry.path)
    by_name, mask = _Mask(redactor), _Mask(redactor)
    try:
        if entry.leaf.named is not None:
            named = by_name.json(entry.leaf.named, path)
            if by_name.paths:
                return to_text(named), by_name.paths, by_name.has_text
        masked = mask.json(entry.leaf.json, path)
        text = entry.text if masked is entry.leaf.json else to_text(masked)
    except RecursionError:  # called from so deep that it could not be looked through
        return canonical(_SECRET), [path], False
    return text, mask.paths, mask.has_text


def _is_harmless(name: str, value: Json) -> bool:
    """Whether a value under a secret's name is none: a switch, a special token, nothing at all."""
    if type(value) is dict and len(value) == 1:
        [(key, inner)] = value.items()
        return key in _WRAPPERS and _is_harmless(name, inner)
    if type(value) is str and is_special_token(name, value):
        return True
    return value is None or type(value) is bool or value in ("", [], {})


class _Mask:
    """Walks one JSON value; the very value is returned where nothing was redacted."""

    def __init__(self, redactor: Redactor) -> None:
        self.redactor = redactor
        self.paths: list[str] = []
        self.has_text = False

    def json(self, value: Json, path: str) -> Json:
        if type(value) is str:
            return self._string(value, path)
        if type(value) is list:
            return self._list(value, path)
        if type(value) is dict:
            return self._object(value, path)
        return value

    def _string(self, value: str, path: str) -> Json:
        visible = self.redactor.text(value)
        return value if visible == value else self._redacted(path, visible)

    def _redacted(self, path: str, visible: str | None = None) -> Json:
        self.paths.append(path)
        return {REDACTED: visible}

    def _list(self, items: list[Json], path: str) -> list[Json]:
        inside = f"{path}[]"
        alone = len(items) == 2 and all(type(item) is str for item in items)
        if alone and self.redactor.is_pair(*items):
            return [items[0], self._redacted(inside)]
        masked = []
        before: list[str] = []
        for item in items:  # ["--api-key", "x"], as of a command line
            secret = self.redactor.follows_as_secret(before, item if type(item) is str else "")
            masked.append(self._redacted(inside) if secret else self.json(item, inside))
            before = [*before[-3:], item] if type(item) is str else []
        return masked if _differ(masked, items) else items

    def _object(self, value: dict[str, Json], path: str) -> Json:
        if TEXT in value:
            return self._text(value[TEXT], path)
        if len(value) == 1:
            [(key, inner)] = value.items()
            if key in _BYTES:
                hidden = base64.b64decode(inner).decode("latin-1")
                return value if self.redactor.text(hidden) == hidden else self._redacted(path)
            if key == "$str":
                whole = "".join(inner)
                return value if self.redactor.text(whole) == whole else self._redacted(path)
            if key == "$dict":
                pairs = [self._pair(pair, path) for pair in inner]
                return {key: pairs} if _differ(pairs, inner) else value
        masked = {}
        called = value.get("name", value.get("key"))  # {"name": "API_KEY", "value": "x"}
        for key, item in value.items():
            if self.redactor.text(key) != key:
                return self._redacted(path)
            name = called if key == "value" and type(called) is str else key
            masked[key] = self._named(key, item, path, name)
        return masked if _differ(masked.values(), value.values()) else value

    def _named(self, key: str, item: Json, path: str, name: str | None = None) -> Json:
        if key[:1] == "$":
            return self.json(item, path)
        path = f"{path}.{key}"
        names = (key, name or key)
        if any(map(self.redactor.is_secret_key, names)) and not _is_harmless(names[1], item):
            return self._redacted(path)
        return self.json(item, path)

    def _pair(self, pair: list[Json], path: str) -> Json:
        key, item = pair
        shown = self.json(key, path)
        if shown is not key:
            return [{REDACTED: None}, {REDACTED: None}]
        masked = self._named(key, item, path) if type(key) is str and key else self.json(item, path)
        return pair if masked is item else [key, masked]

    def _text(self, inner: Json, path: str) -> Json:
        self.has_text = True
        if type(inner) is str:
            visible = self.redactor.text(inner)
            if visible != inner:
                self.paths.append(path)
        else:
            visible = canonical(self.json(inner, path))
        return {TEXT: shortened(visible, _LONGEST_TEXT)}


def _differ(masked: Iterable[Any], items: Iterable[Any]) -> bool:
    return any(a is not b for a, b in zip(masked, items, strict=True))
