"""What callers with the worst bodies that are allowed do to a good caller: `python -m bench.parse_load`.

A caller with a key sends rows of three numbers at a tenth of what the gateway answers in a second. Its p50
and p99 are measured idle, then while four connections of another caller send each of the worst bodies. Prints
the ratios to the idle values just before; exit code 1 if a p99 is more than `--most` times its idle value.
"""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from bench import output
from bench.growth.server_process import serve_folders, unlimited_key
from bench.machine import machine
from bench.parse_bodies import NUMBERS, TEXTS, WorstBody, deploy, good_body, worst_bodies
from bench.parse_callers import Address, Attack, HttpConnection, closed_loop, percentiles_ms, steady
from gateway.access.callers import add_key
from gateway.deployment.deployment import VAR

GOOD_CONNECTIONS, CAPACITY_CONNECTIONS = 16, 16
SHARE = 0.1
START_S = 1.5
"""In which the attacker starts, and so does the gateway's parser."""
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True, slots=True)
class Effect:
    """The good caller before and during one attack, in milliseconds. ends: of the attacker's requests."""

    name: str
    idle_p50_ms: float
    idle_p99_ms: float
    p50_ms: float
    p99_ms: float
    ends: str

    @property
    def ratio(self) -> float:
        return self.p99_ms / self.idle_p99_ms


@dataclass(frozen=True, slots=True)
class ParseLoadResults:
    """per_s: requests a second of the good caller."""

    machine: dict[str, str]
    per_s: float
    effects: list[Effect]


@app.command()
def parse_load(
    seconds: Annotated[float, typer.Option(help="Of each measurement.")] = 5.0,
    only: Annotated[str, typer.Option(help="Bodies whose name holds this text.")] = "",
    most: Annotated[float, typer.Option(help="The greatest ratio of p99 that is well.")] = 2.0,
    out: Annotated[Path | None, typer.Option("--json", help="Everything as JSON; - for stdout.")] = None,
) -> None:
    """Measures the latency of a good caller idle and beside each of the worst bodies."""
    console = output.console(out)
    bodies = [one for one in worst_bodies() if only in one.name]
    with (
        tempfile.TemporaryDirectory() as scratch,
        console.status(f"{2 * len(bodies) * seconds:.0f} s of load"),
    ):
        per_s, effects = _measure(Path(scratch), bodies, seconds)
    table = Table(
        f"beside four connections ({per_s:.0f} good requests/s)", "p50", "p99", "idle", "ratio", "ends"
    )
    for one in effects:
        idle = f"{one.idle_p50_ms:.1f}, {one.idle_p99_ms:.1f}"
        table.add_row(one.name, f"{one.p50_ms:.1f}", f"{one.p99_ms:.1f}", idle, f"{one.ratio:.2f}", one.ends)
    console.print(table)
    output.write(out, ParseLoadResults(machine(), per_s, effects))
    sys.exit(0 if all(one.ratio <= most for one in effects) else 1)


def _measure(work: Path, bodies: list[WorstBody], seconds: float) -> tuple[float, list[Effect]]:
    folders = [deploy(work / name, name) for name in (NUMBERS, TEXTS)]
    good, scopes = unlimited_key(folders[0]), frozenset({"infer"})
    keys = [
        add_key(work / one.model / VAR, f"attacker-{i}", tier="trusted", per_s=None, scopes=scopes)
        for i, one in enumerate(bodies)
    ]
    with serve_folders(folders, good, work / "serve.log") as server:
        address = Address(*_ports(server.pid))
        per_s = SHARE * asyncio.run(closed_loop(_good(address, good, CAPACITY_CONNECTIONS), 3.0))
        attacks = [
            Attack(address, one, key, seconds + START_S) for one, key in zip(bodies, keys, strict=True)
        ]
        return per_s, [_beside(one, good, per_s, seconds) for one in attacks]


def _beside(one: Attack, key: str, per_s: float, seconds: float) -> Effect:
    def measure(for_s: float) -> tuple[float, float]:
        return percentiles_ms(asyncio.run(steady(_good(one.address, key, GOOD_CONNECTIONS), per_s, for_s)))

    idle = measure(seconds)
    command = [sys.executable, "-m", "bench.parse_callers"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as attacker:  # noqa: S603
        assert attacker.stdin is not None
        assert attacker.stdout is not None
        attacker.stdin.write(pickle.dumps(one))
        attacker.stdin.close()
        time.sleep(START_S)
        during = measure(seconds)
        ends = attacker.stdout.read().decode().strip()
    return Effect(one.worst.name, *idle, *during, ends)


def _good(address: Address, key: str, connections: int) -> list[HttpConnection]:
    return [
        HttpConnection(address.port, NUMBERS, good_body(), {"x-api-key": key}) for _ in range(connections)
    ]


def _ports(pid: int) -> tuple[int, int]:
    """The ports of HTTP and gRPC in the command line of a gateway."""
    words = Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").split("\0")
    return int(words[words.index("--port") + 1]), int(words[words.index("--grpc-port") + 1])


if __name__ == "__main__":
    app(prog_name="python -m bench.parse_load")
