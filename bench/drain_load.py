"""What callers see of a gateway that is told to end, for `bench.drain`: three kinds of them, and its port."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.faults.client import Connections, Exchange, Request
from bench.requests import WrongInput

PAUSE_S: Final = 0.005
"""Between a reply and the next request of an ordinary caller."""
LOOK_S: Final = 0.002
LISTENS: Final = "0A"
REFUSED: Final = "ConnectionRefusedError"
TCP: Final = Path("/proc/net/tcp")


@dataclass(slots=True)
class Seen:
    """Every exchange of the callers of one kind, those that were refused a connection left out."""

    all: list[Exchange] = field(default_factory=list)

    async def send(self, connections: Connections, payload: bytes) -> bool:
        """One request to its end. False if the port is closed."""
        exchange = await connections.send(Request("", "", 1, payload))
        if exchange.error == REFUSED:
            return False
        self.all.append(exchange)
        return True


async def send_until_closed(port: int, payloads: Sequence[bytes], callers: int) -> Seen:
    """Callers that send one request after another until the port is closed."""
    seen = Seen()

    async def call(first: int) -> None:
        connections = Connections(port)
        for payload in itertools.islice(itertools.cycle(payloads), first, None):
            if not await seen.send(connections, payload):
                break
            await asyncio.sleep(PAUSE_S)
        connections.close()

    await asyncio.gather(*(call(i) for i in range(callers)))
    return seen


async def send_once(port: int, payloads: Sequence[bytes]) -> Seen:
    """All of these at the same time, each over a connection of its own."""
    seen, connections = Seen(), Connections(port)
    await asyncio.gather(*(seen.send(connections, payload) for payload in payloads))
    connections.close()
    return seen


async def ending_with(port: int, payloads: Sequence[bytes], outcome: str, count: int) -> list[bytes]:
    """So many requests that end so, each tried once. Raises WrongInput if there are fewer."""
    seen, connections, found = Seen(), Connections(port), list[bytes]()
    for payload in payloads:
        await seen.send(connections, payload)
        reply = seen.all[-1].reply
        if reply is not None and reply.headers.get("x-failsafe-outcome") == outcome:
            found.append(payload)
            if len(found) == count:
                break
    connections.close()
    if len(found) < count:
        raise WrongInput(f"fewer than {count} of {len(payloads)} rows are {outcome}")
    return found


class ListeningWatch:
    """Looks again and again whether a port of loopback listens. last_s: when it did the last time."""

    def __init__(self, port: int) -> None:
        self._port, self._over = f":{port:04X} ", threading.Event()
        self.last_s = 0.0
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> ListeningWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(LOOK_S):
            now_s = time.monotonic()
            if any(self._is_listening(line) for line in TCP.read_text("ascii").splitlines()):
                self.last_s = now_s

    def _is_listening(self, line: str) -> bool:
        parts = line.split()
        return f"{parts[1]} ".endswith(self._port) and parts[3] == LISTENS
