"""`python -m bench.validity`: are printed promises kept, where the truth is known?

Without a command, the validity grid: exit code 1 if a promise is broken beyond its binomial margin.
`procedures` compares procedures for the confidence cut. Exit code 2: wrong input.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # read when numpy is imported; each process has one core

import typer

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

ROWS = [500, 2_000, 5_000, 20_000]
DATA = ["images", "letters", "survey", "mixed"]
JsonOption = Annotated[Path | None, typer.Option("--json", help="Everything as JSON; - for stdout.")]


@app.callback(invoke_without_command=True)
def measure_validity(
    context: typer.Context,
    resplits: Annotated[int, typer.Option(min=1, help="Calibrations of each cell.")] = 200,
    first: Annotated[int, typer.Option(min=0, help="The first re-split, for draws not seen before.")] = 0,
    rows: Annotated[list[int], typer.Option(min=100, help="Rows of a calibration file.")] = ROWS,
    data: Annotated[list[str], typer.Option(help="Populations.")] = DATA,
    processes: Annotated[int, typer.Option(min=1, help="At most as many as there are free cores.")] = 2,
    partial: Annotated[Path, typer.Option(help="Where results are kept as they come, to go on from.")] = Path(
        "var/validity"
    ),
    out: JsonOption = None,
) -> None:
    """Seven policies at four budgets on re-splits of four populations: an hour on two cores."""
    if context.invoked_subcommand is not None:
        return
    from bench import output
    from bench.validity.grid import GridSettings, run_grid
    from bench.validity.partial import Cell, read
    from bench.validity.results_file import as_json
    from bench.validity.summary import summarise
    from bench.validity.tables import progress, validity_tables

    if unknown := sorted(set(data) - set(DATA)):
        output.wrong_input(f"--data {unknown[0]}: choose of {', '.join(DATA)}")
    console = output.console(out)
    cells = [Cell(name, n) for name in data for n in rows]
    seeds = range(first, first + resplits)
    with progress(console) as advance:
        run_grid(GridSettings(cells, seeds, processes, partial), advance)
    found = {cell: [one for seed, one in read(partial, cell).items() if seed in seeds] for cell in cells}
    summary = summarise(found)
    for table in validity_tables(summary):
        console.print(table, "")
    output.write(out, as_json(summary))
    sys.exit(1 if any(one.is_broken for one in summary.promises) else 0)


@app.command()
def procedures(
    draws: Annotated[int, typer.Option(min=1, help="Calibrations of each scenario.")] = 1_000,
    out: JsonOption = None,
) -> None:
    """Procedures for the confidence cut on the same draws: violations, refusals, coverage; some minutes."""
    from bench import output
    from bench.validity.compare import compare
    from bench.validity.comparison_table import comparison_tables

    console = output.console(out)
    with console.status("comparing procedures"):
        comparison = compare(draws)
    for table in comparison_tables(comparison):
        console.print(table, "")
    output.write(out, comparison)


if __name__ == "__main__":
    app(prog_name="python -m bench.validity")
