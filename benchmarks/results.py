"""The result of a benchmark: rows, and figures compared with their targets."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """One column: the key in the rows, the heading, and the format of its numbers."""

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
        """Whether the target is met; NaN never meets it."""
        return self.figure <= self.target if self.sense == "<=" else self.figure >= self.target


@dataclass(frozen=True)
class Result:
    """One table.

    Attributes:
        name: as given to `--only`.
        title: the heading of the table.
        note: how the figures were measured.
        columns: in the order shown.
        rows: mappings by the columns' keys.
        checks: the targets of this table.
        raw: the single measurements behind the rows.
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
