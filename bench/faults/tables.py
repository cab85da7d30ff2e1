"""The results of the fault bench: as plain data for the JSON, and as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from bench.faults.cell import CONTROL
from bench.faults.result import CellResult


@dataclass(frozen=True, slots=True)
class FaultResults:
    """machine: where it ran; requests: of each cell, `rate` of them a second; cells: in order."""

    machine: dict[str, str]
    requests: int
    rate: float
    cells: Sequence[CellResult]

    @property
    def passed(self) -> bool:
        return all(cell.passed for cell in self.cells)


def progress(cell: CellResult) -> str:
    """One line on a cell that has ended."""
    found = "; ".join(cell.examples) or "no violation"
    return f"{cell.stage} / {cell.fault}: {cell.slowest_ms:.0f} ms, {found}"


def fault_table(results: FaultResults) -> Table:
    """One line a cell."""
    table = Table("stage", "fault", "ends", "slowest, ms", "late", "no reply", "violations")
    for cell in results.cells:
        ends = ", ".join(f"{n} {end}" for end, n in sorted(cell.ends.items(), key=lambda pair: -pair[1]))
        counted = (f"{cell.slowest_ms:.0f}", str(cell.late), str(cell.unanswered))
        found = "\n".join(f"{cell.violations[example.split(':')[0]]} {example}" for example in cell.examples)
        colour = "red" if found else "green"
        remark = f"\n({cell.remark})" if cell.remark else ""
        table.add_row(cell.stage, cell.fault, ends, *counted, f"[{colour}]{found or 'none'}[/]{remark}")
    table.caption = summary(results)
    return table


def summary(results: FaultResults) -> str:
    """How many cells, and how often each violation."""
    controls = [cell for cell in results.cells if cell.stage == CONTROL.stage]
    total = Counter[str]()
    for cell in results.cells:
        total.update(cell.violations)
    violations = ", ".join(f"{n} {kind}" for kind, n in total.items()) or "no violation"
    slowest_ms = max((one.slowest_ms for one in controls), default=0.0)
    idle = f"{len(controls)} of them idle, the slowest of these {slowest_ms:.0f} ms"
    unanswered = sum(cell.unanswered for cell in results.cells)
    return f"{len(results.cells)} cells ({idle}): {violations}; {unanswered} requests without a reply"
