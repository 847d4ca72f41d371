"""Keys of runs on servers that refuse `:` in a key, those before MLflow 2.16.

There U+02D0 stands for `:`, a letter that looks like it, so each server takes it; `:2d0:` stands
for U+02D0 itself. A key keeps its length. A tag marks such a run: others have their keys as they
are.
"""

from collections.abc import Iterable, Mapping
from typing import TypeVar

from orbiter_mlflow import names

__all__ = ["STAND_IN", "concerns", "is_marked", "original", "restored", "without_colons"]

STAND_IN = "\u02d0"
_ITSELF = f":{ord(STAND_IN):x}:"

T = TypeVar("T")


def concerns(keys: Iterable[str]) -> bool:
    """Whether any of these keys changes where a server refuses `:`."""
    return any(":" in key or STAND_IN in key for key in keys)


def without_colons(key: str) -> str:
    """The key as such a server takes it; `original` is the inverse."""
    return key.replace(STAND_IN, _ITSELF).replace(":", STAND_IN)


def original(key: str) -> str:
    """The key that `without_colons` was given."""
    return key.replace(STAND_IN, ":").replace(_ITSELF, STAND_IN)


def is_marked(tags: Mapping[str, str]) -> bool:
    """Whether the tags are those of a run whose keys have no colons."""
    return names.COLONS in tags


def restored(values: Mapping[str, T], tags: Mapping[str, str]) -> dict[str, T]:
    """Values of a run by their own keys.

    Args:
        values: its params, metrics or tags, by the keys in the store.
        tags: all its tags.
    """
    if not is_marked(tags):
        return dict(values)
    return {original(key): value for key, value in values.items()}
