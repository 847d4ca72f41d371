"""The data of a TRL training: check their format, make a `datasets.Dataset` of them."""

from collections.abc import Iterable, Mapping, Sequence
from reprlib import repr as shortened
from typing import Any

from orbiter.train.states import TrainerError
from orbiter.train.trl.config import Method

__all__ = ["as_dataset", "first_row", "require_rows"]

_FORMATS: Mapping[Method, tuple[tuple[str, ...], ...]] = {
    "sft": (("messages",), ("prompt", "completion"), ("text",), ("input_ids",)),
    "dpo": (("chosen", "rejected"),),
    "grpo": (("prompt",),),
    "reward": (("chosen", "rejected"),),
}
"""The columns of which a row has those of one group. A further `prompt` may stand before
`chosen`; other columns reach the reward functions."""
_TEXTS = ("text", "prompt", "completion", "chosen", "rejected", "messages")


def require_rows(name: str, data: Any, method: Method, text_column: str = "text") -> None:
    """Require data in a format of TRL's for the method.

    Rows of a list are all looked at. Of a dataset these are its columns, and its first row if it
    can be had without consuming anything.

    Args:
        name: what the data are called in messages.
        data: a list of dicts, or a dataset of Hugging Face.
        method: the method of the training.
        text_column: the column that plain text stands in, for sft.

    Raises:
        TrainerError: naming the first bad row.
    """
    if isinstance(data, list | tuple):
        _require_list(name, data, method, text_column)
    elif hasattr(data, "column_names"):
        columns = data.column_names
        if isinstance(columns, Mapping):
            raise TrainerError(
                f"{name} is a {type(data).__name__} with the splits {', '.join(columns)}: give one"
            )
        if columns is not None:
            _require_columns(name, columns, method, text_column)
        if hasattr(data, "__len__"):
            if len(data) == 0:
                raise TrainerError(f"{name} is empty: expected at least one row")
            _require_values(f"{name} row 0", data[0], {}, text_column)
    else:
        raise TrainerError(
            f"{name}={shortened(data)} ({type(data).__name__}): expected a list of dicts or a "
            "datasets.Dataset"
        )


def _require_list(name: str, data: Sequence[Any], method: Method, text_column: str) -> None:
    if not data:
        raise TrainerError(f"{name} is empty: expected at least one row")
    kinds: dict[str, str] = {}
    for number, row in enumerate(data):
        where = f"{name} row {number}"
        if not isinstance(row, Mapping):
            raise TrainerError(
                f"{where} is {shortened(row)} ({type(row).__name__}): expected a dict"
            )
        _require_columns(where, row, method, text_column)
        if row.keys() != data[0].keys():  # `Dataset.from_list` would drop what the first one lacks
            other = ", ".join(sorted(map(repr, row.keys() ^ data[0].keys())))
            raise TrainerError(
                f"{where} has other columns than row 0: {other}; expected the same in each row"
            )
        _require_values(where, row, kinds, text_column)


def _require_columns(where: str, columns: Iterable[str], method: Method, text_column: str) -> None:
    found = set(columns)
    formats = [
        tuple(text_column if one == "text" else one for one in group) for group in _FORMATS[method]
    ]
    if not any(found.issuperset(group) for group in formats):
        expected = ", or ".join(" and ".join(map(repr, group)) for group in formats)
        has = ", ".join(map(repr, sorted(map(str, found)))) or "nothing"
        raise TrainerError(f"{where} has {has}: {method} needs {expected}")


def _require_values(
    where: str, row: Mapping[str, Any], kinds: dict[str, str], text_column: str
) -> None:
    for column in (*_TEXTS, text_column):
        if column not in row:
            continue
        kind, value = _kind(row[column]), row[column]
        allowed = ("messages",) if column == "messages" else ("text", "messages")
        if kind not in allowed:
            raise TrainerError(
                f"{where}: {column}={shortened(value)}: expected "
                + ("" if column == "messages" else "text, or ")
                + "a list of messages such as {'role': 'user', 'content': 'Hello'}"
            )
        if kinds.setdefault(column, kind) != kind:
            raise TrainerError(f"{where}: {column} is {kind}, and in row 0 {kinds[column]}")


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "text"
    if isinstance(value, list | tuple) and value and all(map(_is_message, value)):
        return "messages"
    return "neither"


def _is_message(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("role"), str)


def first_row(data: Any) -> Mapping[str, Any] | None:
    """The first row, if it can be had without consuming anything."""
    if data is None or not hasattr(data, "__len__") or len(data) == 0:
        return None
    row: Mapping[str, Any] = data[0]
    return row


def as_dataset(data: Any) -> Any:
    """A dataset of Hugging Face with these rows."""
    if not isinstance(data, list | tuple):
        return data
    from datasets import Dataset

    return Dataset.from_list([dict(row) for row in data])
