"""Find the values with a marker in the JSON of a param, each by the path that users give.

`clients[1].api_key` is in the second item of the list `clients`; `by_rank[0]` is under the key 0,
which is no string.
"""

from collections.abc import Callable

from orbiter_mlflow.config.codec.json_text import Json, canonical
from orbiter_mlflow.config.codec.kinds import KINDS
from orbiter_mlflow.config.codec.markers import DICT, REDACTED, TEXT, holds, is_marker

__all__ = ["replace_values", "values_of"]


def values_of(own: Json, path: str, marker: str) -> list[tuple[str, Json]]:
    """Path and JSON of each value with that marker in the JSON of a param."""
    found: list[tuple[str, Json]] = []
    replace_values(own, path, marker, lambda place, value: found.append((place, value)))
    return found


def replace_values(
    value: Json, path: str, marker: str, supply: Callable[[str, Json], Json]
) -> Json:
    """The JSON with `supply(path, value)` in place of each value with that marker."""
    if type(value) is list:
        return [replace_values(x, f"{path}[{i}]", marker, supply) for i, x in enumerate(value)]
    if type(value) is not dict:
        return value
    if TEXT in value or REDACTED in value:
        return supply(path, value) if marker in value else value
    if any(_is_one_value(key) and holds(payload, marker) for key, payload in value.items()):
        return supply(path, value)
    if DICT in value:
        if any(holds(key, marker) for key, _ in value[DICT]):
            return supply(path, value)
        pairs = ((key, item, _under(path, key)) for key, item in value[DICT])
        return {DICT: [[k, replace_values(x, at, marker, supply)] for k, x, at in pairs]}
    return {
        key: replace_values(item, path if is_marker(key) else f"{path}.{key}", marker, supply)
        for key, item in value.items()
    }


def _is_one_value(marker: str) -> bool:
    """Whether a value in the payload cannot be supplied alone."""
    return marker in KINDS and not KINDS[marker].collection


def _under(path: str, key: Json) -> str:
    return f"{path}.{key}" if type(key) is str else f"{path}[{canonical(key)}]"
