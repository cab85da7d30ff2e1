"""The HTTP/1.1 server of the data plane and of administration: one listening socket, one handler.

It is our own because limits must hold before a client is known: uvicorn with httptools has no timeout for a
head or a body and no bound on headers. It also takes half the time, 16 us a request where uvicorn takes 29
(with a handler that replies at once): it passes no ASGI messages, writes each reply once, and reuses what
does not change between requests. llhttp (httptools) does the parsing.

    Server ── Connection (replies in order) ── Reader (bytes to requests) ── Handler (the data plane)
         └─ TlsTransport ─┘

The number of connections is bounded, in all and of each address: a new one beyond a bound replaces one that
waits, in the order of `groups`; if none does, it gets a 503.

At shutdown the server stops accepting, closes idle connections, and finishes the requests under way.
"""

from __future__ import annotations

import asyncio
import socket
import ssl

from gateway.listener.connection import Connection
from gateway.listener.limits import Limits
from gateway.listener.messages import ClientAddresses, Handler
from gateway.listener.pool import ConnectionPool
from gateway.listener.states import timeouts_s
from gateway.listener.tls_transport import TlsTransport

LIMITS = Limits()


class Server(ConnectionPool):
    """Serves one listening socket. `start` it once, on the loop that serves; then `stop` it.

    tls: all connections are of TLS.
    """

    def __init__(
        self,
        handler: Handler,
        limits: Limits = LIMITS,
        proxies: ClientAddresses | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(limits, proxies)
        self.handler, self._tls = handler, tls
        self.timeouts_s = timeouts_s(limits)

    async def start(self, listening: socket.socket, backlog: int = 2048) -> None:
        """Begins to accept."""
        loop, tls = asyncio.get_running_loop(), self._tls
        made = (lambda: Connection(self, loop)) if tls is None else (lambda: TlsTransport(self, loop, tls))
        await self.accept(listening, made, backlog)
