"""Redact a config's params: by the names on their paths, the names inside, and the texts.

A redacted value is `{"$redacted": ...}`, and is listed by path.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from orbiter_mlflow import names
from orbiter_mlflow.config.codec.flatten import Entry, Flat
from orbiter_mlflow.config.codec.json_text import Json, canonical, to_text
from orbiter_mlflow.config.codec.kinds import KINDS
from orbiter_mlflow.config.codec.markers import (
    DICT,
    JSON,
    REDACTED,
    TEXT,
    WHY,
    is_marked,
    is_marker,
)
from orbiter_mlflow.config.codec.paths import values_of
from orbiter_mlflow.config.codec.unencodable import advice
from orbiter_mlflow.redaction.key_names import is_special_token
from orbiter_mlflow.redaction.redactor import Redactor
from orbiter_mlflow.text.shortening import shortened

__all__ = ["RedactedConfig", "redact_config"]

_LONGEST_TEXT = 2_000
"""Characters to show of a value that cannot be loaded anyway."""
_SECRET: Json = {REDACTED: None}


@dataclass(frozen=True, slots=True)
class RedactedConfig:
    """The params without their secrets.

    Attributes:
        texts: path -> text of the param.
        redacted: paths of secrets.
        unencodable: path of a value kept as text -> the reason, and what to do instead.
    """

    texts: dict[tuple[str, ...], str]
    redacted: tuple[str, ...]
    unencodable: dict[str, str]


def redact_config(flat: Flat, redactor: Redactor) -> RedactedConfig:
    """The params of a config without their secrets."""
    texts: dict[tuple[str, ...], str] = {}
    verdicts: dict[str, tuple[bool, bool]] = {}
    collapsed: set[tuple[str, ...]] = set()
    redacted: dict[str, None] = {}
    unencodable: dict[str, str] = {}
    for entry in flat.entries:
        secret = _secret_part(entry, redactor, verdicts)
        if secret is not None:
            collapsed.add(secret)
            redacted[".".join(secret)] = None
            texts[secret] = canonical(_SECRET)
        elif entry.path not in collapsed:
            visible, paths, has_text = _redact_leaf(entry, redactor)
            texts[entry.path] = to_text(visible) if visible is not entry.leaf.json else entry.text
            redacted.update(dict.fromkeys(paths))
            if has_text:
                for place, own in values_of(visible, ".".join(entry.path), TEXT):
                    unencodable[place] = advice(own.get(WHY))
    order = _order(flat.order, collapsed, redactor)
    if order:
        texts[(names.KEY_ORDER,)] = to_text(order)
    return RedactedConfig(texts, tuple(redacted), unencodable)


def _order(
    order: Mapping[tuple[str, ...], list[str]],
    collapsed: Iterable[tuple[str, ...]],
    redactor: Redactor,
) -> dict[str, list[str]]:
    """The order of keys, unless one is a secret or inside one."""
    hidden = set(collapsed)
    return {
        ".".join(path): keys
        for path, keys in order.items()
        if not any(path[:length] in hidden for length in range(1, len(path) + 1))
        and not any(redactor.text(key) != key for key in keys)
    }


def _secret_part(
    entry: Entry, redactor: Redactor, verdicts: dict[str, tuple[bool, bool]]
) -> tuple[str, ...] | None:
    """The start of the path whose whole value is a secret, if there is one.

    `verdicts` caches for each part of a path whether it names a secret, and whether it is one.
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


def _redact_leaf(entry: Entry, redactor: Redactor) -> tuple[Json, list[str], bool]:
    json = entry.leaf.json
    is_atom = entry.leaf.named is None and type(json) is not dict and type(json) is not list
    if is_atom and (type(json) is not str or redactor.text(json) == json):
        return json, [], False
    path = ".".join(entry.path)
    by_name, by_text = _Walk(redactor), _Walk(redactor)
    try:
        visible = by_text.walk(json, path)
        if entry.leaf.named is not None:
            named = by_name.walk(entry.leaf.named, path)
            if set(by_name.paths) > set(by_text.paths):
                whole = named if is_marked(named) else {JSON: named}
                return whole, by_name.paths, by_name.has_text
    except RecursionError:  # the caller is too deep for a search
        return _SECRET, [path], False
    return visible, by_text.paths, by_text.has_text


