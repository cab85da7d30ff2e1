"""Puts the fault of a cell in place, and takes it out: through the gateway's process, or from outside it."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import Final, cast

from bench.faults.cell import CONTROL, Cell
from bench.faults.history import Violation
from bench.faults.proxy import MODES, Mode
from bench.faults.reloads import reloaded
from bench.faults.timed import EVENT_AFTER_S, meanwhile
from bench.faults.world import World

STOPPED_S: Final = 1.0
SIGNALS: Final = {"SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT, "kill -9": signal.SIGKILL}
NO_FAULT: Final = (CONTROL.name, "rate / caller over its limit")


@asynccontextmanager
async def broken(world: World, cell: Cell, found: list[Violation]) -> AsyncIterator[None]:
    """The fault of the cell is in place in the block. found: gets what ends otherwise than it must."""
    match cell.stage, cell.fault:
        case _ if cell.name in NO_FAULT:
            yield
        case "review", "locked":
            with closing(sqlite3.connect(world.review_path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                yield
        case "review", "deleted":
            async with _deleted_review(world):
                yield
        case "audit", "deleted":
            for path in world.audit_paths():
                path.unlink()
            yield
        case "audit", "a folder in its place":
            async with _folder_for_audit(world):
                yield
        case "files", _:
            async with reloaded(world, cell.fault, found):
                yield
        case "exporter", _:
            assert world.exporter is not None
            await world.exporter.use(cast(Mode, cell.fault))
            yield
            await world.exporter.use("pass")
        case "process", "stopped for 1 s":
            async with meanwhile(_pause(world)):
                yield
        case "process", name if name in SIGNALS:
            async with _ended(world, SIGNALS[name], found):
                yield
        case "upstream", _:
            async with _upstream(world, cell.fault):
                yield
        case _:
            for part, fault in ((cell.stage, cell.fault), *cell.beside):
                await world.served.command("put", [part, fault])
            yield
    await world.served.command("heal")


async def _pause(world: World) -> None:
    await asyncio.sleep(EVENT_AFTER_S)
    world.served.process.signal(signal.SIGSTOP)
    await asyncio.sleep(STOPPED_S)
    world.served.process.signal(signal.SIGCONT)


@asynccontextmanager
async def _ended(world: World, number: signal.Signals, found: list[Violation]) -> AsyncIterator[None]:
    """The process is ended by a signal while it serves, and started again after the load."""

    async def end() -> None:
        await asyncio.sleep(EVENT_AFTER_S)
        world.served.process.signal(number)

    async with meanwhile(end()):
        yield
    code = await world.served.process.ended()
    await world.restart()
    if code != (-signal.SIGKILL if number is signal.SIGKILL else 0):
        found.append(Violation("wrong end", "", f"exit code {code} after {number.name}"))


@asynccontextmanager
async def _deleted_review(world: World) -> AsyncIterator[None]:
    for path in world.review_path.parent.glob("review.db*"):
        path.unlink()
    yield
    world.served.process.signal(signal.SIGINT)
    await world.served.process.ended()
    await world.restart()


@asynccontextmanager
async def _folder_for_audit(world: World) -> AsyncIterator[None]:
    path = world.audit_paths()[-1]
    aside = path.with_suffix(".aside")
    path.rename(aside)
    path.mkdir()
    yield
    path.rmdir()
    aside.rename(path)


@asynccontextmanager
async def _upstream(world: World, fault: str) -> AsyncIterator[None]:
    upstream, proxy = world.upstream, world.upstream_proxy
    assert upstream is not None
    assert proxy is not None
    match fault:
        case "kill -9":
            upstream.process.signal(signal.SIGKILL)
            await upstream.process.ended()
            yield
            proxy.behind = "127.0.0.1", await upstream.start()
        case "stopped":
            upstream.process.signal(signal.SIGSTOP)
            yield
            upstream.process.signal(signal.SIGCONT)
        case mode if mode in MODES:
            await proxy.use(mode)
            yield
            await proxy.use("pass")
        case _:
            await upstream.put(fault)
            yield
            await upstream.put("")
