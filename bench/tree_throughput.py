"""`python -m bench.tree_throughput OTHER_TREE`: requests a second of this tree over another one, in one run.

Both trees serve their own copy of a deployment beside each other, in one process each, with longer time
budgets as `bench.same_answers` sets them, so that neither sheds load. wrk loads one after the other, A B B A
A B ..., and the ratio of each pair is taken: a machine that slows down slows both. Exit code 1 if the median
ratio is below `--least`.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bench import output
from bench.load import LoadPlan
from bench.peers.wrk import wrk, wrk_is_missing
from bench.requests import RequestMix, find_target, render_requests
from bench.same_answers.tree import WrongTree, require_environment, serve_tree

THIS_TREE = Path(__file__).resolve().parents[1]
ALL_CORES = frozenset({0, 1})
BINARY_BY_FORM = {"JSON": False, "binary": True}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True, slots=True)
class Pairs:
    """Requests a second of both trees, round by round. ratios: here over there, of each pair."""

    form: str
    here: list[float]
    there: list[float]

    @property
    def ratios(self) -> list[float]:
        return [here / there for here, there in zip(self.here, self.there, strict=True)]


@app.command()
def tree_throughput(
    other: Annotated[
        Path, typer.Argument(help="Another checkout of the project, with a .venv that is ready.")
    ],
    deployment: Annotated[str, typer.Option(help="A folder of configs/.")] = "fashion",
    rounds: Annotated[int, typer.Option(min=2, help="Pairs for each form of request.")] = 12,
    seconds: Annotated[int, typer.Option(min=1, help="Of each load.")] = 2,
    connections: Annotated[int, typer.Option(min=1)] = 64,
    least: Annotated[float, typer.Option(help="The least median ratio that is well.")] = 0.98,
    out: Annotated[Path | None, typer.Option("--json", help="Everything as JSON; - for stdout.")] = None,
) -> None:
    """Compares the throughput of this tree with another one's, in turns."""
    console = output.console(out)
    if wrk_is_missing():
        output.wrong_input("wrk is not installed")
    try:
        with console.status(f"{2 * 2 * rounds * seconds} s of load"):
            found = _measure(
                require_environment(THIS_TREE),
                require_environment(other),
                deployment,
                rounds,
                seconds,
                connections,
            )
    except WrongTree as error:
        output.wrong_input(str(error))
    _print(console, found)
    output.write(out, found)
    sys.exit(0 if min(median(one.ratios) for one in found) >= least else 1)


def _measure(
    here: Path, there: Path, deployment: str, rounds: int, seconds: int, connections: int
) -> list[Pairs]:
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        plans: list[dict[str, LoadPlan]] = []
        for name, tree in (("here", here), ("there", there)):
            work = Path(scratch) / name
            work.mkdir()
            served = stack.enter_context(serve_tree(tree, deployment, work))
            folder = work / deployment
            target = find_target(f"http://127.0.0.1:{served.ports.data}", folder, served.keys["ada"])
            forms = {
                form: render_requests(target, folder, RequestMix(1, 0.0, binary))
                for form, binary in BINARY_BY_FORM.items()
            }
            plans.append(
                {
                    form: LoadPlan(target.origin, requests, 1, connections, float(seconds))
                    for form, requests in forms.items()
                }
            )
        work = Path(scratch)
        for one in plans:  # what only the first requests pay
            wrk(one["JSON"], work, ALL_CORES)
        return [in_turns(form, plans[0][form], plans[1][form], rounds, work) for form in BINARY_BY_FORM]


def in_turns(form: str, here: LoadPlan, there: LoadPlan, rounds: int, work: Path) -> Pairs:
    """Requests a second of two servers under one load each, in pairs: A B, B A, A B, ..."""
    pairs = Pairs(form, [], [])
    for turn in range(rounds):
        order = [(here, pairs.here), (there, pairs.there)]
        for plan, found in order if turn % 2 == 0 else reversed(order):
            found.append(wrk(plan, work, ALL_CORES))
    return pairs


def _print(console: Console, found: list[Pairs]) -> None:
    table = Table(
        "one row a request", "here, requests/s", "there", "ratio, median of pairs", "least to greatest"
    )
    for one in found:
        ratios = sorted(one.ratios)
        span = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
        rates = (f"{median(one.here):.0f}", f"{median(one.there):.0f}")
        table.add_row(one.form, *rates, f"{median(ratios):.3f}", span)
    console.print(table)


if __name__ == "__main__":
    app(prog_name="python -m bench.tree_throughput")
