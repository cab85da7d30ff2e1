"""The listening socket of gRPC: bounds connections, and passes their bytes on to grpc's server.

grpc has no limit by address, closes none of its connections to make room for another, and lets one that says
nothing stay for a minute. So it listens on a unix socket of its own, and this stands before it:

    client ── RelayedConnection ── unix socket ── grpc's server

    | a connection                                  | then                                                |
    |-----------------------------------------------|-----------------------------------------------------|
    | that does not begin HTTP/2 or TLS in `head_s` | is closed; grpc never sees it                       |
    | beyond the limits, in all or of its address   | replaces one without a call (`listener.groups`)     |
    | without a call for `idle_s`                   | is closed by grpc, as is a TLS handshake in 5 s     |

Bytes are passed on as they come: TLS ends in grpc's server, which knows a connection by the name of its unix
socket. By that name the handler of a call finds where its client is, and says that a call is under way.
"""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from gateway.grpc.relayed import RelayedConnection
from gateway.listener.limits import Limits
from gateway.listener.messages import ClientAddresses
from gateway.listener.pool import ConnectionPool
from gateway.serving.unix_path import unix_address


class Relay(ConnectionPool):
    """The connections of clients. path: where grpc's server listens. tls: they begin with TLS."""

    def __init__(self, limits: Limits, proxies: ClientAddresses | None, path: Path, *, tls: bool) -> None:
        super().__init__(limits, proxies)
        self.path, self.tls = path, tls
        self._by_name: dict[str, RelayedConnection] = {}

    async def start(self, listening: socket.socket, backlog: int) -> None:
        """Begins to accept."""
        loop = asyncio.get_running_loop()
        await self.accept(listening, lambda: RelayedConnection(self, loop), backlog)

    def connect(self, connection: RelayedConnection) -> socket.socket:
        """A socket to grpc's server for a connection. Raises OSError."""
        own = socket.socket(socket.AF_UNIX)
        try:
            own.setblocking(False)
            own.bind("")  # to a name that the system chooses
            with unix_address(self.path) as address:
                own.connect(address)
        except OSError:
            own.close()
            raise
        connection.name = own.getsockname()[1:].decode("ascii")
        self._by_name[connection.name] = connection
        return own

    def find(self, peer: str) -> RelayedConnection | None:
        """The connection of a call, by the peer that grpc names: `unix-abstract:00a3f`."""
        return self._by_name.get(peer.removeprefix("unix-abstract:"))

    def forget(self, connection: RelayedConnection) -> None:
        """Removes a connection that is lost."""
        self._by_name.pop(connection.name, None)
        self.remove_connection(connection)
