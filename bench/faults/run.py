"""Runs one cell: puts its fault in place, sends rows, takes it out, and checks the history."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from bench.faults.cell import Cell
from bench.faults.client import Connections, Exchange, send_at
from bench.faults.history import (
    Violation,
    check_admitted,
    check_audit,
    check_records,
    check_replies,
    check_review,
    check_room,
    ends_of,
)
from bench.faults.outside import broken
from bench.faults.result import CellResult, result_of
from bench.faults.review_faults import ROOM
from bench.faults.rows import GOOD, OUTLIER
from bench.faults.world import World

OPEN_CONNECTIONS: Final = 16
REVIEW_S, AUDIT_S, POLL_S = 15.0, 10.0, 0.1
OVER_LIMIT, QUEUE_FULL = "rate / caller over its limit", "review / queue full"


async def run_cell(world: World, cell: Cell, n: int, rate: float) -> CellResult:
    """One cell with n requests, so many a second. Cost: n / rate seconds and about one more."""
    await world.served.command("clear")
    await world.served.command("records")
    audit = world.audit_sizes()
    found: list[Violation] = []
    exchanges, elapsed_s = await _load(world, cell, n, rate, found)
    again = await world.recover()
    if not ends_of(again[-1:])["served"]:
        found.append(Violation("wrong end", "", "no good row is served after the fault"))
    records = await _records(world, cell, audit)
    found += check_replies(exchanges, world.rules, {GOOD: cell.good, OUTLIER: cell.outliers})
    found += check_records(exchanges, records, world.rules)
    found += await _review(world, [*exchanges, *again])
    found += await _audit(world, records, audit)
    if cell.name == OVER_LIMIT:
        found += check_admitted(exchanges, world.most_admitted(elapsed_s))
    if cell.name == QUEUE_FULL:
        found += check_room([*exchanges, *again], ROOM)
    return result_of(cell, exchanges, found)


async def _load(
    world: World, cell: Cell, n: int, rate: float, found: list[Violation]
) -> tuple[list[Exchange], float]:
    """What callers saw while the fault was in place, and for how long they sent."""
    requests = world.rows.requests(cell.name, n, world.limited_key if cell.name == OVER_LIMIT else None)
    connections = Connections(world.served.ports[0])
    loop = asyncio.get_running_loop()
    try:
        await connections.open(OPEN_CONNECTIONS)
        async with broken(world, cell, found):
            await asyncio.sleep(cell.settle_s)
            start_s = loop.time()
            exchanges = await send_at(connections, requests, rate)
            elapsed_s = loop.time() - start_s
    finally:
        connections.close()
    return exchanges, elapsed_s


async def _records(world: World, cell: Cell, audit: Mapping[Path, int]) -> list[dict[str, Any]]:
    """What the gateway recorded; of a process that has ended, what its audit log has."""
    if cell.restarts:
        return [line for line in world.audit_lines(audit) if "findings" in line]
    return [orjson.loads(line) for line in await world.served.command("records")]


async def _review(world: World, exchanges: Sequence[Exchange]) -> list[Violation]:
    """What is wrong in the review store once withdrawals, which are tried again, have had their time."""
    until_s = asyncio.get_running_loop().time() + REVIEW_S
    while True:
        found = list(check_review(exchanges, world.waiting()))
        if not any(one.kind == "in vain" for one in found) or asyncio.get_running_loop().time() > until_s:
            return found
        await asyncio.sleep(POLL_S)


async def _audit(
    world: World, records: Sequence[Mapping[str, Any]], since: Mapping[Path, int]
) -> list[Violation]:
    """What is missing in the audit log once it has had its time; a gap is stated with what follows it."""
    until_s = asyncio.get_running_loop().time() + AUDIT_S
    while True:
        found = list(check_audit(records, world.audit_lines(since)))
        if not found or asyncio.get_running_loop().time() > until_s:
            return found
        await world.recover()
        await asyncio.sleep(POLL_S)
