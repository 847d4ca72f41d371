"""The params of a config as a tree by the parts of their paths, and the order of its keys.

A store sorts params, so the order of dicts whose items have params of their own would be lost: the
param `order-of-keys` holds the keys of each dict that is not sorted, by its path. A dict that is
not in it is sorted, as is every one that version 1 logged.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from orbiter_mlflow import names
from orbiter_mlflow.config.codec.json_text import Json, is_json, parse
from orbiter_mlflow.config.codec.markers import REDACTED
from orbiter_mlflow.errors import UnreadableError

__all__ = ["NO_OBJECT", "Node", "Order", "different_orders", "in_order", "is_sorted", "read_order"]
__all__ += ["tree"]

T = TypeVar("T")

Order = Mapping[str, list[str]]
"""Path of a dict -> its keys in their order."""

NO_OBJECT = "has params below it, but is no object itself"
"""The problem of a param that cannot be the parent of others."""
_SECRET = f'{{"{REDACTED}"'
"""The beginning of a param that is a secret as a whole."""


@dataclass(slots=True)
class Node:
    """A param and those below it."""

    text: str | None = None
    children: dict[str, "Node"] = field(default_factory=dict)

    @property
    def is_secret(self) -> bool:
        """Whether all of it was redacted."""
        return self.text is not None and self.text.startswith(_SECRET) and is_json(self.text)


def tree(params: Iterable[tuple[Iterable[str], str]]) -> Node:
    """The params, given by the parts of their paths, as one tree."""
    root = Node()
    for path, text in params:
        node = root
        for part in path:
            child = node.children.get(part)
            if child is None:
                child = node.children[part] = Node()
            node = child
        node.text = text
    return root


def is_sorted(keys: Iterable[str]) -> bool:
    """Whether the keys are in the order that is not written."""
    listed = list(keys)
    return listed == sorted(listed)


def read_order(text: str | None) -> Order:
    """The orders in a param's text; none if there is no such param.

    Raises:
        UnreadableError: the text is not an object of lists of keys.
    """
    if text is None:
        return {}
    found: Json = parse(text)
    if type(found) is not dict or not all(
        type(keys) is list and all(type(key) is str for key in keys) for keys in found.values()
    ):
        raise UnreadableError("is not an order of keys")
    return found


def in_order(items: Mapping[Any, T], keys: Iterable[str] | None) -> dict[Any, T]:
    """The items in the order of these keys; those that are not among them follow, sorted."""
    if not all(type(key) is str for key in items):
        return dict(items)  # written by an earlier version
    known = [key for key in dict.fromkeys(keys or ()) if key in items]
    rest = sorted(items.keys() - set(known)) if len(known) < len(items) else []
    return {key: items[key] for key in (*known, *rest)}


def different_orders(columns: Sequence[Mapping[str, str]]) -> dict[str, list[list[str] | None]]:
    """The dicts whose common keys the runs have in different orders.

    Args:
        columns: the joined params of each run.

    Returns:
        Path -> the common keys, in the order of each run; None where a run has no such dict.
    """
    orders = [_order_or_none(column.get(names.KEY_ORDER)) for column in columns]
    found = {}
    for path in dict.fromkeys(path for order in orders for path in order):
        pairs = zip(columns, orders, strict=True)
        keys = [order.get(path) or _sorted_keys(column, path) for column, order in pairs]
        common = set.intersection(*(set(listed) for listed in keys if listed))
        shown = [[k for k in listed if k in common] if listed else None for listed in keys]
        if len({tuple(listed) for listed in shown if listed is not None}) > 1:
            found[path] = shown
    return found


def _order_or_none(text: str | None) -> Order:
    try:
        return read_order(text)
    except (UnreadableError, RecursionError):
        return {}


def _sorted_keys(params: Mapping[str, str], path: str) -> list[str]:
    start = f"{path}."
    return sorted({key[len(start) :].partition(".")[0] for key in params if key.startswith(start)})
