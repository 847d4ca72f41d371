"""Flatten reports: numbers get legal metric keys, everything else becomes a tag.

One `MetricKeys` serves one run and promises that two sources never share a key. It runs inside the
training loop: it does no I/O, takes no lock, and raises for no value.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import lru_cache
from math import isfinite
from typing import Any, NamedTuple

from orbiter.train.hooks import left_at_default
from orbiter.train.trainer import TrainMetrics
from orbiter_mlflow import names
from orbiter_mlflow.text.values import placeholder, read, tag_value, text_of, to_float, type_name
from orbiter_mlflow.tracking.metric_sources import (
    Source,
    claim,
    doubled_by,
    escape,
    path_of,
    shortened,
)

__all__ = ["Flat", "MetricKeys", "Prefix"]

MAX_DEPTH = 64
"""Mappings nested deeper than this are kept as text."""

_PLAIN = frozenset({float, int, bool})

Prefix = str | tuple[str | int, ...]
"""The start of keys: `train`, `eval`, `eval/<name of the data>`; or its parts."""


class Flat(NamedTuple):  # made on each report: a frozen dataclass costs three times as much
    """One report, flattened."""

    numbers: dict[str, float]
    """Metric key -> value; NaN and infinities included."""
    texts: dict[str, str]
    """Tag key -> text of a value that is no number."""
    nonfinite: list[str]
    """Metric keys that are NaN or infinite here for the first time in this run."""
    renamed: dict[str, str]
    """Keys used here for the first time that had to change: key logged -> key reported."""
    late: list[tuple[Source, float]]
    """Numbers that get their key after all others of the report; empty once it is flattened."""


class MetricKeys:
    """The keys of one run: each belongs to one source for the run's life.

    A source is a path of keys in a report, under a prefix. Its key is the path
    joined by `/`, with what MLflow refuses escaped the same way in each run (`pass@1` becomes
    `pass:40:1`). A prefix that the key repeats is not put there twice: `train_loss` is
    `train/loss`, where no other source has that key; of an evaluation `eval_loss` and `loss` are
    one source, but for a report that has both. Only where two sources would meet on one key
    (`{"a/b": 1, "a": {"b": 2}}`) does the later one get `:2`, `:3` and so on. Threads may share it.

    Args:
        redact: takes the secrets out of a key; called once for each.
    """

    def __init__(self, redact: Callable[[str], str] = str) -> None:
        self._redact = redact
        self._roots: dict[Prefix, Source] = {}
        self._user_tags: dict[str, Source] = {}
        self._metric_owners: dict[str, Source] = {}
        self._tag_owners: dict[str, Source] = {}
        self._nonfinite: set[str] = set()

    def flatten(self, prefix: Prefix, metrics: Mapping[Any, Any] | TrainMetrics) -> Flat:
        """Flatten one report.

        Args:
            prefix: the start of each key. Of its parts, a number and a name that reads like it
                (`("eval", 2)` and `("eval", "2")`) never share keys.
            metrics: a mapping gives just its keys. A `TrainMetrics` gives those of its fields that
                were set, and the content of `extra` beside them; what there has the name of a field
                goes to `<prefix>/extra/<key>`. Nested mappings are flattened.

        Raises:
            TypeError: where `metrics` is neither a mapping nor a dataclass. Nothing in it raises.
        """
        return self._flatten(self._roots.get(prefix) or self._root(prefix), metrics, None)

    def flatten_result(self, prefix: str, metrics: Mapping[Any, Any] | TrainMetrics) -> Flat:
        """Flatten the result of a whole phase: a mean, a maximum, the last value.

        Keys that were reported under `prefix` keep their curve: the number goes to
        `<prefix>/final/<key>`. Arguments and errors are those of `flatten`.
        """
        return self._flatten(self._root(prefix), metrics, self._root((prefix, names.FINAL)))

    def _flatten(
        self, root: Source, metrics: Mapping[Any, Any] | TrainMetrics, final: Source | None
    ) -> Flat:
        flat = Flat({}, {}, [], {}, [])
        given = metrics if isinstance(metrics, dict) else _as_mapping(metrics)
        self._walk(root, given, flat, (id(given),), final)
        numbers = flat.numbers
        while flat.late:
            source, number = flat.late.pop(0)
            key = source.metric or self._name_metric(source, flat)
            if key in numbers:  # of an evaluation that has both
                key = claim(source.path, source, self._metric_owners)
            numbers[key] = number
        if not isfinite(sum(numbers.values())):  # true as well where finite ones overflow
            for key, number in numbers.items():
                if not isfinite(number) and key not in self._nonfinite:
                    self._nonfinite.add(key)
                    flat.nonfinite.append(key)
        return flat

    def tag(self, key: str) -> str:
        """The tag key for a `key` of the user's, escaped if MLflow does not take it as it is."""
        source = self._user_tags.get(key)
        if source is None:
            shown = self._redact(key)
            source = self._user_tags.setdefault(key, Source(escape(shown), shown, 0))
        if source.tag is None:
            source.tag = claim(source.path, source, self._tag_owners)
        return source.tag

    def _root(self, prefix: Prefix) -> Source:
        parts = (prefix,) if isinstance(prefix, str) else prefix
        given = "/".join(str(part) for part in parts)
        fresh = Source(path_of(parts), given, 0, doubled_by(parts))
        self._roots[prefix] = root = self._roots.setdefault(parts, fresh)
        return root

    def _walk(
        self,
        source: Source,
        mapping: Mapping[Any, Any],
        flat: Flat,
        above: tuple[int, ...],
        final: Source | None,
    ) -> bool:
        """Flatten `mapping`; `above` identifies those it lies in. False if it is empty.

        `final` is the source of numbers whose own key was reported before; None for a report.
        """
        items = _items(mapping)
        numbers, known = flat.numbers, source.known
        seen: dict[tuple[str, str], int] = {}
        seen_beside: dict[tuple[str, str], int] = {}
        for key, value in items:
            kind = type(value)
            if kind in _PLAIN and type(key) is str and key in known and final is None:
                numbers[known[key]] = value if kind is float else to_float(value)
                continue
            child = source.child(key, seen, self._redact)
            beside = None if final is None else final.child(key, seen_beside, self._redact)
            what = read(value)
            if isinstance(what, float):
                if beside is not None and self._was_reported(child, flat):
                    child = beside
                if child.undoubled is not None:
                    flat.late.append((child, what))
                    continue
                metric = child.metric or self._name_metric(child, flat)
                if type(key) is str and final is None:
                    known[key] = metric
                numbers[metric] = what
                continue
            if isinstance(what, Mapping):
                inside = (*above, id(what))
                if id(what) in above:
                    what = f"<{type_name(what)}: contains itself>"
                elif child.depth < MAX_DEPTH and self._walk(child, what, flat, inside, beside):
                    continue
                else:
                    what = text_of(what)
            flat.texts[child.tag or self._name_tag(child, flat)] = what
        return bool(items)

    def _was_reported(self, source: Source, flat: Flat) -> bool:
        """Whether the key that `source` has, or would have, had a value before this report."""
        key = source.metric or shortened(source.path)
        return key in self._metric_owners and key not in flat.numbers

    def _name_metric(self, source: Source, flat: Flat) -> str:
        path, owners = source.path, self._metric_owners
        if source.undoubled is not None:
            shorter = shortened(source.undoubled)
            owner = owners.setdefault(shorter, source)  # atomic, as in `claim`
            if owner is source or _is_one_of_evaluation(owner, source):
                path = shorter
        owner = owners.setdefault(shortened(path), source)
        if _is_one_of_evaluation(owner, source):
            key = source.metric = shortened(path)
        else:
            key = source.metric = claim(path, source, owners)
        if key != source.given:
            flat.renamed[key] = tag_value(source.given)
        return key

    def _name_tag(self, source: Source, flat: Flat) -> str:
        def dotted(path: str) -> str:
            return f"{names.ORBITER}.{path.replace('/', '.')}"

        key = source.tag = claim(dotted(source.path), source, self._tag_owners)
        if key != dotted(source.given):
            flat.renamed[key] = tag_value(source.given)
        return key


def _is_one_of_evaluation(one: Source, other: Source) -> bool:
    """Whether two names are one measurement of an evaluation: `loss`, and `eval_loss`.

    Of a training they are two, as Hugging Face's `train_loss`, a mean, is not the `loss`.
    """
    shorter = [source.undoubled or source.path for source in (one, other)]
    is_evaluation = one.root.path.partition("/")[0] == names.EVAL
    return is_evaluation and one.root is other.root and shorter[0] == shorter[1]


# -- reports ---


def _as_mapping(metrics: object) -> Mapping[Any, Any]:
    """A dataclass as a mapping with the same keys; a mapping as it is."""
    if isinstance(metrics, Mapping):
        return metrics
    if not is_dataclass(metrics) or isinstance(metrics, type):
        raise TypeError(f"metrics must be a mapping or a TrainMetrics, not {type_name(metrics)}")
    own, unset = _field_names(type(metrics)), left_at_default(metrics)
    merged: dict[Any, Any] = {name: _field(metrics, name) for name in own if name not in unset}
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
    except Exception:  # one value cannot be read: take the others one by one
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
