"""The listener of the data plane: a lean HTTP/1.1 server over one handler.

It is our own because the door is where limits must hold, whoever is at the other end: uvicorn's httptools
has no timeout for a head or a body and no bound on headers. It also takes half the time, 16 us a request
where uvicorn takes 29 (a handler that replies at once): no ASGI messages, one write, and nothing made anew
that can be made once. llhttp (httptools) still does the parsing.

    Server ── Connection (answers in turn) ── Reader (bytes to requests) ── Handler (the data plane)

At shutdown it stops accepting, ends idle connections, and lets what is under way finish.
"""

from __future__ import annotations

import asyncio
import math
import socket

from gateway.connection import Connection
from gateway.limits import Limits
from gateway.proxies import Proxies
from gateway.request import Handler

LIMITS = Limits()


class Server:
    """Serves one listening socket. `start` it on the loop that serves, once; `stop` it.

    draining: no reply leaves its connection open any more. connections: the living ones, and those that are
    lost while the handler still works for them.
    """

    def __init__(self, handler: Handler, limits: Limits = LIMITS, proxies: Proxies | None = None) -> None:
        self.handler, self.limits, self.proxies = handler, limits, proxies
        self.patience_s = (
            limits.idle_s,
            limits.head_s,
            limits.body_s,
            math.inf,  # the handler has deadlines of its own
            limits.stuck_s,
            limits.linger_s,
        )
        self.draining = False
        self.connections: set[Connection] = set()
        self._empty = asyncio.Event()
        self._listener: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    async def start(self, listening: socket.socket, backlog: int = 2048) -> None:
        """Begins to accept."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            lambda: Connection(self, loop), sock=listening, backlog=backlog
        )
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

    def remember(self, one: Connection) -> None:
        self.connections.add(one)
        if self.draining:
            one.drain()

    def forget(self, one: Connection) -> None:
        self.connections.discard(one)
        if not self.connections:
            self._empty.set()

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Ends what has been waited for too long. Cost: about 50 ns a connection."""
        self._sweeper = loop.call_later(self.limits.sweep_s, self._sweep, loop)
        now_s = loop.time()
        for one in [one for one in self.connections if one.deadline_s <= now_s]:
            one.expire(now_s)
