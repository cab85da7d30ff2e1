"""Connections whose bytes wait to be parsed: a slice of time in each turn of the loop, callers in turns.

An event loop delivers everything that is ready before it does anything else. With a thousand busy connections
of one caller that is tens of milliseconds of parsing, and each request of another caller, or a health probe,
would wait for all of it at every step on its way. So a turn of the loop parses for a slice of time; what has
arrived beyond that is kept as bytes, and its connection is not read on. The next turns take what is kept, one
connection of each caller after the other, between everything else that the loop has to do.

A caller is what the connection says: who was identified on it, or its address. Requests without a body (GET,
HEAD) have turns of their own, so that a health probe does not wait behind inference from its address.

What is kept is at most one delivery a connection. The deadline of a request counts from when its bytes came.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, Protocol

SLICE_S: Final = 0.003
"""What 64 busy connections send at once still makes one batch. The tasks and replies of what a slice parses,
in the next turn, take three times as long."""
SHARE: Final = 0.5
"""Of the turn before, if that is more: parsing keeps up with the passes of models, which make turns long."""
BODILESS: Final = (b"GET ", b"HEAD ")


class QueuedConnection(Protocol):
    """A connection that has kept bytes: `read_kept` parses them."""

    def read_kept(self) -> None: ...


class ReadQueue:
    """The kept connections of a server, for one event loop. Cost: 0.1 us a read, 2 us one that waits.

    clock: seconds, finer than those of the loop.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._waiting: dict[str, dict[QueuedConnection, None]] = {}
        self._until_s = 0.0  # when this turn's slice ends; 0 if no turn is scheduled
        self._begun_s = 0.0  # when the turn before began, if it left any; else 0

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def may_read(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether what has just arrived is to be parsed at once."""
        if self._waiting:
            return False
        now_s = self._clock()
        if not self._until_s:
            self._until_s = now_s + SLICE_S
            loop.call_soon(self._turn, loop)
        return now_s < self._until_s

    def add(self, connection: QueuedConnection, caller: str, data: bytes) -> None:
        """Has `read_kept` called when it is the connection's turn, after `may_read` has said no."""
        turn = f"GET {caller}" if data.startswith(BODILESS) else caller
        self._waiting.setdefault(turn, {})[connection] = None

    def discard(self, connection: QueuedConnection) -> None:
        """Forgets a connection, if it waits. Cost: 0.1 us a caller."""
        for caller, connections in self._waiting.items():
            if connection in connections:
                del connections[connection]
                if not connections:
                    del self._waiting[caller]
                return

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        """Parses what was kept in earlier turns, of one connection at least; what arrives now is kept too."""
        now_s = self._clock()
        until_s = now_s + SLICE_S
        if self._begun_s:
            until_s = max(until_s, now_s + SHARE * (now_s - self._begun_s))
        while self._waiting:
            self._next().read_kept()
            if self._clock() >= until_s:
                break
        if self._waiting:
            self._until_s, self._begun_s = until_s, now_s
            loop.call_soon(self._turn, loop)
        else:
            self._until_s = self._begun_s = 0.0

    def _next(self) -> QueuedConnection:
        """Removes the connection whose turn it is; its caller's next one comes after all other callers'."""
        caller = next(iter(self._waiting))
        connections = self._waiting.pop(caller)
        connection = next(iter(connections))
        del connections[connection]
        if connections:
            self._waiting[caller] = connections
        return connection
