"""Parse a table of examples: an id, a score and slices for each, as `mlflow.log_table` writes it.

Pure, and strict: a score that is missing or no number, or an id that occurs twice, refuses the
table, as a gap in it could hide what got worse.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from orbiter_mlflow.errors import CannotCompareError
from orbiter_mlflow.gate.statistics import MAX_VALUE
from orbiter_mlflow.text.shortening import shortened
from orbiter_mlflow.text.suggestions import did_you_mean

__all__ = ["MAX_BYTES", "MAX_ROWS", "ExampleTable", "parse_table"]

Array: TypeAlias = Any
"""A numpy array of floats."""

MAX_ROWS = 500_000
MAX_BYTES = 64 << 20
"""Limits of a table that is read: parsing one of this size takes some seconds and 2 GB."""

_NO_LABEL = "(none)"
"""The label of an example whose slice is null."""
_SHOWN = 80


@dataclass(frozen=True, slots=True)
class ExampleTable:
    """The examples that one run was evaluated on.

    Attributes:
        ids: one for each example, each once.
        scores: in the order of `ids`.
        labels: column of a slice -> one label for each example; a column that the table lacks is
            left out.
        digest: SHA-256, in hex, of the table's content.
    """

    ids: tuple[str, ...]
    scores: Array
    labels: dict[str, tuple[str, ...]] = field(default_factory=dict)
    digest: str = ""

    @property
    def binary(self) -> bool:
        """Whether each score is 0 or 1."""
        return bool(((self.scores == 0) | (self.scores == 1)).all())


def parse_table(
    content: bytes, *, id_column: str, score: str, slices: Sequence[str]
) -> ExampleTable:
    """Parse the content of a table: `{"columns": [...], "data": [[...], ...]}`.

    Args:
        id_column: the column that names the examples: texts or integers.
        score: the column with the scores: booleans or finite numbers.
        slices: columns whose values part the examples into slices.

    Raises:
        CannotCompareError: it is not such a table, or too large; the message names the row, the
            column and the value.
    """
    import numpy as np

    columns, rows = _content(content)
    place = {name: at for at, name in enumerate(columns)}
    for name in (id_column, score):
        if name not in place:
            near = did_you_mean(name, {one: repr(one) for one in columns})
            known = ", ".join(map(repr, columns[:10])) or "none"
            raise CannotCompareError(
                f"has no column {name!r}{near or f'; its columns are {known}'}"
            )
    ids = _ids([row[place[id_column]] for row in rows], id_column)
    given = [row[place[score]] for row in rows]
    for at, value in enumerate(given):
        if type(value) not in (bool, int, float) or not -MAX_VALUE <= value <= MAX_VALUE:
            raise CannotCompareError(
                f"has {_words(value)} as {score!r} in row {at + 1} (example {_words(ids[at])}): "
                "a score is true, false or a finite number"
            )
    return ExampleTable(
        ids=tuple(ids),
        scores=np.array(given, float),
        labels={
            name: tuple(_label(row[place[name]]) for row in rows)
            for name in slices
            if name in place
        },
        digest=hashlib.sha256(content).hexdigest(),
    )


def _content(content: bytes) -> tuple[list[str], list[list[Any]]]:
    if len(content) > MAX_BYTES:
        raise CannotCompareError(f"has {len(content)} bytes, more than {MAX_BYTES}")
    try:
        table = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CannotCompareError(f"is not JSON: {shortened(str(error), _SHOWN)}") from error
    columns = table.get("columns") if isinstance(table, dict) else None
    rows = table.get("data") if isinstance(table, dict) else None
    if (
        not isinstance(columns, list)
        or not isinstance(rows, list)
        or not all(isinstance(one, str) for one in columns)
        or len(set(columns)) < len(columns)
        or not all(isinstance(row, list) and len(row) == len(columns) for row in rows)
    ):
        raise CannotCompareError(
            "is not a table with `columns` and `data`: write it with trainer.log_eval_table or "
            "mlflow.log_table"
        )
    if not rows:
        raise CannotCompareError("has no rows")
    if len(rows) > MAX_ROWS:
        raise CannotCompareError(f"has {len(rows)} rows, more than {MAX_ROWS}")
    return columns, rows


def _ids(values: Sequence[Any], column: str) -> list[str]:
    ids: dict[str, int] = {}
    for at, value in enumerate(values):
        # pandas makes floats of integers in a column with gaps
        whole = isinstance(value, float) and value.is_integer() and abs(value) < 1e15
        if not whole and (type(value) not in (str, int) or value == ""):
            raise CannotCompareError(
                f"has {_words(value)} as {column!r} in row {at + 1}: an id is a text or an integer"
            )
        text = str(int(value)) if whole else str(value)
        first = ids.setdefault(text, at)
        if first != at:
            raise CannotCompareError(
                f"has the {column!r} {_words(value)} in row {first + 1} and in row {at + 1}: each "
                "example must occur once (mlflow.log_table appends to a table that is there)"
            )
    return list(ids)


def _label(value: Any) -> str:
    return value if isinstance(value, str) else _NO_LABEL if value is None else _words(value)


def _words(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "infinity"
    return shortened(json.dumps(value, ensure_ascii=False), _SHOWN)
