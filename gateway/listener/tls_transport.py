"""TLS between a transport and a `Connection`: a protocol for the one, a transport for the other.

asyncio's own TLS tells nobody of a connection before the handshake is over, cannot close one half, waits for
the caller's farewell and hides what has still to be sent. So whoever says nothing would be counted by no
limit, a refusal in the middle of a body would be lost, and no deadline of a slow caller would be right.
OpenSSL does the work here as well; with its bytes in hand, every limit is the same with TLS and without.
"""

from __future__ import annotations

import asyncio
import logging
import math
import ssl
from typing import Any

from gateway.listener.connection import Connection, Owner

READ_BYTES = 256 * 1024
log = logging.getLogger(__name__)


class Secured(asyncio.Protocol, asyncio.Transport):
    """One connection over TLS. Until that is up it is a `Guest` itself, after that its `Connection` is.

    deadline_s: for the handshake to be over. Cost: about 1 ms of CPU for a new client, nearly all OpenSSL's.
    """

    def __init__(self, server: Owner, loop: asyncio.AbstractEventLoop, tls: ssl.SSLContext) -> None:
        self._server, self._loop = server, loop
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = tls.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._above: Connection | None = None  # once TLS is up
        self._paused = self._over = False  # over: nothing more is read
        self.deadline_s = math.inf
        self.idle_since_s: float | None = None

    # ---------------------------------------------------------------- a protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._below: asyncio.Transport = transport  # type: ignore[assignment]
        self.idle_since_s = self._loop.time()
        self.deadline_s = self.idle_since_s + self._server.limits.handshake_s
        if not self._server.remember(self) and self._server.overrun:
            self._below.abort()

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        self._incoming.write(data)
        try:
            if self._above is None:
                self._shake_hands()
            self._read()
        except ssl.SSLError as error:
            log.debug("no TLS, or no more: %s", error)
            self._over = True
            self._flush()  # OpenSSL's own words for it
            self._below.close()

    def eof_received(self) -> bool:
        return self._above is not None and self._above.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._over = True
        if self._above is None:
            self._server.forget(self)
        else:
            self._above.connection_lost(exc)
            self._above = None

    def pause_writing(self) -> None:
        if self._above is not None:
            self._above.pause_writing()

    def resume_writing(self) -> None:
        if self._above is not None:
            self._above.resume_writing()

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        self._flush()
        self._server.forget(self)
        self._above = Connection(self._server, self._loop)
        self._above.connection_made(self)

    def _read(self) -> None:
        """Hands on what can be read, up to where reading is paused."""
        while self._above is not None and not (self._paused or self._over):
            try:
                data = self._tls.read(READ_BYTES)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                data = b""
            if data:
                self._above.data_received(data)
            else:
                self._over = True
                if not self._above.eof_received():
                    self.close()
        self._flush()  # an answer to a change of keys, say

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._below.write(self._outgoing.read())

    # ---------------------------------------------------------------- a transport

    def write(self, data: Any) -> None:
        if not self._below.is_closing():
            self._tls.write(data)
            self._flush()

    def write_eof(self) -> None:
        """Says farewell, and that no more will come; what still comes from the other side is dropped."""
        self._say_farewell()
        self._below.write_eof()

    def close(self) -> None:
        """Says farewell and closes when all has been sent. Nobody waits for the caller's own farewell."""
        self._say_farewell()
        self._below.close()

    def _say_farewell(self) -> None:
        self._over = True
        try:
            self._tls.unwrap()
        except ssl.SSLError:  # it would like to hear the same from the other side
            pass
        self._flush()

    def abort(self) -> None:
        self._below.abort()

    def is_closing(self) -> bool:
        return self._below.is_closing()

    def pause_reading(self) -> None:
        self._paused = True
        self._below.pause_reading()

    def resume_reading(self) -> None:
        self._paused = False
        self._below.resume_reading()
        self._loop.call_soon(self.data_received, b"")  # what was not handed on while it was paused

    def get_write_buffer_size(self) -> int:
        return self._below.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._below.get_extra_info(name, default)

    # ---------------------------------------------------------------- a guest

    def expire(self, now_s: float) -> None:
        self.abandon()

    def drain(self) -> None:
        self.abandon()

    def abandon(self) -> None:
        self.deadline_s, self.idle_since_s = math.inf, None
        self._below.abort()
