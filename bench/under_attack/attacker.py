"""Carries out one attack until its time is over: `python -m bench.under_attack.attacker PLAN.json`.

`send`: every connection sends one request after the other and reads each reply. `hold`: every connection
sends the beginning of something, or nothing, and waits until the server closes it. Both connect again at
once. A process of its own, of low priority: it competes with the server for the machine's two cores.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import orjson

NICENESS = 10
RECONNECT_S, REPLY_S = 0.05, 40.0
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class AttackPlan:
    """One attack. payloads: files of what connections send in turn; addresses: those that they come from."""

    mechanism: Literal["send", "hold"]
    port: int
    connections: int
    addresses: tuple[str, ...]
    payloads: tuple[str, ...]
    seconds: float

    @classmethod
    def read(cls, path: Path) -> Self:
        plan = orjson.loads(path.read_bytes())
        return cls(**{**plan, "addresses": tuple(plan["addresses"]), "payloads": tuple(plan["payloads"])})


async def _send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, payload: bytes) -> str:
    """The status of the reply to one request."""
    writer.write(payload)
    async with asyncio.timeout(REPLY_S):
        head = await reader.readuntil(b"\r\n\r\n")
        if length := LENGTH.search(head):
            await reader.readexactly(int(length[1]))
    return head[9:12].decode("ascii", "replace")


async def _hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, payload: bytes) -> str:
    """Waits until the server closes the connection."""
    writer.write(payload)
    while await reader.read(4096):
        pass
    raise ConnectionResetError


MECHANISMS: dict[str, Callable[[asyncio.StreamReader, asyncio.StreamWriter, bytes], Awaitable[str]]] = {
    "send": _send,
    "hold": _hold,
}


async def _connection(plan: AttackPlan, at: int, payloads: list[bytes], ends: Counter[str]) -> None:
    """One connection after the other from one address, until it is cancelled."""
    mechanism, address, sent = MECHANISMS[plan.mechanism], plan.addresses[at % len(plan.addresses)], at
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", plan.port, local_addr=(address, 0))
        except OSError:
            ends["not connected"] += 1
            await asyncio.sleep(RECONNECT_S)
            continue
        try:
            while True:
                ends[await mechanism(reader, writer, payloads[sent % len(payloads)])] += 1
                sent += plan.connections
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            ends["closed"] += 1
            await asyncio.sleep(RECONNECT_S)
        finally:
            writer.transport.abort()


async def attack(plan: AttackPlan, payloads: list[bytes]) -> Counter[str]:
    """How often each end came."""
    ends = Counter[str]()
    tasks = [asyncio.create_task(_connection(plan, at, payloads, ends)) for at in range(plan.connections)]
    await asyncio.sleep(plan.seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return ends


def main(path: Path) -> None:
    os.nice(NICENESS)
    plan = AttackPlan.read(path)
    payloads = [Path(one).read_bytes() for one in plan.payloads] or [b""]
    sys.stdout.buffer.write(orjson.dumps(asyncio.run(attack(plan, payloads))))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
