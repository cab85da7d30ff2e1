"""`python -m bench.growth`: costs and memory as the state grows. Exit code 2: wrong input.

`memory` ends with 1 if anything came back but the four outcomes and the refusals that it provokes.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

FolderOption = Annotated[Path, typer.Option("--dir", help="A deployment with samples; it is only read.")]
JsonOption = Annotated[Path | None, typer.Option("--json", help="Everything as JSON; - for stdout.")]
FASHION = Path("configs/fashion")


@app.callback(invoke_without_command=True)
def measure_costs(context: typer.Context, folder: FolderOption = FASHION, out: JsonOption = None) -> None:
    """Cost against callers, waiting cases, rows a request and kept records, in this process: some minutes."""
    if context.invoked_subcommand is not None:
        return
    import uvloop

    from bench import output
    from bench.growth.report import GrowthSizes, measure_growth
    from bench.growth.tables import growth_tables
    from gateway.core.errors import Problems

    console = output.console(out)
    try:
        with console.status("loading") as status:
            report = uvloop.run(measure_growth(folder, GrowthSizes(), status.update))
    except Problems as error:
        output.wrong_input("\n".join(map(str, error.problems)))
    except (OSError, ValueError) as error:
        output.wrong_input(str(error))
    for table in growth_tables(report):
        console.print(table, "")
    output.write(out, report)


@app.command()
def memory(
    requests: Annotated[int, typer.Option(min=1000, help="How many to send at least.")] = 200_000,
    folder: FolderOption = FASHION,
    out: JsonOption = None,
) -> None:
    """Resident memory of a server of its own over many requests, one in 200 of them with a large body."""
    import uvloop

    from bench import output
    from bench.growth.memory import MemorySettings, watch
    from bench.growth.tables import memory_table
    from bench.requests import WrongInput
    from gateway.core.errors import Problems

    console = output.console(out)
    try:
        with console.status("starting") as status:
            found = uvloop.run(
                watch(
                    MemorySettings(folder, requests),
                    lambda sent: status.update(f"{sent:,} of {requests:,} requests"),
                )
            )
    except (Problems, WrongInput) as error:
        output.wrong_input(str(error))
    console.print(memory_table(found))
    output.write(out, found)
    sys.exit(1 if found.failed else 0)


def main() -> None:
    """As `gateway` does before numpy is imported: BLAS threads would wait for each other."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    app(prog_name="python -m bench.growth")


if __name__ == "__main__":
    main()
