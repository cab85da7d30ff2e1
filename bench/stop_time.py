"""From the switch to the last answer: `python -m bench.stop_time [--rounds 5] [--ray] [--json FILE]`.

A gateway under load is stopped in three ways in turn, then resumed: with `gateway stop`, through the
administration, and by writing the file alone. For each: when the last answer of a model came, and when the
stop said that it was in force, both from its begin; after that no answer may come. Writing the file alone
does not wait until it is in force.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import httpx
import typer
from rich.table import Table

from bench import output
from bench.answer_times import ANSWERS_BEFORE, Load
from bench.client import Origin
from bench.machine import machine
from bench.peers.compare import copy_with_key
from bench.peers.load_cases import LOAD_CASES
from bench.peers.process import free_port, running
from bench.peers.ratios import MedianWithRange
from bench.peers.verify import wait_until_ready
from bench.requests import WrongInput
from gateway.replica import TOKEN_VARIABLE
from gateway.serving.latch_file import LatchFile
from gateway.serving.stops import Scope, Stop

TOKEN = "token-of-the-stop-benchmark"  # noqa: S105
UNDER_WAY_S, AFTER_S, RESUMED_S = 30.0, 1.0, 0.5
COMMAND, ADMINISTRATION, FILE = "gateway stop", "administration", "file alone"
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True, slots=True)
class StopTime:
    """Seconds from the begin of a stop to the last answer, from its file to that, and to the stop's own end.

    after: answers that came after that end.
    """

    last_answer_s: float
    file_to_last_s: float
    in_force_s: float
    after: int


@dataclass(frozen=True, slots=True)
class StopResults:
    """`StopTime` by the way of stopping, over all rounds; answers_after: their sum."""

    machine: dict[str, str]
    last_answer_s: dict[str, MedianWithRange]
    file_to_last_s: dict[str, MedianWithRange]
    in_force_s: dict[str, MedianWithRange]
    answers_after: dict[str, int]


@dataclass(frozen=True, slots=True)
class Ways:
    """How a deployment that is served here is stopped. Each but the last returns once that is in force."""

    folder: Path
    admin: str

    @property
    def file(self) -> LatchFile:
        return LatchFile.of(self.folder, None)

    def by_command(self) -> None:
        command = [sys.executable, "-m", "gateway", "stop", str(self.folder)]
        subprocess.run(command, check=True, capture_output=True)  # noqa: S603 (our own command)

    def by_administration(self) -> None:
        bearer = {"authorization": f"Bearer {TOKEN}"}
        httpx.post(f"{self.admin}/stop", headers=bearer, timeout=10).raise_for_status()

    def by_file(self) -> None:
        """Returns once the file is on the disk, where the gateway has yet to read it."""
        self.file.stop(Stop(by="bench", at=datetime.now(UTC)))

    def resume(self) -> None:
        self.file.resume(Scope())


async def stop_once(load: Load, stop: Callable[[], None], file: LatchFile, connections: int) -> StopTime:
    """Stops under load. What a command takes to begin its work is part of its time."""
    sending = asyncio.create_task(load.run(connections))
    try:
        async with asyncio.timeout(UNDER_WAY_S):
            await load.under_way.wait()
    except TimeoutError:
        raise WrongInput(f"fewer than {ANSWERS_BEFORE} rows are answered in {UNDER_WAY_S:g} s") from None
    begin_s = time.time()
    await asyncio.to_thread(stop)
    end_s = time.time()
    await asyncio.sleep(AFTER_S)
    sending.cancel()
    last_s, after = load.answered_s[-1], sum(at_s > end_s for at_s in load.answered_s)
    stamp = file.stamp()
    assert stamp is not None
    return StopTime(last_s - begin_s, last_s - stamp[0] / 1e9, end_s - begin_s, after)


@contextmanager
def served(folder: Path, work: Path, *, ray: bool) -> Iterator[tuple[Origin, bytes, Ways]]:
    """A gateway that answers, on a copy of the deployment."""
    bodies = copy_with_key(folder, work / "deployment", 0.0)
    port, grpc, admin = free_port(), free_port(), free_port()
    ports = ["--port", str(port), "--grpc-port", str(grpc), "--admin-port", str(admin)]
    flags = ["--replicas", "2"] if ray else ["--local"]
    command = [sys.executable, "-m", "gateway", "serve", str(bodies.folder), *ports, *flags]
    origin, log = Origin("127.0.0.1", port, tls=False), work / "log"
    request = bodies.requests(origin, LOAD_CASES["json1"])[0]
    with running(command, {TOKEN_VARIABLE: TOKEN}, frozenset(os.sched_getaffinity(0)), log) as child:
        wait_until_ready("the gateway", child, origin, request, log)
        yield origin, request, Ways(bodies.folder, f"http://127.0.0.1:{admin}")


@app.command()
def stop_time(
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    connections: Annotated[int, typer.Option(min=1)] = 16,
    ray: Annotated[bool, typer.Option("--ray", help="Two replicas on Ray instead of --local.")] = False,
    folder: Annotated[Path, typer.Option("--dir", help="The deployment.")] = Path("configs/letters"),
    out: Annotated[Path | None, typer.Option("--json", help="Everything as JSON; - for stdout.")] = None,
) -> None:
    """Measures how long answers still leave after a stop; exit code 1 if one leaves once it is in force."""
    found: dict[str, list[StopTime]] = {}
    try:
        with TemporaryDirectory(prefix="stop-") as work, served(folder, Path(work), ray=ray) as running_one:
            origin, request, ways = running_one
            named = {COMMAND: ways.by_command, ADMINISTRATION: ways.by_administration, FILE: ways.by_file}
            for _, (name, stop) in itertools.product(range(rounds), named.items()):
                once = stop_once(Load(origin, [request]), stop, ways.file, connections)
                found.setdefault(name, []).append(asyncio.run(once))
                ways.resume()
                time.sleep(RESUMED_S)
    except WrongInput as error:
        output.wrong_input(str(error))
    results = _results(found)
    output.console(out).print(_table(results))
    output.write(out, results)
    if results.answers_after[COMMAND] or results.answers_after[ADMINISTRATION]:
        raise typer.Exit(1)


def _results(found: Mapping[str, Sequence[StopTime]]) -> StopResults:
    def over_rounds(figure: str) -> dict[str, MedianWithRange]:
        return {
            name: MedianWithRange.of([getattr(one, figure) for one in times]) for name, times in found.items()
        }

    return StopResults(
        machine(),
        over_rounds("last_answer_s"),
        over_rounds("file_to_last_s"),
        over_rounds("in_force_s"),
        {name: sum(one.after for one in times) for name, times in found.items()},
    )


def _table(results: StopResults) -> Table:
    columns = ("begin to last answer", "file to last answer", "begin to in force", "answers after that")
    table = Table("way", *columns, title="seconds from a stop under load: median (least to most)")
    for name, after in results.answers_after.items():
        spans = (results.last_answer_s[name], results.file_to_last_s[name], results.in_force_s[name])
        table.add_row(
            name, *(f"{one.median:.3f} ({one.low:.3f} to {one.high:.3f})" for one in spans), str(after)
        )
    return table


if __name__ == "__main__":
    app(prog_name="python -m bench.stop_time")
