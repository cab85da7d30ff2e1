"""TLS between a TCP transport and a `Connection`: a protocol for the one, a transport for the other.

asyncio's own TLS reports no connection before the handshake is over, cannot close one half, waits for the
client's close_notify, and hides how many bytes are unsent. So a client that sends nothing would count for no
limit, a refusal in the middle of a body would be lost, and no deadline of a slow client would be right.
OpenSSL encrypts here too; with its bytes at hand, every limit is the same with TLS and without.
"""

from __future__ import annotations

import asyncio
import logging
import math
import ssl
from typing import Any

from gateway.listener.connection import Connection
from gateway.listener.managed import ConnectionServer

READ_BYTES = 256 * 1024
log = logging.getLogger(__name__)


class TlsTransport(asyncio.Protocol, asyncio.Transport):
    """One connection over TLS: a `ManagedConnection` until the handshake is over; then its `Connection` is.

    deadline_s: for the handshake to be over. Cost: about 1 ms of CPU for a new client, nearly all OpenSSL's.
    """

    def __init__(
        self, server: ConnectionServer, loop: asyncio.AbstractEventLoop, tls: ssl.SSLContext
    ) -> None:
        self._server, self._loop = server, loop
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = tls.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._connection: Connection | None = None  # from the end of the handshake to the loss of TCP
        self._paused = self._read_ended = False
        self.deadline_s = math.inf
        self.waits_since_s: float | None = None
        self.address = ""

    # ---------------------------------------------------------------- the protocol of the TCP transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._tcp: asyncio.Transport = transport  # type: ignore[assignment]
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if isinstance(peer, tuple) else ""
        self.waits_since_s = self._loop.time()
        self.deadline_s = self.waits_since_s + self._server.limits.handshake_s
        if not self._server.add_connection(self) and self._server.saturated:
            self._tcp.abort()

    def data_received(self, data: bytes) -> None:
        if self._read_ended:
            return
        self._incoming.write(data)
        try:
            if self._connection is None:
                self._do_handshake()
            self._read()
        except ssl.SSLError as error:
            log.debug("no TLS, or no more: %s", error)
            self._read_ended = True
            self._flush()  # the alert that OpenSSL has for it
            self._tcp.close()

    def eof_received(self) -> bool:
        return self._connection is not None and self._connection.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._read_ended = True
        if self._connection is None:
            self._server.remove_connection(self)
        else:
            self._connection.connection_lost(exc)
            self._connection = None

    def pause_writing(self) -> None:
        if self._connection is not None:
            self._connection.pause_writing()

    def resume_writing(self) -> None:
        if self._connection is not None:
            self._connection.resume_writing()

    def _do_handshake(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        self._flush()
        self._server.remove_connection(self)
        self._connection = Connection(self._server, self._loop)
        self._connection.connection_made(self)

    def _read(self) -> None:
        """Delivers what can be decrypted, until reading is paused."""
        while self._connection is not None and not (self._paused or self._read_ended):
            try:
                data = self._tls.read(READ_BYTES)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                data = b""
            if data:
                self._connection.data_received(data)
            else:
                self._read_ended = True
                if not self._connection.eof_received():
                    self.close()
        self._flush()  # such as the reply to a change of keys

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._tcp.write(self._outgoing.read())

    # ---------------------------------------------------------------- the transport of the connection

    def write(self, data: Any) -> None:
        if not self._tcp.is_closing():
            self._tls.write(data)
            self._flush()

    def write_eof(self) -> None:
        """Ends TLS and closes the sending half; what the client still sends is dropped."""
        self._send_close_notify()
        self._tcp.write_eof()

    def close(self) -> None:
        """Ends TLS and closes when all is sent, without waiting for the client's close_notify."""
        self._send_close_notify()
        self._tcp.close()

    def _send_close_notify(self) -> None:
        self._read_ended = True
        try:
            self._tls.unwrap()
        except ssl.SSLError:  # it has sent its close_notify and now waits for the client's
            pass
        self._flush()

    def abort(self) -> None:
        self._tcp.abort()

    def is_closing(self) -> bool:
        return self._tcp.is_closing()

    def pause_reading(self) -> None:
        self._paused = True
        self._tcp.pause_reading()

    def resume_reading(self) -> None:
        self._paused = False
        self._tcp.resume_reading()
        self._loop.call_soon(self.data_received, b"")  # delivers what was read before the pause

    def get_write_buffer_size(self) -> int:
        return self._tcp.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._tcp.get_extra_info(name, default)

    # ---------------------------------------------------------------- managed, during the handshake

    def expire(self, now_s: float) -> None:
        self.terminate()

    def drain(self) -> None:
        self.terminate()

    def give_way(self) -> None:
        self.terminate()

    def terminate(self) -> None:
        self.deadline_s, self.waits_since_s = math.inf, None
        self._tcp.abort()
