"""`python -m bench.validity`: are printed promises kept, where the truth is known?

Without a command, the validity grid of classifiers; `regression`, that of numbers with prediction intervals.
Exit code 1 if a promise is broken beyond its binomial margin. `procedures` compares procedures for the
confidence cut. Exit code 2: wrong input.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # read when numpy is imported; each process has one core

import typer

if TYPE_CHECKING:
    from bench.validity.grid import GridSettings
    from bench.validity.partial import Cell

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

ROWS, NUMBER_ROWS = [500, 2_000, 5_000, 20_000], [1_000, 3_000, 10_000]
DATA = ["images", "letters", "survey", "mixed"]
NUMBER_DATA = ["even", "uneven", "heavy", "quantiles"]
JsonOption = Annotated[Path | None, typer.Option("--json", help="Everything as JSON; - for stdout.")]
ResplitsOption = Annotated[int, typer.Option(min=1, help="Calibrations of each cell.")]
FirstOption = Annotated[int, typer.Option(min=0, help="The first re-split, for draws not seen before.")]
RowsOption = Annotated[list[int], typer.Option(min=100, help="Rows of a calibration file.")]
DataOption = Annotated[list[str], typer.Option(help="Populations.")]
ProcessesOption = Annotated[int, typer.Option(min=1, help="At most as many as there are free cores.")]
PartialOption = Annotated[Path, typer.Option(help="Where results are kept as they come, to go on from.")]


@app.callback(invoke_without_command=True)
def measure_validity(
    context: typer.Context,
    resplits: ResplitsOption = 200,
    first: FirstOption = 0,
    rows: RowsOption = ROWS,
    data: DataOption = DATA,
    processes: ProcessesOption = 2,
    partial: PartialOption = Path("var/validity"),
    out: JsonOption = None,
) -> None:
    """Seven policies at four budgets on re-splits of four populations: an hour on two cores."""
    if context.invoked_subcommand is not None:
        return
    from bench.validity.grid import GridSettings
    from bench.validity.resplit import resplit_classifier
    from bench.validity.shapes import SHAPES

    cells, seeds = _cells(data, DATA, rows), range(first, first + resplits)
    _run(GridSettings(resplit_classifier, SHAPES, cells, seeds, processes, partial), out)


@app.command()
def regression(
    resplits: ResplitsOption = 200,
    first: FirstOption = 0,
    rows: RowsOption = NUMBER_ROWS,
    data: DataOption = NUMBER_DATA,
    processes: ProcessesOption = 2,
    partial: PartialOption = Path("var/validity_regression"),
    out: JsonOption = None,
) -> None:
    """Five policies with prediction intervals at three promises: twelve minutes of one core."""
    from bench.validity.grid import GridSettings
    from bench.validity.regression import resplit_regression
    from bench.validity.regression_shapes import REGRESSION_SHAPES

    cells, seeds = _cells(data, NUMBER_DATA, rows), range(first, first + resplits)
    _run(GridSettings(resplit_regression, REGRESSION_SHAPES, cells, seeds, processes, partial), out)


def _cells(data: list[str], known: list[str], rows: list[int]) -> list[Cell]:
    from bench import output
    from bench.validity.partial import Cell

    if unknown := sorted(set(data) - set(known)):
        output.wrong_input(f"--data {unknown[0]}: choose of {', '.join(known)}")
    return [Cell(name, n) for name in data for n in rows]


def _run(settings: GridSettings, out: Path | None) -> None:
    """Runs a grid and prints its tables. Exits with 1 if a promise is broken beyond its margin."""
    from bench import output
    from bench.validity.grid import run_grid
    from bench.validity.partial import read
    from bench.validity.results_file import as_json
    from bench.validity.summary import summarise
    from bench.validity.tables import progress, validity_tables

    console = output.console(out)
    with progress(console) as advance:
        run_grid(settings, advance)
    found = {
        cell: [one for seed, one in read(settings.partial, cell).items() if seed in settings.seeds]
        for cell in settings.cells
    }
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
