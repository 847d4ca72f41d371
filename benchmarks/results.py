"""What a benchmark gives back: rows, and figures held against their targets."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """One column: the key in the rows, the heading, and how a number is written."""

    key: str
    heading: str
    format: str = ""


@dataclass(frozen=True)
class Check:
    """A figure and its target."""

    name: str
    figure: float
    sense: Literal["<=", ">="]
    target: float
    unit: str = ""

    @property
    def met(self) -> bool:
        """A figure that is no number has met nothing."""
        return self.figure <= self.target if self.sense == "<=" else self.figure >= self.target


@dataclass(frozen=True)
class Result:
    """One table.

    Attributes:
        name: as given to `--only`.
        title: what the table shows.
        note: what was done, so that the figures can be judged.
        columns: in the order they are shown.
        rows: a mapping each, by the columns' keys.
        checks: the targets of this table.
        raw: all single measurements that the rows were made of.
    """

    name: str
    title: str
    note: str
    columns: tuple[Column, ...]
    rows: list[Row]
    checks: list[Check] = field(default_factory=list)
    raw: list[Row] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        checks = [asdict(check) | {"met": check.met} for check in self.checks]
        return {
            "title": self.title,
            "note": self.note,
            "columns": {column.key: column.heading for column in self.columns},
            "rows": [dict(row) for row in self.rows],
            "checks": checks,
            "raw": [dict(row) for row in self.raw],
        }
