"""How long the event loop is held at a time by each of the worst bodies: `python -m bench.parse_hold`.

A replica runs in this process on asyncio's own loop, every callback of which is timed by the CPU clock of its
thread, so that other load on the machine does not count. Prints the longest of each body, in milliseconds: so
long another caller waits for the loop at most. Exit code 1 if one is above `--most`.
"""

from __future__ import annotations

import asyncio
import pickle
import sys
import tempfile
import time
from asyncio import events
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from bench import output
from bench.growth.server_process import free_ports
from bench.machine import machine
from bench.parse_bodies import NUMBERS, TEXTS, WorstBody, deploy, worst_bodies
from bench.parse_callers import Address, Attack
from gateway.access.callers import add_key
from gateway.deployment.deployment import VAR
from gateway.replica import ListenAddress, Replica
from gateway.serving.repository import Repository

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True, slots=True)
class Hold:
    """One body. longest_ms: of one callback; ends: of the requests."""

    name: str
    longest_ms: float
    ends: str


@dataclass(frozen=True, slots=True)
class HoldResults:
    machine: dict[str, str]
    holds: list[Hold]


class Longest:
    """The longest callback so far, in CPU seconds of the thread of the loop."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Times every callback of every loop meanwhile."""
        run = events.Handle._run

        def timed(handle: events.Handle) -> None:
            begun_s = time.thread_time()
            run(handle)
            self.seconds = max(self.seconds, time.thread_time() - begun_s)

        setattr(events.Handle, "_run", timed)  # noqa: B010 (a method that is not declared public)
        try:
            yield
        finally:
            setattr(events.Handle, "_run", run)  # noqa: B010


@app.command()
def parse_hold(
    seconds: Annotated[float, typer.Option(help="Of each body.")] = 3.0,
    most: Annotated[float, typer.Option(help="The longest hold that is well, in milliseconds.")] = 10.0,
    out: Annotated[Path | None, typer.Option("--json", help="Everything as JSON; - for stdout.")] = None,
) -> None:
    """Measures the longest callback of the event loop for each of the worst bodies."""
    console = output.console(out)
    with tempfile.TemporaryDirectory() as scratch:
        holds = asyncio.run(_measure(Path(scratch), worst_bodies(), seconds))
    table = Table("four connections send", "the loop is held, CPU ms", "ends")
    for one in holds:
        table.add_row(one.name, f"{one.longest_ms:.1f}", one.ends)
    console.print(table)
    output.write(out, HoldResults(machine(), holds))
    sys.exit(0 if all(one.longest_ms <= most for one in holds) else 1)


async def _measure(work: Path, bodies: list[WorstBody], seconds: float) -> list[Hold]:
    folders = [deploy(work / name, name) for name in (NUMBERS, TEXTS)]
    keys = [_key(work / one.model, f"attacker-{i}") for i, one in enumerate(bodies)]
    port, grpc_port, admin_port = free_ports()
    replica = Replica(Repository.open(folders), ListenAddress("127.0.0.1", port, grpc_port, admin_port), "t")
    await replica.start()
    address, holds = Address(port, grpc_port), list[Hold]()
    for one, key in zip(bodies, keys, strict=True):
        await _send(Attack(address, one, key, 0.1))  # what only the first request pays
        longest = Longest()
        with longest.watching():
            ends = await _send(Attack(address, one, key, seconds))
        holds.append(Hold(one.name, 1e3 * longest.seconds, ends))
    await replica.stop()
    return holds


def _key(folder: Path, name: str) -> str:
    return add_key(folder / VAR, name, tier="trusted", per_s=None, scopes=frozenset({"infer"}))


async def _send(one: Attack) -> str:
    """How the requests ended, which another process sends."""
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-m", "bench.parse_callers")
    attacker = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    ends, _ = await attacker.communicate(pickle.dumps(one))
    return ends.decode().strip()


if __name__ == "__main__":
    app(prog_name="python -m bench.parse_hold")
