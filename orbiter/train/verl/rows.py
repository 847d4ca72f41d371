"""The data of a training as the parquet files that verl reads."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orbiter.train.states import TrainerError
from orbiter.train.verl.config import VeRLAlgorithm

if TYPE_CHECKING:
    from pyarrow import Table

_SFT_COLUMNS = ("tools", "enable_thinking", "images", "videos")
_RL_COLUMNS = ("agent_name", "ability", "images", "videos", "audios")
"""Columns of verl that rows may have besides."""

_OWN_SOURCE = "orbiter"


def table_of(name: str, rows: Sequence[Mapping[str, Any]]) -> "Table":
    """Rows as a table that parquet can hold.

    Args:
        name: of the data, for messages.
        rows: not empty.

    Raises:
        TrainerError: naming the first column that parquet cannot hold.
    """
    import pyarrow
    import pyarrow.parquet

    columns = {}
    for column in dict.fromkeys(key for row in rows for key in row):
        values = [row.get(column) for row in rows]
        try:
            columns[column] = pyarrow.array(values)
            empty = pyarrow.table({column: columns[column][:0]})
            pyarrow.parquet.write_table(empty, pyarrow.BufferOutputStream())
        except (pyarrow.ArrowException, OverflowError, TypeError, ValueError) as error:
            raise TrainerError(
                f"{name} cannot be written as parquet: column {column!r} has values that parquet "
                f"cannot hold, such as values of different types or an empty dict: {error}"
            ) from error
    return pyarrow.table(columns)


def write_parquet(path: Path, table: "Table") -> None:
    """Write a table as one file."""
    import pyarrow.parquet

    pyarrow.parquet.write_table(table, path)


def verl_rows(
    algorithm: VeRLAlgorithm, name: str, rows: Sequence[Mapping[str, Any]], *, rewarded: bool
) -> list[dict[str, Any]]:
    """Rows with the columns that verl's datasets read.

    For `sft`, `messages` are those of the row, or `input` and `output` as user and assistant. For
    `ppo` and `grpo`, `prompt` is `input`, `output` is the ground truth, and the other values are in
    `extra_info`.

    Args:
        algorithm: of the training.
        name: of the data, for messages.
        rows: as `check_dataset` has accepted them.
        rewarded: whether there is a reward function; else each row needs a `data_source` for which
            verl has a reward of its own.

    Raises:
        TrainerError: naming the first row that lacks something.
    """
    if algorithm is VeRLAlgorithm.SFT:
        columns = [column for column in _SFT_COLUMNS if any(column in row for row in rows)]
        return [
            {"messages": _conversation(name, index, row)}
            | {column: row.get(column) for column in columns}
            for index, row in enumerate(rows)
        ]
    columns = [column for column in _RL_COLUMNS if any(column in row for row in rows)]
    found = []
    for index, row in enumerate(rows):
        if not rewarded and "data_source" not in row:
            raise TrainerError(
                f"{name}[{index}] has no 'data_source', by which verl finds a reward of its own: "
                "add it, or give check_reward a function"
            )
        found.append(_episode(name, index, row) | {column: row.get(column) for column in columns})
    return found


def _conversation(name: str, index: int, row: Mapping[str, Any]) -> list[dict[str, Any]]:
    if "messages" in row:
        return _messages(name, index, "messages", row["messages"])
    if not isinstance(row.get("output"), str):
        raise TrainerError(
            f"{name}[{index}] has no answer to learn: expected 'output', a text, or 'messages'"
        )
    answer = {"role": "assistant", "content": row["output"]}
    return [*_messages(name, index, "input", row["input"]), answer]


def _episode(name: str, index: int, row: Mapping[str, Any]) -> dict[str, Any]:
    used = {"input", "output", "data_source", "reward_model", *_RL_COLUMNS}
    rest = {key: value for key, value in row.items() if key not in used}
    rule = {"style": "rule", "ground_truth": row.get("output")}
    return {
        "data_source": row.get("data_source", _OWN_SOURCE),
        "prompt": _messages(name, index, "input", row["input"]),
        "reward_model": row.get("reward_model", rule),
        "extra_info": {"index": index, **rest},
    }


def _messages(name: str, index: int, key: str, value: Any) -> list[dict[str, Any]]:
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    is_chat = isinstance(value, list | tuple) and all(
        isinstance(message, Mapping) and {"role", "content"} <= message.keys() for message in value
    )
    if not value or not is_chat:
        raise TrainerError(
            f"{name}[{index}] has {key}={value!r}: expected a text, or messages with 'role' and "
            "'content'"
        )
    return [dict(message) for message in value]
