"""The comparison of procedures as tables."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from bench.validity.compare import Comparison
from bench.validity.procedures import PROCEDURES


def comparison_tables(comparison: Comparison) -> Iterator[Table]:
    """A line a scenario, and in each cell: broken / refused / coverage."""
    table = Table(title="Confidence cuts: broken / refused / coverage, each in percent of draws or rows")
    for column in ("scenario", "test rows", "error", "promise", *PROCEDURES):
        table.add_column(column, justify="left" if column == "scenario" else "right")
    lines: dict[tuple[str, int, float, float], list[str]] = {}
    for one in comparison.compared:
        cell = f"{100 * one.broken:.1f}/{100 * one.refused:.1f}/{100 * one.coverage:.1f}"
        lines.setdefault((one.scenario, one.test_rows, one.error, one.r), []).append(cell)
    for (name, rows, error, r), figures in lines.items():
        table.add_row(name, f"{rows:,}", f"{error:.1%}", f"{r:.1%}", *figures)
    yield table
    least = Table(title="One exact test, true error 0.8 of the promise: what no procedure can beat")
    for column in ("promise", "refused of 1,000 rows", "rows for 2 %"):
        least.add_column(column, justify="right")
    for best in comparison.possible:
        least.add_row(f"{best.r:.0%}", f"{best.refused:.1%}", f"{best.rows:,}")
    yield least
