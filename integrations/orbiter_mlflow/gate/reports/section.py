"""`Section`: a part of a report in a form that each format renders."""

from dataclasses import dataclass

__all__ = ["Section"]


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a report: lines, a table, or both.

    Attributes:
        columns: the heads of the table; the first column holds names.
        rows: one text for each column.
        folded: whether it is a detail, which Markdown folds away.
    """

    title: str
    lines: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    folded: bool = False
