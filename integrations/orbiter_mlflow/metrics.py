"""What a trainer reports, as MLflow takes it: numbers under legal metric keys, all else as tags.

One `MetricKeys` serves one run and promises that two sources never share a key. It runs inside the
training loop: it does no I/O, takes no lock, and survives whatever value it is handed. When and
where the result is written is left to others.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import lru_cache
from hashlib import sha256
from itertools import count
from math import isfinite
from typing import Any, NamedTuple

from orbiter.train.trainer import TrainMetrics
from orbiter_mlflow import names
from orbiter_mlflow.values import placeholder, read, tag_value, text_of, to_float, type_name

__all__ = ["Flat", "MetricKeys"]

MAX_DEPTH = 64
"""Mappings nested deeper than this are kept as text."""

_PLAIN = frozenset({float, int, bool})

_NEEDS_ESCAPE = re.compile(r"[^\w.\- :]|:(?:[0-9a-f]+|empty):|^\.\.|^\.\Z")
_ESCAPED = re.compile(r"[^\w.\- ]|^\.\.+|^\.\Z")
_SEPARATOR = re.compile(r"(?<=[^/])/(?=.)", re.DOTALL)
"""A slash between two segments; one at an end, or after another, belongs to its segment."""


class Flat(NamedTuple):  # made on each report: a frozen dataclass costs three times as much
    """One report, flattened."""

    numbers: dict[str, float]
    """Metric key -> value; NaN and infinities included."""
    texts: dict[str, str]
    """Tag key -> text of what is no number."""
    nonfinite: list[str]
    """Metric keys that are NaN or infinite here for the first time in this run."""
    renamed: dict[str, str]
    """Keys used here for the first time that are not what was given: key logged -> as given."""


class MetricKeys:
    """The keys of one run: each belongs to one source for the run's life.

    A source is a path of keys in what was reported, under a prefix. Its key is the path
    joined by `/`, with what MLflow refuses escaped the same way in each run (`pass@1` becomes
    `pass:40:1`). Only where two sources would meet on one key (`{"a/b": 1, "a": {"b": 2}}`) does
    the later one get `:2`, `:3` and so on. Threads may share it.

    Args:
        redact: takes the secrets out of a key; called once for each.
    """

    def __init__(self, redact: Callable[[str], str] = str) -> None:
        self._redact = redact
        self._roots: dict[str | tuple[str | int, ...], _Source] = {}
        self._user_tags: dict[str, _Source] = {}
        self._metric_owners: dict[str, _Source] = {}
        self._tag_owners: dict[str, _Source] = {}
        self._nonfinite: set[str] = set()

    def flatten(
        self, prefix: str | tuple[str | int, ...], metrics: Mapping[Any, Any] | TrainMetrics
    ) -> Flat:
        """Flatten one report.

        Args:
            prefix: what each key begins with: `train`, `eval`, `eval/<name of the data>`; or its
                parts. Of the parts, a number and a name that reads like it (`("eval", 2)` and
                `("eval", "2")`) never share keys.
            metrics: a mapping gives just its keys. A `TrainMetrics` gives all of its fields, and
                the content of `extra` beside them; what there has the name of a field goes to
                `<prefix>/extra/<key>`. Nested mappings are flattened.

        Raises:
            TypeError: where `metrics` is neither a mapping nor a dataclass. Nothing in it raises.
        """
        flat = Flat({}, {}, [], {})
        root = self._roots.get(prefix) or self._root(prefix)
        given = metrics if isinstance(metrics, dict) else _as_mapping(metrics)
        self._walk(root, given, flat, (id(given),))
        numbers = flat.numbers
        if not isfinite(sum(numbers.values())):  # true as well where finite ones overflow
            for key, number in numbers.items():
                if not isfinite(number) and key not in self._nonfinite:
                    self._nonfinite.add(key)
                    flat.nonfinite.append(key)
        return flat

    def tag(self, key: str) -> str:
        """The tag key for a `key` of the user's: as given where MLflow takes it, else escaped."""
        source = self._user_tags.get(key)
        if source is None:
            shown = self._redact(key)
            source = self._user_tags.setdefault(key, _Source(_escape(shown), shown, 0))
        if source.tag is None:
            source.tag = _claim(source.path, source, self._tag_owners)
        return source.tag

    def _root(self, prefix: str | tuple[str | int, ...]) -> "_Source":
        parts = (prefix,) if isinstance(prefix, str) else prefix
        given = "/".join(str(part) for part in parts)
        path = "/".join(_escape(str(part)) for part in parts)
        self._roots[prefix] = root = self._roots.setdefault(parts, _Source(path, given, 0))
        return root

    def _walk(
        self, source: "_Source", mapping: Mapping[Any, Any], flat: Flat, above: tuple[int, ...]
    ) -> bool:
        """Flatten `mapping`; `above` identifies those it lies in. False where it is empty."""
        items = _items(mapping)
        numbers, known = flat.numbers, source.known
        seen: dict[tuple[str, str], int] = {}
        for key, value in items:
            kind = type(value)
            if kind in _PLAIN and type(key) is str and key in known:
                numbers[known[key]] = value if kind is float else to_float(value)
                continue
            child = source.child(key, seen, self._redact)
            what = read(value)
            if isinstance(what, float):
                metric = child.metric or self._name_metric(child, flat)
                if type(key) is str:
                    known[key] = metric
                numbers[metric] = what
                continue
            if isinstance(what, Mapping):
                if id(what) in above:
                    what = f"<{type_name(what)}: contains itself>"
                elif child.depth < MAX_DEPTH and self._walk(child, what, flat, (*above, id(what))):
                    continue
                else:
                    what = text_of(what)
            flat.texts[child.tag or self._name_tag(child, flat)] = what
        return bool(items)

    def _name_metric(self, source: "_Source", flat: Flat) -> str:
        key = source.metric = _claim(source.path, source, self._metric_owners)
        if key != source.given:
            flat.renamed[key] = tag_value(source.given)
        return key

    def _name_tag(self, source: "_Source", flat: Flat) -> str:
        def dotted(path: str) -> str:
            return f"{names.ORBITER}.{path.replace('/', '.')}"

        key = source.tag = _claim(dotted(source.path), source, self._tag_owners)
        if key != dotted(source.given):
            flat.renamed[key] = tag_value(source.given)
        return key


