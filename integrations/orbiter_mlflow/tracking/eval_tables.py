"""The table of an evaluation's examples: validate it, redact it, and write it as MLflow's tables.

A table is refused as a whole where something is wrong with it: one with gaps could hide from the
gate what got worse.
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from orbiter_mlflow.redaction.redactor import Redactor
from orbiter_mlflow.text.shortening import shortened
from orbiter_mlflow.text.suggestions import did_you_mean
from orbiter_mlflow.text.values import text_of

__all__ = ["MAX_BYTES", "MAX_ROWS", "table_content", "table_name"]

MAX_ROWS = 500_000
MAX_BYTES = 64 << 20
"""Limits of a table; the gate reads no larger one."""

_NAME = re.compile(r"\w[\w.\- ]*(?:/\w[\w.\- ]*)*")
_MAX_NAME = 200
_SHOWN = 80
_Column = list[Any]


def table_name(name: object) -> str:
    """The name of a table.

    Raises:
        ValueError: it is no name: letters, digits, `_`, `-`, `.`, spaces, and `/` between parts.
    """
    fits = isinstance(name, str) and len(name) <= _MAX_NAME and not name.endswith(".json")
    if isinstance(name, str) and fits and _NAME.fullmatch(name):
        return name
    raise ValueError(
        f"the table's name {_words(name)} cannot be used: write up to {_MAX_NAME} letters, digits, "
        "`_`, `-`, `.` or spaces, `/` between parts, and no `.json` at the end"
    )


def table_content(rows: object, *, id_column: object, redactor: Redactor) -> bytes:
    """The content of a table in the format of `mlflow.log_table`: JSON with `columns` and `data`.

    Args:
        rows: as `MLflowTrainerMixin.log_eval_table` says.
        id_column: the column that names the examples.
        redactor: takes the secrets out of texts.

    Raises:
        ValueError: it cannot be used; the message names the row, the column and the value.
    """
    columns = _columns(rows)
    ids = columns.get(id_column) if isinstance(id_column, str) else None
    if ids is None:
        near = did_you_mean(str(id_column), {one: repr(one) for one in columns})
        known = ", ".join(map(repr, [*columns][:10])) or "none"
        raise ValueError(
            f"there is no column {_words(id_column)} for the ids{near or f'; there are {known}'}: "
            "name it with id="
        )
    if not ids:
        raise ValueError("the table has no rows")
    if len(ids) > MAX_ROWS:
        raise ValueError(f"the table has {len(ids)} rows, more than {MAX_ROWS}: log a part of it")
    cleaned = {
        redactor.text(_cell(name, 0, name)): [_cell(one, at, name) for at, one in enumerate(column)]
        for name, column in columns.items()
    }
    if len(cleaned) < len(columns):
        raise ValueError("two columns have the same name once secrets are taken out of it")
    data = []
    for name, column in zip(columns, cleaned.values(), strict=True):
        clean = _cleaner(redactor, None if name == id_column else name)
        data.append([clean(one) if isinstance(one, str) else one for one in column])
    _require_unique(data[[*columns].index(str(id_column))], str(id_column))
    table = {"columns": [*cleaned], "data": [*zip(*data, strict=True)]}
    content = json.dumps(table, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    encoded = content.encode()
    if len(encoded) > MAX_BYTES:
        raise ValueError(
            f"the table has {len(encoded)} bytes, more than {MAX_BYTES}: leave out columns "
            "such as the outputs"
        )
    return encoded


def _columns(rows: Any) -> dict[str, _Column]:
    """The columns, of equal length."""
    if hasattr(rows, "to_dict") and hasattr(rows, "columns"):  # a DataFrame of pandas
        rows = rows.to_dict("list")
    if isinstance(rows, Mapping):
        columns = {name: [*column] for name, column in rows.items() if _is_list(column, name)}
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the columns differ in length: {shortened(str(lengths), _SHOWN)}")
    elif isinstance(rows, Sequence) and not isinstance(rows, str | bytes):
        for at, row in enumerate(rows):
            if not isinstance(row, Mapping):
                raise ValueError(
                    f"row {at + 1} is {_words(row)}: each row is a mapping from columns to values"
                )
        names = dict.fromkeys(name for row in rows for name in row)
        columns = {name: [row.get(name) for row in rows] for name in names}
    else:
        raise ValueError(
            f"the rows are {_words(rows)}: give a list of mappings, a mapping from columns to "
            "lists, or a DataFrame of pandas"
        )
    for name in columns:
        if not isinstance(name, str) or not name:
            raise ValueError(f"{_words(name)} is no name of a column: a name is a text")
    return columns


def _is_list(column: object, name: object) -> bool:
    iterable = hasattr(column, "__len__") and hasattr(column, "__iter__")
    if iterable and not isinstance(column, str | bytes | Mapping):
        return True
    raise ValueError(f"the column {_words(name)} is {_words(column)}, not a list")


def _cell(value: Any, at: int, column: str) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):  # lone surrogates stop some readers of JSON
        return str(value).encode("utf-8", "backslashreplace").decode()
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # a scalar of numpy or torch
        return _cell(value.item(), at, column)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    what = (
        "a number must be finite"
        if isinstance(value, float)
        else ("a value is a text, a number, a bool or None: make a text of it")
    )
    raise ValueError(f"row {at + 1} has {_words(value)} in the column {column!r}: {what}")


def _cleaner(redactor: Redactor, key: str | None) -> Callable[[str], str]:
    """Takes secrets out of the texts of a column, of equal ones once."""
    known: dict[str, str] = {}

    def clean(text: str) -> str:
        found = known.get(text)
        if found is None:
            found = redactor.text(text) if key is None else redactor.value(key, text)
            if len(known) < _REMEMBERED:
                known[text] = found
        return found

    return clean


_REMEMBERED = 10_000


def _require_unique(ids: Sequence[Any], column: str) -> None:
    seen: dict[str, int] = {}
    for at, value in enumerate(ids):
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # pandas makes floats of integers
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            raise ValueError(
                f"row {at + 1} has {_words(value)} in the column {column!r}: an id is a text or an "
                "integer"
            )
        first = seen.setdefault(str(value), at)
        if first != at:
            raise ValueError(
                f"rows {first + 1} and {at + 1} have the same {column!r}, {_words(value)}: give "
                "each example an id of its own"
            )


def _words(value: object) -> str:
    return shortened(repr(value) if isinstance(value, str) else text_of(value), _SHOWN)
