"""`python -m bench.overload [--deployment NAME] [--tree PATH] [--peers bare] [--json FILE]`.

A gateway serves a copy of a deployment on one core, and the generator has another. The capacity is measured
in a closed loop; then an open loop sends one, two, five and ten times as much, with a tenth of the capacity
at the highest priority and 20 health probes a second, and half of the capacity for three seconds after it.
Last, a greedy caller at five times the capacity stands beside a polite one at a tenth.

Exit code 0: this tree keeps what `targets.py` states; 1: it does not; 2: wrong input.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from bench import output
from bench.overload.measure import Grid
from bench.overload.run import Settings, run
from bench.overload.scenarios import OPEN_CONNECTIONS
from bench.overload.tables import greedy_table, overload_table
from bench.peers.load_cases import BARE
from bench.requests import WrongInput
from bench.same_answers.tree import WrongTree

Number = TypeVar("Number", int, float)
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def overload(
    deployment: Annotated[str, typer.Option(help="A folder of configs/, or `slow`.")] = "letters",
    tree: Annotated[Path | None, typer.Option(help="Another checkout, with a .venv that is ready.")] = None,
    peers: Annotated[str, typer.Option(help="`bare`: bare uvicorn beside it.")] = "",
    rows: Annotated[str, typer.Option(help="Rows a request, with commas between.")] = "1,32",
    times: Annotated[str, typer.Option(help="Multiples of the capacity.")] = "1,2,5,10",
    rounds: Annotated[int, typer.Option(min=1, help="Of all loads.")] = 1,
    seconds: Annotated[float, typer.Option(min=1, help="Of each load.")] = 6,
    connections: Annotated[int, typer.Option(min=8, help="Of the mass in an open loop.")] = OPEN_CONNECTIONS,
    greedy: Annotated[bool, typer.Option(help="A greedy caller beside a polite one, too.")] = True,
    out: Annotated[Path | None, typer.Option("--json", help="Everything as JSON; - for stdout.")] = None,
) -> None:
    """Measures what is answered in time under overload."""
    console = output.console(out)
    try:
        grid = Grid(_numbers(rows, int, "--rows"), _numbers(times, float, "--times"), rounds, greedy)
        settings = Settings(deployment, tree, _is_bare(peers), grid, seconds, connections)
        results = run(settings, console)
    except (WrongInput, WrongTree) as error:
        output.wrong_input(str(error))
    console.print(overload_table(results.overload))
    if results.greedy:
        console.print(greedy_table(results.greedy))
    for what in results.missed:
        console.print(what)
    output.write(out, results)
    sys.exit(1 if results.missed else 0)


def _is_bare(names: str) -> bool:
    if names not in ("", BARE):
        raise WrongInput(f"--peers: {names!r} is not {BARE!r}, the only peer of this bench")
    return bool(names)


def _numbers(text: str, kind: Callable[[str], Number], option: str) -> tuple[Number, ...]:
    try:
        found = tuple(kind(one) for one in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) <= 0:
        raise WrongInput(f"{option}: {text!r} is not numbers above 0 with commas between, such as 1,2")
    return found


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that servers are stopped too
    app(prog_name="python -m bench.overload")
