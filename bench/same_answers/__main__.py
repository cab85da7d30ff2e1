"""`python -m bench.same_answers OTHER_TREE`. Exit code 0: all is the same; 1: it is not; 2: wrong use."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench import output
from bench.same_answers.compare import ComparedExchange, TableLine, table_of
from bench.same_answers.run import compare_trees
from bench.same_answers.tree import WrongTree, require_environment

THIS_TREE = Path(__file__).resolve().parents[2]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True, slots=True)
class TreeComparison:
    """differences: every request whose answers are not the same."""

    here: str
    there: str
    same: bool
    table: list[TableLine]
    differences: list[ComparedExchange]


@app.command()
def same_answers(
    other: Annotated[
        Path, typer.Argument(help="Another checkout of the project, with a .venv that is ready.")
    ],
    shown: Annotated[int, typer.Option(min=0, help="So many differences are printed in full.")] = 10,
    out: Annotated[Path | None, typer.Option("--json", help="Everything as JSON; - for stdout.")] = None,
) -> None:
    """Compares what this tree and another one answer to the same requests, over HTTP and gRPC."""
    console = output.console(out)
    try:
        here, there = require_environment(THIS_TREE), require_environment(other)
        with console.status("") as status:
            found = list(compare_trees(here, there, status.update))
    except WrongTree as error:
        output.wrong_input(str(error))
    differing = [one for one in found if not one.same]
    results = TreeComparison(str(here), str(there), not differing, table_of(found), differing)
    _print(console, results, shown)
    output.write(out, results)
    sys.exit(0 if results.same else 1)


def _print(console: Console, results: TreeComparison, shown: int) -> None:
    table = Table("deployment", "protocol", "requests", "identical", "how they ended")
    for line in results.table:
        ends = ", ".join(f"{name} {n}" for name, n in sorted(line.outcomes.items()))
        table.add_row(line.deployment, line.protocol, f"{line.requests}", f"{line.identical}", ends)
    total = sum(line.requests for line in results.table)
    table.caption = f"{total - len(results.differences)} of {total} answers are the same"
    console.print(table)
    for one in results.differences[:shown]:
        console.print(f"\n[bold]{one.deployment}, {one.protocol}: {escape(one.case)}[/bold]")
        for part in one.differences:
            console.print(f"  {part.part}, here:\n{escape(part.here)}", soft_wrap=True)
            console.print(f"  {part.part}, there:\n{escape(part.there)}", soft_wrap=True)
    if len(results.differences) > shown:
        console.print(f"\n... and {len(results.differences) - shown} requests more")


if __name__ == "__main__":
    app(prog_name="python -m bench.same_answers")