def _is_harmless(name: str, value: Json) -> bool:
    """Whether a value under a secret's name is no secret: a switch, a special token, nothing."""
    if type(value) is dict and len(value) == 1:
        [(key, inner)] = value.items()
        return _is_wrapper(key) and _is_harmless(name, inner)
    if type(value) is str and is_special_token(name, value):
        return True
    return value is None or type(value) is bool or value in ("", [], {})


def _is_wrapper(marker: str) -> bool:
    return marker in (JSON, DICT) or (marker in KINDS and KINDS[marker].collection != "")


class _Walk:
    """Redacts one JSON value; returns the very value if nothing was redacted."""

    def __init__(self, redactor: Redactor) -> None:
        self.redactor = redactor
        self.paths: list[str] = []
        self.has_text = False
        self._inside_text = False

    def walk(self, value: Json, path: str) -> Json:
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
        visible = []
        before: list[str] = []
        for item in items:  # ["--api-key", "x"], as of a command line
            secret = self.redactor.follows_as_secret(before, item if type(item) is str else "")
            visible.append(self._redacted(inside) if secret else self.walk(item, inside))
            before = [*before[-3:], item] if type(item) is str else []
        return visible if _differ(visible, items) else items

    def _object(self, value: dict[str, Json], path: str) -> Json:
        if TEXT in value:
            return self._text(value, path)
        if REDACTED in value:  # the type itself hides its value
            self.paths.append(path)
            return value
        if len(value) == 1:
            [(key, inner)] = value.items()
            hidden = _hidden(key, inner)
            if hidden is not None:
                return value if self.redactor.text(hidden) == hidden else self._redacted(path)
            if key == DICT:
                pairs = [self._pair(pair, path) for pair in inner]
                return {key: pairs} if _differ(pairs, inner) else value
        visible = {}
        called = value.get("name", value.get("key"))  # {"name": "API_KEY", "value": "x"}
        for key, item in value.items():
            if self.redactor.text(key) != key:
                return self._redacted(path)
            name = called if key == "value" and type(called) is str else key
            visible[key] = self._named(key, item, path, name)
        return visible if _differ(visible.values(), value.values()) else value

    def _named(self, key: str, item: Json, path: str, name: str | None = None) -> Json:
        if is_marker(key):
            return self.walk(item, path)
        path = f"{path}.{key}"
        names = (key, name or key)
        if any(map(self.redactor.is_secret_key, names)) and not _is_harmless(names[1], item):
            return self._redacted(path)
        return self.walk(item, path)

    def _pair(self, pair: list[Json], path: str) -> Json:
        key, item = pair
        shown = self.walk(key, path)
        if shown is not key:
            return [{REDACTED: None}, {REDACTED: None}]
        named = type(key) is str and key
        visible = self._named(key, item, path) if named else self.walk(item, path)
        return pair if visible is item else [key, visible]

    def _text(self, value: dict[str, Json], path: str) -> Json:
        self.has_text = True
        inner, inside = value[TEXT], self._inside_text
        if type(inner) is str:
            visible = self.redactor.text(inner)
            if visible != inner:
                self.paths.append(path)
        else:
            self._inside_text = True
            visible = self.walk(inner, path)
            self._inside_text = inside
            if not inside:  # only once: each level would double the escapes
                visible = to_text(visible)
        return {**value, TEXT: visible if inside else _bounded(visible)}


def _hidden(key: str, payload: Json) -> str | None:
    """The text that a marker's payload encodes."""
    kind = KINDS.get(key)
    return None if kind is None or kind.hidden is None else kind.hidden(payload)


def _differ(visible: Iterable[Any], items: Iterable[Any]) -> bool:
    return any(a is not b for a, b in zip(visible, items, strict=True))


def _bounded(text: str) -> str:
    """The text, or its beginning and a digest that tells it apart from others."""
    shown = shortened(text, _LONGEST_TEXT)
    if shown == text:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{shown} SHA-256 {digest}"
