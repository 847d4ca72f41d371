"""Parse tables of examples: an id, a score and slices for each, as `mlflow.log_table` writes them.

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

__all__ = ["MAX_BYTES", "MAX_ROWS", "ExampleTable", "parse_rollouts", "parse_table"]

Array: TypeAlias = Any
"""A numpy array of floats."""

MAX_ROWS = 500_000
MAX_BYTES = 64 << 20
"""Limits of a table that is read: parsing one of this size takes some seconds and 2 GB."""

_NO_LABEL = "(none)"
"""The label of an example whose slice is null."""
_SHOWN = 80
_BEGINNING = 60


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

    place, rows = _columns(content, id_column, score)
    ids = _ids([row[place[id_column]] for row in rows], id_column)
    scores = [
        _score(row[place[score]], score, at, example)
        for at, (row, example) in enumerate(zip(rows, ids, strict=True))
    ]
    return ExampleTable(
        ids=tuple(ids),
        scores=np.array(scores, float),
        labels={
            name: tuple(_label(row[place[name]]) for row in rows)
            for name in slices
            if name in place
        },
        digest=hashlib.sha256(content).hexdigest(),
    )


def parse_rollouts(
    contents: Sequence[bytes], *, id_column: str, score: str, slices: Sequence[str]
) -> ExampleTable:
    """Parse the tables of the rollouts of one evaluation, several to an example.

    The score of an example is the mean over its rollouts, its slices are those of the first.

    Args:
        contents: at least one table.
        id_column, score, slices: as for `parse_table`; an id that is a long text, such as a prompt,
            is shortened.

    Raises:
        CannotCompareError: as `parse_table` does.
    """
    import numpy as np

    scores: dict[str, list[float]] = {}
    labels: dict[str, dict[str, str]] = {name: {} for name in slices}
    for content in contents:
        place, rows = _columns(content, id_column, score)
        for at, row in enumerate(rows):
            example = _brief(_id(row[place[id_column]], id_column, at))
            scores.setdefault(example, []).append(_score(row[place[score]], score, at, example))
            for name in slices:
                label = _label(row[place[name]] if name in place else None)
                labels[name].setdefault(example, label)
    return ExampleTable(
        ids=tuple(scores),
        scores=np.array([math.fsum(one) / len(one) for one in scores.values()], float),
        labels={name: tuple(found[one] for one in scores) for name, found in labels.items()},
        digest=hashlib.sha256(b"".join(contents)).hexdigest(),
    )


def _columns(content: bytes, id_column: str, score: str) -> tuple[dict[str, int], list[list[Any]]]:
    """The places of the columns, and the rows."""
    columns, rows = _content(content)
    place = {name: at for at, name in enumerate(columns)}
    for name in (id_column, score):
        if name not in place:
            near = did_you_mean(name, {one: repr(one) for one in columns})
            known = ", ".join(map(repr, columns[:10])) or "none"
            raise CannotCompareError(
                f"has no column {name!r}{near or f'; its columns are {known}'}"
            )
    return place, rows


def _score(value: Any, column: str, at: int, example: str) -> float:
    if type(value) in (bool, int, float) and -MAX_VALUE <= value <= MAX_VALUE:
        return float(value)
    raise CannotCompareError(
        f"has {_words(value)} as {column!r} in row {at + 1} (example {_words(example)}): "
        "a score is true, false or a finite number"
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
        first = ids.setdefault(_id(value, column, at), at)
        if first != at:
            raise CannotCompareError(
                f"has the {column!r} {_words(value)} in row {first + 1} and in row {at + 1}: each "
                "example must occur once (mlflow.log_table appends to a table that is there)"
            )
    return list(ids)


def _id(value: Any, column: str, at: int) -> str:
    # pandas makes floats of integers in a column with gaps
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 1e15
    if not whole and (type(value) not in (str, int) or value == ""):
        raise CannotCompareError(
            f"has {_words(value)} as {column!r} in row {at + 1}: an id is a text or an integer"
        )
    return str(int(value)) if whole else str(value)


def _brief(text: str) -> str:
    """The text in one line; a long one by its beginning and a digest."""
    line = " ".join(text.split())
    if line == text and len(text) <= _SHOWN:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:8]
    return f"{line[:_BEGINNING]}... #{digest}"


def _label(value: Any) -> str:
    return value if isinstance(value, str) else _NO_LABEL if value is None else _words(value)


def _words(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "infinity"
    return shortened(json.dumps(value, ensure_ascii=False), _SHOWN)
