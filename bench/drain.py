"""SIGTERM under load: `python -m bench.drain [--json FILE]`. No request may be lost, and the end is in time.

`gateway serve --local` serves two deployments made of one folder: a copy, and one whose primary is in another
server that takes eight seconds. Callers ask the copy without a pause, some wait for a reviewer, and some for
the slow model; then it gets SIGTERM. Once its collector of traces and metrics accepts and never answers, and
once it refuses.

A request is lost if it was sent while the port was seen to listen, and got no whole reply. Exit code 0: none
is lost, each caller that waited was told where to ask later and finds its row there after a restart, every
reply is in the audit log, and the process ended with 0 within its longest deadline, `drain_s` and what
docs/operating.md allows more.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Final

import httpx
import orjson
import typer
from rich.table import Table

from bench import output
from bench.drain_load import ListeningWatch, Seen, ending_with, send_once, send_until_closed
from bench.drain_served import Deployments, Served, no_collector, prepared, served, silent_collector
from bench.faults.client import Exchange
from bench.machine import machine
from bench.requests import RequestMix, WrongInput, render_requests
from gateway.deployment.deployment import VAR

SLOW_S: Final = 8.0
SLOW_CALLERS, WAITING_CALLERS = 2, 8
"""Of the slow ones as many as batches are under way at the same time: a third would wait for its turn."""
LOAD_S: Final = 2.0
BEFORE_S: Final = 0.5
"""From the slow requests to the signal."""
REQUEST_LINE, PREFER = b" HTTP/1.1\r\n", b" HTTP/1.1\r\nprefer: wait=30\r\n"
DECISION: Final = "x-failsafe-decision-id"
COLLECTORS: Final[dict[str, Callable[[], AbstractAsyncContextManager[str]]]] = {
    "never answers": silent_collector,
    "refuses": no_collector,
}
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True, slots=True)
class Drain:
    """One end. at_close: no reply to what was sent when the port was closed, or may have been.

    told: waiting callers that got their `review_url`; resolved: of these, found after a restart; unaudited:
    replies whose id is not in the audit log; exit_s: from the signal to the end; bound_s: the most.
    """

    collector: str
    sent: int
    answered: int
    lost: int
    at_close: int
    slow_sent: int
    slow_answered: int
    waiting: int
    told: int
    resolved: int
    unaudited: int
    exit_code: int
    exit_s: float
    bound_s: float

    @property
    def well(self) -> bool:
        kept = self.waiting == self.told == self.resolved and not self.unaudited
        in_time = self.exit_code == 0 and self.exit_s <= self.bound_s
        return not self.lost and self.slow_answered == self.slow_sent and kept and in_time


@dataclass(frozen=True, slots=True)
class DrainResults:
    """One `Drain` for each kind of collector."""

    machine: dict[str, str]
    drains: list[Drain]


@dataclass(frozen=True, slots=True)
class Payloads:
    """Whole requests of each kind of caller."""

    quick: Sequence[bytes]
    slow: Sequence[bytes]
    waiting: Sequence[bytes]

    @classmethod
    async def chosen(cls, running: Served, of: Deployments) -> Payloads:
        """Rows that the quick model, and the slow one while it is quick, have answered or deferred."""
        good, odd = RequestMix(1, 0.0), RequestMix(1, 1.0)
        quick = await asyncio.to_thread(render_requests, running.quick, of.folders[0], good)
        outliers = await asyncio.to_thread(render_requests, running.quick, of.folders[0], odd)
        slow = await asyncio.to_thread(render_requests, running.slow, of.folders[1], good)
        waiting = await ending_with(running.port, outliers, "deferred", WAITING_CALLERS)
        answered = await ending_with(running.port, slow, "served", SLOW_CALLERS)
        return cls(quick, answered, [one.replace(REQUEST_LINE, PREFER, 1) for one in waiting])


@dataclass(frozen=True, slots=True)
class Callers:
    """What callers of each kind saw. closed_s: when the port was seen to listen the last time."""

    quick: Seen
    slow: Seen
    waiting: Seen
    closed_s: float

    @property
    def all(self) -> list[Exchange]:
        return [one for seen in (self.quick, self.slow, self.waiting) for one in seen.all]

    @property
    def lost(self) -> int:
        """Without a whole reply to what was sent while the port was open for certain."""
        return sum(one.reply is None and one.sent_s < self.closed_s for one in self.all)

    @property
    def slow_answered(self) -> int:
        replies = [one.reply for one in self.slow.all if one.elapsed_s >= SLOW_S]
        return sum(one is not None and one.status == 200 for one in replies)

    @property
    def told(self) -> list[str]:
        urls = (one.reply.document.get("review_url") for one in self.waiting.all if one.reply is not None)
        return [str(url) for url in urls if url]

    def ids(self) -> set[str]:
        """Of the decisions that were told."""
        replies = (one.reply for one in self.all)
        return {one.headers[DECISION] for one in replies if one is not None and DECISION in one.headers}


async def drain_once(of: Deployments, work: Path, name: str, callers: int) -> Drain:
    """Serves, ends it under load, and looks at what was left. Raises WrongInput if it does not serve."""
    async with COLLECTORS[name]() as collector:
        async with served(of, work, collector) as running:
            seen, exit_code, exit_s = await _ended_under_load(running, of, callers)
        await of.upstream.put("")
        async with served(of, work, collector) as running:
            resolved = await asyncio.to_thread(_resolved, running, seen.told)
    answered = sum(one.reply is not None for one in seen.all)
    return Drain(
        collector=name,
        sent=len(seen.all),
        answered=answered,
        lost=seen.lost,
        at_close=len(seen.all) - answered - seen.lost,
        slow_sent=SLOW_CALLERS,
        slow_answered=seen.slow_answered,
        waiting=WAITING_CALLERS,
        told=len(seen.told),
        resolved=resolved,
        unaudited=len(seen.ids() - _audited(of)),
        exit_code=exit_code,
        exit_s=exit_s,
        bound_s=of.bound_s,
    )


async def _ended_under_load(running: Served, of: Deployments, callers: int) -> tuple[Callers, int, float]:
    """What callers saw, the exit code, and after how many seconds it came."""
    port, payloads = running.port, await Payloads.chosen(running, of)
    await of.upstream.put(f"slow {SLOW_S}")
    with ListeningWatch(port) as watch:
        load = asyncio.create_task(send_until_closed(port, payloads.quick, callers))
        waiting = asyncio.create_task(send_once(port, payloads.waiting))
        await asyncio.sleep(LOAD_S)
        slow = asyncio.create_task(send_once(port, payloads.slow))
        await asyncio.sleep(BEFORE_S)
        exit_code, exit_s = await _end(running, of.bound_s)
        seen = await asyncio.gather(load, slow, waiting)
    return Callers(*seen, watch.last_s), exit_code, exit_s


async def _end(running: Served, bound_s: float) -> tuple[int, float]:
    """Sends SIGTERM; the exit code, and after how many seconds it came."""
    began_s = time.monotonic()
    running.process.send_signal(signal.SIGTERM)
    code = await asyncio.to_thread(running.process.wait, 2 * bound_s)
    return code, time.monotonic() - began_s


def _resolved(running: Served, urls: Sequence[str]) -> int:
    """How many of these pages are there for their caller."""
    origin, headers = f"http://{running.quick.origin.authority}", {"x-api-key": str(running.quick.key)}
    return sum(httpx.get(origin + url, headers=headers, timeout=10).status_code in (200, 202) for url in urls)


def _audited(of: Deployments) -> set[str]:
    paths = [path for folder in of.folders for path in (folder / VAR).glob("decisions-*.jsonl")]
    lines = (orjson.loads(line) for path in paths for line in path.read_bytes().splitlines())
    return {str(line["id"]) for line in lines if "id" in line}


async def _drains(folder: Path, callers: int) -> list[Drain]:
    with TemporaryDirectory(prefix="drain-") as scratch:
        work = Path(scratch)
        async with prepared(folder, work) as of:
            return [await drain_once(of, work, name, callers) for name in COLLECTORS]


@app.command()
def drain(
    callers: Annotated[int, typer.Option(min=1, help="Ordinary ones.")] = 8,
    folder: Annotated[Path, typer.Option("--dir", help="The deployment.")] = Path("configs/letters"),
    out: Annotated[Path | None, typer.Option("--json", help="Everything as JSON; - for stdout.")] = None,
) -> None:
    """Ends a gateway under load; exit code 1 if a request is lost or the end is late."""
    try:
        results = DrainResults(machine(), asyncio.run(_drains(folder.resolve(), callers)))
    except WrongInput as error:
        output.wrong_input(str(error))
    output.console(out).print(_table(results))
    output.write(out, results)
    if not all(one.well for one in results.drains):
        raise typer.Exit(1)


def _table(results: DrainResults) -> Table:
    columns = ("answered", "lost", "at the close", f"of {SLOW_S:g} s", "told where", "found there")
    table = Table("collector", *columns, "not in audit", "exit", "seconds to it")
    for one in results.drains:
        table.add_row(
            one.collector,
            f"{one.answered} of {one.sent}",
            *map(str, (one.lost, one.at_close)),
            f"{one.slow_answered} of {one.slow_sent}",
            f"{one.told} of {one.waiting}",
            *map(str, (one.resolved, one.unaudited, one.exit_code)),
            f"{one.exit_s:.2f} of {one.bound_s:g}",
        )
    return table


if __name__ == "__main__":
    app(prog_name="python -m bench.drain")
