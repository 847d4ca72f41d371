"""The order of dicts whose items have params of their own; a store sorts params.

One param, `order-of-keys`, has the order of each dict that is not sorted: its path -> its keys. A
dict that is not in it is sorted by its keys, as is each one that an earlier version has logged.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from orbiter_mlflow import names
from orbiter_mlflow.config.codec.json_text import Json, parse
from orbiter_mlflow.errors import UnreadableError

__all__ = ["Order", "different_orders", "in_order", "is_sorted", "read_order"]

T = TypeVar("T")

Order = Mapping[str, list[str]]


def is_sorted(keys: Iterable[str]) -> bool:
    """Whether this is the order that needs no telling."""
    listed = list(keys)
    return listed == sorted(listed)


def read_order(text: str | None) -> Order:
    """The orders of a param's text; none where there is no such param.

    Raises:
        UnreadableError: the text is no object of lists of keys.
    """
    if text is None:
        return {}
    found: Json = parse(text)
    if type(found) is not dict or not all(
        type(keys) is list and all(type(key) is str for key in keys) for keys in found.values()
    ):
        raise UnreadableError("is not the order of keys that it was")
    return found


def in_order(items: Mapping[Any, T], keys: Iterable[str] | None) -> dict[Any, T]:
    """The items in the order of these keys; those that are not among them follow, sorted."""
    if not all(type(key) is str for key in items):
        return dict(items)  # as an earlier version wrote them
    known = [key for key in dict.fromkeys(keys or ()) if key in items]
    rest = sorted(items.keys() - set(known)) if len(known) < len(items) else []
    return {key: items[key] for key in (*known, *rest)}


def different_orders(columns: Sequence[Mapping[str, str]]) -> dict[str, list[list[str] | None]]:
    """The dicts whose keys the runs have in different orders, as far as they have them in common.

    Args:
        columns: the params of each run, joined.

    Returns:
        Path -> the keys that all have, in the order of each run; None where a run has no such dict.
    """
    orders = [_readable(column.get(names.KEY_ORDER)) for column in columns]
    found = {}
    for path in dict.fromkeys(path for order in orders for path in order):
        pairs = zip(columns, orders, strict=True)
        keys = [order.get(path) or _sorted_keys(column, path) for column, order in pairs]
        common = set.intersection(*(set(listed) for listed in keys if listed))
        shown = [[k for k in listed if k in common] if listed else None for listed in keys]
        if len({tuple(listed) for listed in shown if listed is not None}) > 1:
            found[path] = shown
    return found


def _readable(text: str | None) -> Order:
    try:
        return read_order(text)
    except (UnreadableError, RecursionError):
        return {}


def _sorted_keys(params: Mapping[str, str], path: str) -> list[str]:
    start = f"{path}."
    return sorted({key[len(start) :].partition(".")[0] for key in params if key.startswith(start)})