class _Source:
    """One place in what is reported, and the keys that it owns once it has needed them."""

    __slots__ = ("children", "depth", "given", "known", "metric", "path", "tag")

    def __init__(self, path: str, given: str, depth: int) -> None:
        self.path = path
        self.given = given
        self.depth = depth
        self.metric: str | None = None
        self.tag: str | None = None
        self.children: dict[str | tuple[str, str, int], _Source] = {}
        self.known: dict[str, str] = {}  # of the children: key -> metric key

    def child(
        self, key: Any, seen: dict[tuple[str, str], int], redact: Callable[[str], str]
    ) -> "_Source":
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
            path, given = f"{self.path}/{_escape(shown)}", f"{self.given}/{shown}"
            child = self.children.setdefault(identity, _Source(path, given, self.depth + 1))
        return child


# -- keys ----------------------------------------------------------------------------------------


def _escape(key: str) -> str:
    """`key` as MLflow takes it: legal, and never what another key becomes.

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


def _claim(key: str, source: _Source, owners: dict[str, _Source]) -> str:
    """Make `source` the owner of `key`, shortened to the limit, or of the first free variant."""
    if len(key) > names.MAX_KEY:
        digest = sha256(key.encode()).hexdigest()[:16]
        key = f"{key[: names.MAX_KEY - 17]}:{digest}"
    variant = key
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


# -- reports ---


def _as_mapping(metrics: object) -> Mapping[Any, Any]:
    """A dataclass as the mapping that gives the same keys; a mapping as it is."""
    if isinstance(metrics, Mapping):
        return metrics
    if not is_dataclass(metrics) or isinstance(metrics, type):
        raise TypeError(f"metrics must be a mapping or a TrainMetrics, not {type_name(metrics)}")
    own = _field_names(type(metrics))
    merged: dict[Any, Any] = {name: _field(metrics, name) for name in own}
    extra = merged.get(names.EXTRA)
    if isinstance(extra, Mapping):
        del merged[names.EXTRA]
        collided: dict[str, Any] = {}
        for key, value in _items(extra):
            if isinstance(key, str) and key in own:
                collided[key] = value
            else:
                merged[key] = value
        if collided:
            merged[names.EXTRA] = collided
    return merged


@lru_cache(maxsize=256)
def _field_names(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


def _field(metrics: object, name: str) -> object:
    try:
        return getattr(metrics, name)
    except Exception as error:  # a slot that was never set, a property
        return placeholder(metrics, error)


def _items(mapping: Mapping[Any, Any]) -> list[tuple[Any, Any]]:
    try:
        return list(mapping.items())
    except Exception:  # one value cannot be had: take the others one by one
        return _readable_items(mapping)


def _readable_items(mapping: Mapping[Any, Any]) -> list[tuple[Any, Any]]:
    try:
        keys = list(mapping)
    except Exception as error:
        return [("", placeholder(mapping, error))]
    items: list[tuple[Any, Any]] = []
    for key in keys:
        try:
            items.append((key, mapping[key]))
        except Exception as error:
            items.append((key, placeholder(mapping, error)))
    return items
