"""The page on statistics: its figures are those that the benchmark holds the gate's tests to."""

import pytest

from benchmarks.gate_figures import TABLES, Table
from pages import ROOT

PAGE = (ROOT / "docs/explanation/statistics.md").read_text(encoding="utf-8")


def figure_rows() -> list[str]:
    """The rows that hold figures, but those on examples, which have a benchmark of their own."""
    before, _, examples = PAGE.partition("\n## Example by example\n")
    text = before + "\n## ".join(examples.split("\n## ")[1:])
    return [line for line in text.splitlines() if line.startswith("| ") and "%" in line]


@pytest.mark.parametrize("table", TABLES, ids=[table.name for table in TABLES])
def test_the_page_has_the_figures_that_are_checked(table: Table) -> None:
    for row, figures in table.rows.items():
        assert any(
            line.endswith(f"| {' | '.join(table.formatted(figures))} |") for line in figure_rows()
        ), row


def test_the_page_has_no_figure_that_is_not_checked() -> None:
    checked = {
        " | ".join(table.formatted(figures)) for table in TABLES for figures in table.rows.values()
    }
    for line in figure_rows():
        assert any(line.endswith(f"| {figures} |") for figures in checked), line


def test_a_figure_that_moved_is_a_missed_target() -> None:
    table = next(table for table in TABLES if table.name == "false alarms")
    row, figures = next(iter(table.rows.items()))
    assert all(check.met for check in table.checks(row, figures))
    moved = [figures[0] + 1.1, *figures[1:]]
    assert not all(check.met for check in table.checks(row, moved))
