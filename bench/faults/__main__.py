"""`python -m bench.faults [--cells PATTERN] [--requests 200] [--rate 100] [--json FILE]`.

Every cell of `cells.py` whose name, such as `primary / hang`, matches the pattern, and an idle control cell
beside every tenth. Exit code 0: no cell has a violation; `history.py` lists the kinds.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console

from bench import output
from bench.faults.cell import CONTROL, Cell
from bench.faults.cells import CELLS
from bench.faults.result import CellResult
from bench.faults.run import run_cell
from bench.faults.surroundings import opened
from bench.faults.tables import FaultResults, fault_table, progress
from bench.machine import machine
from bench.requests import WrongInput

CONTROL_EVERY = 10
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(name="faults")
def main(
    cells: Annotated[str, typer.Option(help="Names of cells, as a pattern of the shell.")] = "*",
    requests: Annotated[int, typer.Option(min=20, help="Of each cell.")] = 200,
    rate: Annotated[float, typer.Option(min=10, help="Requests a second.")] = 150.0,
    out: Annotated[Path | None, typer.Option("--json", help="Everything as JSON; - for stdout.")] = None,
) -> None:
    """Breaks every part of a served gateway at load, and checks what became of every request."""
    console = output.console(out)
    chosen = [cell for cell in CELLS if fnmatch(cell.name, cells)]
    if not chosen:
        output.wrong_input(f"--cells {cells}: matches no cell; one is called {CELLS[0].name!r}")
    try:
        found = asyncio.run(run_cells(chosen, requests, rate, console))
    except WrongInput as error:
        output.wrong_input(str(error))
    results = FaultResults(machine(), requests, rate, found)
    console.print(fault_table(results))
    output.write(out, results)
    sys.exit(0 if results.passed else 1)


async def run_cells(cells: Sequence[Cell], requests: int, rate: float, console: Console) -> list[CellResult]:
    """The results of the cells, with those of the control cells between them."""
    results: list[CellResult] = []
    with TemporaryDirectory(prefix="faults-") as scratch:
        for name, group in groupby(cells, lambda cell: cell.world):
            async with opened(name, Path(scratch), requests) as world:
                for cell in _with_controls(list(group)):
                    results.append(await run_cell(world, cell, requests, rate))
                    console.print(progress(results[-1]))
    return results


def _with_controls(cells: Sequence[Cell]) -> Iterator[Cell]:
    """A control cell before every tenth."""
    for i, cell in enumerate(cells):
        if i % CONTROL_EVERY == 0:
            yield CONTROL
        yield cell


if __name__ == "__main__":
    app(prog_name="python -m bench.faults")
