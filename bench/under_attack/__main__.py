"""`python -m bench.under_attack [--dir DIR] [--seconds 60] [--only NAME] [--json FILE]`.

A gateway of its own serves a copy of the deployment. A caller with a key sends good rows at a tenth of the
capacity that was measured first, at random times (an open loop: a request that the gateway keeps waiting
counts from when it was due). Each attack comes from other addresses without a key. Exit code 0: in every
attack 99.9 % of the caller's requests are answered, and their p99 is at most twice that of just before.

The caller's key has the scope `explain`, which no release grid delays: a grid would hide what waiting costs.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bench import output
from bench.growth.server_process import serve_folders, unlimited_key
from bench.load import LoadPlan
from bench.machine import machine
from bench.requests import RequestMix, WrongInput, render_requests
from bench.under_attack.attacks import attacks
from bench.under_attack.measure import UnderAttack, capacity, under_attack
from gateway.cli.samples import load_samples
from gateway.deployment.deployment import VAR

LEAST_ANSWERED, MOST_RATIO, TENTH = 0.999, 2.0, 0.1
CAPACITY_CONNECTIONS, CAPACITY_S, CONNECTIONS = 32, 4.0, 32
CONFIGS = Path(__file__).parents[2] / "configs"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True, slots=True)
class AttackResults:
    """capacity: requests a second of one row; rate: of the caller with a key."""

    machine: dict[str, str]
    deployment: str
    seconds: float
    capacity: float
    rate: float
    attacks: list[UnderAttack]

    @property
    def withstood(self) -> bool:
        return all(one.answered >= LEAST_ANSWERED and one.p99_ratio <= MOST_RATIO for one in self.attacks)


@app.command(name="under-attack")
def main(
    deployment: Annotated[str, typer.Option(help="A folder of configs/.")] = "fashion",
    seconds: Annotated[float, typer.Option(min=1, help="Of each attack.")] = 60,
    idle_s: Annotated[float, typer.Option(min=1, help="Before each attack.")] = 20,
    only: Annotated[list[str] | None, typer.Option(help="Attacks by name; all without it.")] = None,
    out: Annotated[Path | None, typer.Option("--json", help="Everything as JSON; - for stdout.")] = None,
) -> None:
    """Measures a caller with a key beside each attack of a caller without one."""
    console = output.console(out)
    try:
        results = asyncio.run(_measure(deployment, seconds, idle_s, only or [], console))
    except WrongInput as error:
        output.wrong_input(str(error))
    console.print(_table(results))
    output.write(out, results)
    sys.exit(0 if results.withstood else 1)


async def _measure(
    deployment: str, seconds: float, idle_s: float, only: Sequence[str], console: Console
) -> AttackResults:
    with TemporaryDirectory(prefix="under-attack-") as temporary:
        scratch, payloads = Path(temporary), Path(temporary) / "payloads"
        payloads.mkdir()
        folder = scratch / deployment
        shutil.copytree(CONFIGS / deployment, folder, ignore=shutil.ignore_patterns(VAR))
        with serve_folders([folder], unlimited_key(folder), scratch / "log") as server:
            good = LoadPlan(
                server.target.origin,
                render_requests(server.target, folder, RequestMix(1, 0.0, binary=True)),
                connections=CAPACITY_CONNECTIONS,
                seconds=CAPACITY_S,
            )
            with console.status("measuring the capacity"):
                most = await capacity(good)
            good = LoadPlan(good.origin, good.requests, connections=CONNECTIONS, rate=TENTH * most)
            samples = load_samples(folder, server.target.contract)
            planned = attacks(server.target, samples, server.ports, payloads, seconds)
            results = []
            for name, plan in planned.items():
                if not only or name in only:
                    with console.status(name):
                        results.append(await under_attack(name, plan, good, idle_s, server, scratch))
            return AttackResults(machine(), deployment, seconds, most, TENTH * most, results)


def _table(results: AttackResults) -> Table:
    columns = ("attack", "answered", "p99 idle, ms", "during", "ratio", "memory, MiB", "var, MiB", "its ends")
    made = Table(*columns)
    for one in results.attacks:
        memory, var = (f"{before:.0f} to {most:.0f}" for before, most in (one.resident_mib, one.var_mib))
        ends = ", ".join(f"{n:,} {end}" for end, n in sorted(one.ends.items(), key=lambda e: -e[1])[:4])
        latencies = f"{one.idle.p99:.1f}", f"{one.during.p99:.1f}", f"{one.p99_ratio:.2f}"
        made.add_row(one.attack, f"{one.answered:.2%}", *latencies, memory, var, ends)
    made.caption = f"a caller with a key sends {results.rate:.0f} of {results.capacity:.0f} requests a second"
    return made


if __name__ == "__main__":
    app(prog_name="python -m bench.under_attack")
