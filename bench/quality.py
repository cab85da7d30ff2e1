"""The promises of a deployment, measured on its real pipeline: `python -m bench.quality DIR`.

Good rows against the certificate, with the primary working and broken; outliers from the folder and made
from good rows; every detector alone; harmless change; re-splits. Exit code 0: done, whatever was found; 1: a
guard failed on good rows, so this measured `on_error`; 2: wrong input.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from bench import output
from bench.report import QualitySettings, measure_quality
from bench.tables import quality_tables
from gateway.core.errors import Problems

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

FolderArgument = Annotated[
    Path, typer.Argument(help="A calibrated deployment; it is only read.", metavar="DIR")
]
DataOption = Annotated[
    Path | None, typer.Option(help="Good rows and y, unseen by any fit. [default: DIR/samples.npz]")
]
CalibrationOption = Annotated[
    Path | None,
    typer.Option(help="What DIR was calibrated with, for --resplits. [default: DIR/var/calibration.npz]"),
]


@app.command()
def quality(
    folder: FolderArgument,
    data: DataOption = None,
    out: Annotated[Path | None, typer.Option("--json", help="Everything as JSON; - for stdout.")] = None,
    resplits: Annotated[int, typer.Option(min=0, help="How often to draw the cut again.")] = 0,
    calibration: CalibrationOption = None,
) -> None:
    """Measures what a deployment promises: false alarms, errors, and what its guards detect."""
    console = output.console(out)
    settings = QualitySettings(
        folder, data or folder / "samples.npz", resplits, calibration or folder / "var" / "calibration.npz"
    )
    try:
        with console.status("loading") as status:
            report = asyncio.run(measure_quality(settings, status.update))
    except Problems as error:
        output.wrong_input("\n".join(map(str, error.problems)))
    except (OSError, ValueError) as error:
        output.wrong_input(str(error))
    for table in quality_tables(report):
        console.print(table, "")
    if report.faults:
        console.print(f"[bold red]{report.faults} guards failed on good rows: on_error decided instead[/]")
    output.write(out, report)
    sys.exit(1 if report.faults else 0)


if __name__ == "__main__":
    app(prog_name="python -m bench.quality")
