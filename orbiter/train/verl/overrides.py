"""`extra["verl"]`: verl's own settings by name, of which unknown ones are refused."""

from collections.abc import Iterator, Mapping
from difflib import SequenceMatcher
from typing import Any

from orbiter.train.states import TrainerError


def overrides_of(extra: Mapping[str, Any]) -> dict[str, Any]:
    """The overrides in `extra`, by dotted names.

    Raises:
        TrainerError: for what is no mapping by text, or has one setting twice.
    """
    given = extra.get("verl", {})
    if not isinstance(given, Mapping):
        raise TrainerError(
            f"extra['verl'] is a {type(given).__name__}: expected a mapping of verl's settings"
        )
    flat: dict[str, Any] = {}
    for name, value in leaves(given):
        if name in flat:
            raise TrainerError(f"extra['verl'] has {name!r} twice: remove one")
        flat[name] = value
    return flat


def leaves(tree: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each leaf of nested mappings with its dotted name; an empty mapping is a leaf."""
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{name}.")
        else:
            yield name, value


def require_setting(known: Mapping[str, Any], name: str) -> None:
    """Require a setting that verl has; below an empty one, null or {}, any name is one.

    Args:
        known: all of verl's settings, nested.
        name: a dotted name.

    Raises:
        TrainerError: naming the nearest setting.
    """
    node: Any = known
    path: list[str] = []
    for part in name.split("."):
        if node is None or node == {}:
            return
        if not isinstance(node, Mapping):
            raise TrainerError(
                f"extra['verl'] has {name!r}, but {'.'.join(path)!r} is a single setting of verl "
                f"({node!r})"
            )
        if part not in node:
            raise TrainerError(
                f"extra['verl'] has {name!r}, which is no setting of verl: "
                f"did you mean {_nearest(name, known)!r}?"
            )
        path.append(part)
        node = node[part]
    if isinstance(node, Mapping) and node:
        raise TrainerError(
            f"extra['verl'] sets {name!r}, a group of settings of verl: "
            f"set one of {', '.join(map(repr, node))}"
        )


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    """The most similar name; of names that end alike, rather than of others."""
    last = name.rpartition(".")[2]

    def likeness(other: str) -> tuple[float, float]:
        end = SequenceMatcher(None, last, other.rpartition(".")[2]).ratio()
        return end, SequenceMatcher(None, name, other).ratio()

    return max((other for other, _ in leaves(known)), key=likeness)
