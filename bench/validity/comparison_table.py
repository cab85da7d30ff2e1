"""The comparison of procedures as tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from rich.table import Table

from bench.validity.compare import Compared, Comparison
from bench.validity.procedures import PROCEDURES


def comparison_tables(comparison: Comparison) -> Iterator[Table]:
    """Draws with a cut that breaks its promise, draws without a cut, mean coverage; and what is possible."""
    compared = comparison.compared
    yield _table("Share of draws whose cut is wrong too often", compared, lambda one: one.broken)
    yield _table("Share of draws without a cut", compared, lambda one: one.refused)
    yield _table(
        "Mean share of rows below the cut, none where there is no cut", compared, lambda one: one.coverage
    )
    least = Table(title="One exact test, true error 0.8 of the promise: what no procedure can beat")
    for column in ("promise", "refused of 1,000 rows", "rows for 2 %"):
        least.add_column(column, justify="right")
    for best in comparison.possible:
        least.add_row(f"{best.r:.0%}", f"{best.refused:.1%}", f"{best.rows:,}")
    yield least


def _table(title: str, compared: Sequence[Compared], figure: Callable[[Compared], float]) -> Table:
    """A line a scenario and a column a procedure, in percent."""
    table = Table(title=title)
    for column in ("scenario", "test rows", "error", "promise", *PROCEDURES):
        table.add_column(column, justify="left" if column == "scenario" else "right", no_wrap=True)
    lines: dict[tuple[str, ...], list[str]] = {}
    for one in compared:
        scenario = one.scenario, f"{one.test_rows:,}", f"{one.error:.1%}", f"{one.r:.1%}"
        lines.setdefault(scenario, []).append(f"{figure(one):.1%}")
    for cells, figures in lines.items():
        table.add_row(*cells, *figures)
    return table
