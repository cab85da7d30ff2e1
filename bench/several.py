"""`python -m bench.several`: throughput of one deployment beside two others, over the same one alone.

Two gateways run beside each other, in one process each (`gateway serve --local`). One serves a deployment,
the other the same, two more under other names, and one that is broken on purpose. wrk loads the deployment
at one gateway after the other, A B B A A B ..., and the ratio of each pair is taken: a machine that slows
down slows both. Exit code 1 if the median ratio is below `--least`.
"""

from __future__ import annotations

import shutil
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
from bench.growth.server_process import serve_folders, unlimited_key
from bench.load import LoadPlan
from bench.machine import machine
from bench.peers.wrk import wrk, wrk_is_missing
from bench.requests import RequestMix, WrongInput, render_requests
from bench.same_answers.tree import copy_deployment
from bench.tree_throughput import ALL_CORES, BINARY_BY_FORM, THIS_TREE, Pairs, in_turns
from gateway.deployment.certificate import CERTIFICATE_FILE, load_certificate, policy_digest
from gateway.deployment.deployment import Deployment

NEIGHBOURS, BROKEN = ("neighbour-one", "neighbour-two"), "broken"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True, slots=True)
class SeveralResults:
    """pairs: here beside the others, there alone, for each form of request."""

    machine: dict[str, str]
    deployment: str
    connections: int
    seconds: int
    pairs: list[Pairs]


@app.command()
def several(
    deployment: Annotated[str, typer.Option(help="A folder of configs/.")] = "letters",
    rounds: Annotated[int, typer.Option(min=2, help="Pairs for each form of request.")] = 12,
    seconds: Annotated[int, typer.Option(min=1, help="Of each load.")] = 2,
    connections: Annotated[int, typer.Option(min=1)] = 64,
    least: Annotated[float, typer.Option(help="The least median ratio that is well.")] = 0.97,
    out: Annotated[Path | None, typer.Option("--json", help="Everything as JSON; - for stdout.")] = None,
) -> None:
    """Compares the throughput of a deployment beside others with that of the same one alone, in turns."""
    console = output.console(out)
    if wrk_is_missing():
        output.wrong_input("wrk is not installed")
    try:
        with console.status(f"{2 * 2 * rounds * seconds} s of load"):
            found = _measure(deployment, rounds, seconds, connections)
    except WrongInput as error:
        output.wrong_input(str(error))
    _print(console, found)
    output.write(out, SeveralResults(machine(), deployment, connections, seconds, found))
    sys.exit(0 if min(median(one.ratios) for one in found) >= least else 1)


def _measure(deployment: str, rounds: int, seconds: int, connections: int) -> list[Pairs]:
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        work, plans = Path(scratch), list[dict[str, LoadPlan]]()
        for name in ("beside", "alone"):
            (work / name).mkdir()
            folder = copy_deployment(THIS_TREE, deployment, work / name)
            others = _neighbours(folder) if name == "beside" else []
            served = serve_folders([folder, *others], unlimited_key(folder), work / f"{name}.log")
            target = stack.enter_context(served).target
            plans.append(
                {
                    form: LoadPlan(
                        target.origin,
                        render_requests(target, folder, RequestMix(1, 0.0, binary)),
                        1,
                        connections,
                        float(seconds),
                    )
                    for form, binary in BINARY_BY_FORM.items()
                }
            )
        for one in plans:  # what only the first requests pay
            wrk(one["JSON"], work, ALL_CORES)
        return [in_turns(form, plans[0][form], plans[1][form], rounds, work) for form in BINARY_BY_FORM]


def _neighbours(folder: Path) -> list[Path]:
    """Copies of a deployment under other names beside it; the certificate of the last one is missing."""
    copies = [_renamed(folder, name) for name in (*NEIGHBOURS, BROKEN)]
    (copies[-1] / CERTIFICATE_FILE).unlink()
    return copies


def _renamed(folder: Path, name: str) -> Path:
    """A copy under another name, with a certificate that is bound to it as if it were made for it."""
    copy = shutil.copytree(folder, folder.parent / name)
    policy = copy / "gateway.yaml"
    text = policy.read_text(encoding="utf-8")
    policy.write_text(text.replace(f"name: {folder.name}", f"name: {name}", 1), encoding="utf-8")
    certificate, bound = load_certificate(copy), policy_digest(Deployment.read(copy).policy)
    digests = certificate.digests.model_copy(update={"policy": bound})
    certificate.model_copy(update={"digests": digests}).write(copy)
    return copy


def _print(console: Console, found: list[Pairs]) -> None:
    table = Table(
        "one row a request", "beside two, requests/s", "alone", "ratio, median of pairs", "least to greatest"
    )
    for one in found:
        ratios = sorted(one.ratios)
        span = f"{ratios[0]:.3f} to {ratios[-1]:.3f}"
        rates = (f"{median(one.here):.0f}", f"{median(one.there):.0f}")
        table.add_row(one.form, *rates, f"{median(ratios):.3f}", span)
    console.print(table)


if __name__ == "__main__":
    app(prog_name="python -m bench.several")
