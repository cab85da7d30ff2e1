"""A connection before TLS is up: it counts like any other, and becomes a `Connection` when it is.

asyncio could do the handshake by itself, but tells nobody of a connection before that is over: whoever opens
connections and says nothing would be counted by no limit.
"""

from __future__ import annotations

import asyncio
import logging
import math
import ssl

from gateway.connection import Connection, Owner

SHUTDOWN_S = 3600.0
"""For how long asyncio may try to end TLS in good order; the deadlines of the connection end that before."""
log = logging.getLogger(__name__)


class Handshake(asyncio.Protocol):
    """One connection of a server until TLS is up, a `Guest`. Ends after `Limits.handshake_s`.

    Cost: about 1 ms of CPU for a new client, nearly all of it OpenSSL's.
    """

    def __init__(self, server: Owner, loop: asyncio.AbstractEventLoop, tls: ssl.SSLContext) -> None:
        self._server, self._loop, self._tls = server, loop, tls
        self._early: list[bytes] = []  # asyncio's own loop may be ahead of whoever awaits the handshake
        self.deadline_s = math.inf  # the handshake has a timeout of its own
        self.idle_since_s: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._below: asyncio.Transport = transport  # type: ignore[assignment]
        self.idle_since_s = self._loop.time()
        self._below.pause_reading()  # what comes is for TLS, which takes over in a moment
        if not self._server.remember(self) and self._server.overrun:
            self._below.abort()
            self._server.forget(self)
        else:
            self._task = self._loop.create_task(self._shake_hands())

    def data_received(self, data: bytes) -> None:
        self._early.append(data)

    async def _shake_hands(self) -> None:
        below = self._below
        try:
            above = await self._loop.start_tls(
                below,
                self,
                self._tls,
                server_side=True,
                ssl_handshake_timeout=self._server.limits.handshake_s,
                ssl_shutdown_timeout=SHUTDOWN_S,
            )
        except OSError as error:  # of TLS as well; the transport is closed
            log.debug("no TLS: %s", error)
            above = None
        finally:
            self._server.forget(self)
        if above is None or below.is_closing() or above.is_closing():
            below.abort()
            return
        one = Connection(self._server, self._loop, below)
        above.set_protocol(one)
        one.connection_made(above)
        for data in self._early:
            one.data_received(data)

    def expire(self, now_s: float) -> None:
        """Never: see `deadline_s`."""

    def drain(self) -> None:
        self.idle_since_s = None
        self._below.abort()

    def abandon(self) -> None:
        self._below.abort()
