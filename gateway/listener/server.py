"""The listener of the data plane: a lean HTTP/1.1 server over one handler.

It is our own because the door is where limits must hold, whoever is at the other end: uvicorn's httptools
has no timeout for a head or a body and no bound on headers. It also takes half the time, 16 us a request
where uvicorn takes 29 (a handler that replies at once): no ASGI messages, one write, and nothing made anew
that can be made once. llhttp (httptools) still does the parsing.

    Server ── Connection (answers in turn) ── Reader (bytes to requests) ── Handler (the data plane)
         └─ Secured (TLS) ─┘

There are only so many connections: a new one beyond that takes the place of the one that has been idle
longest, or is told that there is no room.

At shutdown it stops accepting, ends idle connections, and lets what is under way finish.
"""

from __future__ import annotations

import asyncio
import math
import socket
import ssl
from collections.abc import Iterable
from heapq import nsmallest

from gateway.listener.connection import Connection, Guest
from gateway.listener.limits import SPARE_CONNECTIONS, Limits, room_for
from gateway.listener.messages import ClientAddresses, Handler
from gateway.listener.tls_transport import Secured

LIMITS = Limits()
LOOKED_UP = 64
"""How many idle connections are looked up at a time: a look at each of 2,048 takes 0.2 ms."""


class Server:
    """Serves one listening socket. `start` it on the loop that serves, once; `stop` it.

    draining: no reply leaves its connection open any more. connections: the living ones, and those that are
    lost while the handler still works for them. tls: serves TLS and nothing else.
    """

    def __init__(
        self,
        handler: Handler,
        limits: Limits = LIMITS,
        proxies: ClientAddresses | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.handler, self.limits, self.proxies, self._tls = handler, limits, proxies, tls
        self.patience_s = (
            limits.idle_s,
            limits.head_s,
            limits.body_s,
            math.inf,  # the handler has deadlines of its own
            limits.stuck_s,
            limits.linger_s,
        )
        self.draining = False
        self.connections: set[Guest] = set()
        self._room = limits.connections
        self._idle: list[tuple[float, Guest]] = []  # as it was when they were looked up, the longest last
        self._seats: dict[str, int] = {}  # connections by principal
        self._most_seats = math.inf if proxies else limits.connections_per_caller
        self._empty = asyncio.Event()
        self._listener: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    async def start(self, listening: socket.socket, backlog: int = 2048) -> None:
        """Begins to accept."""
        loop, tls = asyncio.get_running_loop(), self._tls
        self._room = room_for(self.limits.connections)
        made = (lambda: Connection(self, loop)) if tls is None else (lambda: Secured(self, loop, tls))
        self._listener = await loop.create_server(made, sock=listening, backlog=backlog)
        self._sweeper = loop.call_later(self.limits.sweep_s, self._sweep, loop)

    async def stop(self, grace_s: float) -> None:
        """Stops accepting and returns when the last reply has left, or after `grace_s`: then it hangs up."""
        if self._listener is None:
            return
        self._listener.close()
        self.draining = True
        for one in tuple(self.connections):
            one.drain()
        try:
            async with asyncio.timeout(grace_s):
                await self._gone()
        except TimeoutError:
            for one in tuple(self.connections):
                one.abandon()
            await self._gone()
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._listener = None

    async def _gone(self) -> None:
        """Returns when there is no connection any more."""
        while self.connections:
            self._empty.clear()
            await self._empty.wait()

    def remember(self, one: Guest) -> bool:
        """Counts a connection; whether there is room for it."""
        self.connections.add(one)
        if self.draining:
            one.drain()
        return len(self.connections) <= self._room or self._make_room(one)

    def _make_room(self, newcomer: Guest) -> bool:
        """Hangs up on who has been idle longest. Returns whether there is anybody.

        Who was not among the longest when they were looked up is not among them now, if these are unchanged.
        """
        while True:
            while self._idle:
                since_s, one = self._idle.pop()
                if one.idle_since_s == since_s:
                    one.drain()
                    return True
            idle = ((one.idle_since_s, one) for one in self.connections if one is not newcomer)
            known = [(since_s, one) for since_s, one in idle if since_s is not None]
            self._idle = nsmallest(LOOKED_UP, known, key=lambda pair: pair[0])[::-1]
            if not self._idle:
                return False

    @property
    def overrun(self) -> bool:
        """Whether there are so many connections that nobody more can be told why it is turned away."""
        return len(self.connections) > self._room + SPARE_CONNECTIONS

    def seat(self, principal: str) -> bool:
        """Counts a connection of a principal, unless it has too many. Behind proxies it has never."""
        taken = self._seats.get(principal, 0)
        if taken >= self._most_seats:
            return False
        self._seats[principal] = taken + 1
        return True

    def unseat(self, principals: Iterable[str]) -> None:
        """Counts a connection of each no more."""
        for principal in principals:
            self._seats[principal] -= 1
            if not self._seats[principal]:
                del self._seats[principal]

    def forget(self, one: Guest) -> None:
        self.connections.discard(one)
        if not self.connections:
            self._empty.set()

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Ends what has been waited for too long. Cost: about 50 ns a connection."""
        self._sweeper = loop.call_later(self.limits.sweep_s, self._sweep, loop)
        now_s = loop.time()
        for one in [one for one in self.connections if one.deadline_s <= now_s]:
            one.expire(now_s)
