"""One connection of gRPC on its way to grpc's server: what it says first is checked, the rest passed on."""

from __future__ import annotations

import asyncio
import logging
import math
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from gateway.addresses import peer_address
from gateway.grpc.opening import opening_bytes
from gateway.listener.limits import Limits
from gateway.listener.managed import ManagedConnection

log = logging.getLogger(__name__)


class RelayServer(Protocol):
    """What a connection needs of its relay."""

    limits: Limits
    tls: bool

    def add_connection(self, connection: ManagedConnection, /) -> bool: ...

    def mark_known(self, connection: ManagedConnection, /) -> None: ...

    def connect(self, connection: RelayedConnection, /) -> socket.socket: ...

    def forget(self, connection: RelayedConnection, /) -> None: ...


class RelayedConnection(asyncio.Protocol):
    """A client's connection, a `ManagedConnection`.

    name: by which grpc's server knows it; empty until it is passed on. address: of the client.
    """

    def __init__(self, relay: RelayServer, loop: asyncio.AbstractEventLoop) -> None:
        self._relay, self._loop = relay, loop
        self._client: asyncio.Transport | None = None
        self._server: asyncio.Transport | None = None
        self._begun = b""  # what came before it is passed on
        self._calls = 0  # of identified callers, under way
        self._since_s = loop.time()
        self.name = self.address = ""
        self.deadline_s = math.inf

    # ---------------------------------------------------------------- called by the client's transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._client = transport  # type: ignore[assignment]
        peer = transport.get_extra_info("peername")
        self.address = peer_address(str(peer[0])) if isinstance(peer, tuple) else ""
        self.deadline_s = self._since_s + self._relay.limits.head_s
        if not self._relay.add_connection(self):
            self.terminate()

    def data_received(self, data: bytes) -> None:
        if self._server is not None:
            self._server.write(data)
            return
        self._begun += data
        needed = opening_bytes(self._begun, tls=self._relay.tls)
        if needed is None:
            self.terminate()
        elif len(self._begun) >= needed and not self.name:
            self._pass_on()

    def connection_lost(self, exc: Exception | None) -> None:
        self._client = None
        if self._server is not None:
            self._server.close()
        self._relay.forget(self)

    def pause_writing(self) -> None:
        if self._server is not None:
            self._server.pause_reading()

    def resume_writing(self) -> None:
        if self._server is not None:
            self._server.resume_reading()

    # ---------------------------------------------------------------- to and from grpc's server

    def _pass_on(self) -> None:
        """Connects to grpc's server; what the client sends meanwhile waits in the system."""
        assert self._client is not None
        self._client.pause_reading()
        self.deadline_s = math.inf
        try:
            own = self._relay.connect(self)
        except OSError as error:
            log.warning("a connection cannot be passed on to grpc: %s", error)
            self.terminate()
            return
        self._connecting = self._loop.create_task(
            self._loop.create_unix_connection(lambda: ServerEnd(self), sock=own)
        )

    def server_connected(self, server: asyncio.Transport) -> None:
        if self._client is None:
            server.close()
            return
        self._server = server
        server.write(self._begun)
        self._begun = b""
        self._client.resume_reading()

    def server_sent(self, data: bytes) -> None:
        if self._client is not None:
            self._client.write(data)

    def server_paused(self, *, paused: bool) -> None:
        """grpc's server takes less than the client sends, or takes more again."""
        if self._client is None or self._client.is_closing():
            return
        if paused:
            self._client.pause_reading()
        else:
            self._client.resume_reading()

    def server_lost(self) -> None:
        """grpc has closed: the client may still take what was sent before."""
        self._server = None
        if self._client is not None:
            self.deadline_s = self._loop.time() + self._relay.limits.linger_s
            self._client.close()

    # ---------------------------------------------------------------- called by the handler of calls

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """While a call of an identified caller is under way: the connection then gives way to none."""
        self._relay.mark_known(self)
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1
            self._since_s = self._loop.time()

    # ---------------------------------------------------------------- managed

    @property
    def waits_since_s(self) -> float | None:
        """Since when it has no call of an identified caller."""
        return None if self._calls else self._since_s

    def expire(self, now_s: float) -> None:
        self.terminate()

    def give_way(self) -> None:
        self.terminate()

    def drain(self) -> None:
        """Closes one that was not passed on. grpc ends the others when their calls are finished."""
        if not self.name:
            self.terminate()

    def terminate(self) -> None:
        self.deadline_s = math.inf
        if self._client is not None:
            self._client.abort()


class ServerEnd(asyncio.Protocol):
    """The end of a relayed connection that leads to grpc's server."""

    def __init__(self, relayed: RelayedConnection) -> None:
        self._relayed = relayed

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._relayed.server_connected(transport)  # type: ignore[arg-type]

    def data_received(self, data: bytes) -> None:
        self._relayed.server_sent(data)

    def pause_writing(self) -> None:
        self._relayed.server_paused(paused=True)

    def resume_writing(self) -> None:
        self._relayed.server_paused(paused=False)

    def connection_lost(self, exc: Exception | None) -> None:
        self._relayed.server_lost()
