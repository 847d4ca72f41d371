"""Split values that are too long for one param or tag: `key:0`, `key:1`, ...; nothing is cut.

All pieces have the same length but the last, which is shorter: the loss of any piece shows.
"""

from collections.abc import Mapping

from orbiter_mlflow import names
from orbiter_mlflow.errors import ConfigError

__all__ = ["join_value", "join_values", "split_value"]


def split_value(key: str, text: str, limit: int) -> dict[str, str]:
    """The text under its key, or its pieces under numbered keys, none longer than `limit`.

    Raises:
        ValueError: no length of the pieces will do; with a limit of 100 or more, one always does.
    """
    if len(text) <= limit:
        return {key: text}
    size = next((size for size in range(limit, 0, -1) if len(text) % size), None)
    if size is None:
        raise ValueError(f"a text of {len(text)} characters cannot be split by a limit of {limit}")
    pieces = (text[start : start + size] for start in range(0, len(text), size))
    return {names.piece_name(key, number): piece for number, piece in enumerate(pieces)}


def join_value(texts: Mapping[str, str], key: str) -> str | None:
    """One value from params or tags, whole or in pieces; None if it is not there.

    Raises:
        ConfigError: pieces of it are missing.
    """
    own = {name: text for name, text in texts.items() if names.piece_of(name)[0] == key}
    return join_values(own).get(key)


def join_values(params: Mapping[str, str]) -> dict[str, str]:
    """The params with each split value as one; the inverse of `split_value`.

    Raises:
        ConfigError: pieces are missing.
    """
    whole: dict[str, str] = {}
    pieces: dict[str, dict[int, str]] = {}
    for key, text in params.items():
        name, number = names.piece_of(key)
        if number is None:
            whole[key] = text
        else:
            pieces.setdefault(name, {})[number] = text
    problems = {}
    for key, numbered in pieces.items():
        parts = [numbered[number] for number in sorted(numbered)]
        if key in whole:
            problems[key] = "is there both whole and in pieces"
        elif not _is_complete(numbered, parts):
            problems[key] = f"pieces are missing; there are {sorted(numbered)}"
        whole[key] = "".join(parts)
    if problems:
        raise ConfigError("the config", problems)
    return whole


def _is_complete(numbered: Mapping[int, str], parts: list[str]) -> bool:
    return (
        len(parts) > 1
        and sorted(numbered) == list(range(len(parts)))
        and len({len(part) for part in parts[:-1]}) == 1
        and 0 < len(parts[-1]) < len(parts[0])
    )
