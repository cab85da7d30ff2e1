"""From the start of the command to its first answer: `python -m bench.start [--rounds 3] [--json FILE]`.

Three servers in turn: the gateway with `--local`, the gateway on Ray, and Ray Serve with an empty
application, which is what any Ray deployment costs before it does anything.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.table import Table

from bench import output
from bench.client import Origin
from bench.machine import machine
from bench.peers.compare import copy_with_key
from bench.peers.load_cases import LOAD_CASES
from bench.peers.process import free_port, running
from bench.peers.ratios import MedianWithRange, ratios
from bench.peers.verify import wait_until_ready
from bench.requests import WrongInput

LOCAL, ON_RAY, EMPTY = "gateway --local", "gateway on Ray", "Ray Serve, empty app"
EMPTY_APP = Path(__file__).parent / "peers" / "servers" / "ray_empty.py"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True, slots=True)
class StartResults:
    """Seconds to the first answer by what was started, and the gateway on Ray over Ray with an empty app."""

    machine: dict[str, str]
    seconds: dict[str, MedianWithRange]
    over_empty: MedianWithRange


def first_answer_s(what: str, folder: Path) -> float:
    """Seconds from the start of a server, on a copy of the deployment, to its first answer; then ends it."""
    with TemporaryDirectory(prefix="start-") as temporary:
        work = Path(temporary)
        bodies = copy_with_key(folder, work / "deployment", 0.0)
        port, grpc, admin = free_port(), free_port(), free_port()
        command = [sys.executable, str(EMPTY_APP), str(port)]
        if what != EMPTY:
            serve = [
                "-m",
                "gateway",
                "serve",
                str(bodies.folder),
                "--port",
                str(port),
                "--grpc-port",
                str(grpc),
                "--admin-port",
                str(admin),
            ]
            command = [sys.executable, *serve, *(["--local"] if what == LOCAL else [])]
        origin, log = Origin("127.0.0.1", port, tls=False), work / "log"
        request = bodies.requests(origin, LOAD_CASES["json1"])[0]
        begin_s = time.perf_counter()
        with running(command, {}, frozenset(os.sched_getaffinity(0)), log) as child:
            wait_until_ready(what, child, origin, request, log)
            return time.perf_counter() - begin_s


@app.command()
def start(
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    folder: Annotated[Path, typer.Option("--dir", help="The deployment.")] = Path("configs/fashion"),
    out: Annotated[Path | None, typer.Option("--json", help="Everything as JSON; - for stdout.")] = None,
) -> None:
    """Measures how long each takes from its start to its first answer, in turns."""
    console = output.console(out)
    taken: dict[str, list[float]] = {LOCAL: [], ON_RAY: [], EMPTY: []}
    try:
        for _ in range(rounds):
            for what, seconds in taken.items():
                seconds.append(first_answer_s(what, folder))
                console.print(f"{what} {seconds[-1]:.2f} s")
    except WrongInput as error:
        output.wrong_input(str(error))
    spans = {what: MedianWithRange.of(seconds) for what, seconds in taken.items()}
    results = StartResults(machine(), spans, ratios(taken[ON_RAY], taken[EMPTY]))
    table = Table("start", "median s", "least", "most", title="from the start to the first answer")
    for what, span in spans.items():
        table.add_row(what, *(f"{seconds:.2f}" for seconds in (span.median, span.low, span.high)))
    table.caption = f"on Ray over an empty app: {results.over_empty.median:.2f}"
    console.print(table)
    output.write(out, results)


if __name__ == "__main__":
    app(prog_name="python -m bench.start")
