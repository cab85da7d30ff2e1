"""The connections of one listening socket: accepted, counted, timed, and ended at shutdown.

What a connection speaks is not known here: `server` has those of HTTP, `gateway.grpc.relay` those of gRPC.
"""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

from gateway.listener.groups import ConnectionGroup
from gateway.listener.held import HeldConnections
from gateway.listener.limits import Limits
from gateway.listener.managed import ManagedConnection
from gateway.listener.messages import ClientAddresses
from gateway.listener.read_queue import ReadQueue

READ_S: Final = 0.1
"""For so long after the last accepted connection, requests are read: a client that has connected needs some
time to send its first, and more on a busy machine."""


class ConnectionPool:
    """Accepts on one listening socket. `accept` once, on the loop that serves; then `stop` it.

    draining: every reply ends its connection. connections: those that are open, and those that are
    lost while something still works for them. held: those that are not read for a while. read_queue: those
    that have bytes to be parsed. proxies: stand before the socket, and share their addresses.
    """

    def __init__(self, limits: Limits, proxies: ClientAddresses | None) -> None:
        self.limits, self.proxies = limits, proxies
        self.draining = self._stopping = False
        self.connections: set[ManagedConnection] = set()
        self.held = HeldConnections()
        self.read_queue = ReadQueue()
        self._all = ConnectionGroup(limits.connections)
        self._by_address: dict[str, ConnectionGroup] = {}
        self._connections_by_principal: dict[str, int] = {}
        self._limit_per_principal = math.inf if proxies else limits.connections_per_caller
        self._empty = asyncio.Event()
        self._listener: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    async def accept(
        self, listening: socket.socket, make: Callable[[], asyncio.Protocol], backlog: int
    ) -> None:
        """Begins to accept. make: the protocol of a new connection."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(make, sock=listening, backlog=backlog)
        self._listening, self._make, self._backlog = listening, make, backlog
        self._sweeper = loop.call_later(self.limits.sweep_s, self._sweep, loop)

    def drain(self) -> None:
        """From now on every reply ends its connection, so that clients go elsewhere. It still accepts."""
        self.draining = True

    async def stop(self, grace_s: float) -> None:
        """Stops accepting; returns when the last reply is sent, or after `grace_s` cancels what is left.

        What has arrived by now is answered, also on connections that are not accepted yet.
        """
        if self._listener is None:
            return
        self.draining = True
        waiting = self._accept_waiting()
        self._listener.close()
        await self._serve_accepted(waiting)
        await asyncio.sleep(READ_S)
        self._stopping = True
        for connection in tuple(self.connections):
            connection.drain()
        try:
            async with asyncio.timeout(grace_s):
                await self._wait_empty()
        except TimeoutError:
            for connection in tuple(self.connections):
                connection.terminate()
            await self._wait_empty()
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._listener = None

    def _accept_waiting(self) -> list[socket.socket]:
        """Those that the loop has not accepted yet: the end of the listening socket would reset them."""
        found: list[socket.socket] = []
        with suppress(OSError):  # BlockingIOError: there is no further one
            while len(found) < self._backlog:
                found.append(self._listening.accept()[0])
        return found

    async def _serve_accepted(self, accepted: Iterable[socket.socket]) -> None:
        loop = asyncio.get_running_loop()
        for one in accepted:
            one.setblocking(False)
            try:
                await loop.connect_accepted_socket(self._make, one)
            except OSError:  # it is gone already
                one.close()

    async def _wait_empty(self) -> None:
        """Returns when there is no connection left."""
        while self.connections:
            self._empty.clear()
            await self._empty.wait()

    def add_connection(self, connection: ManagedConnection) -> bool:
        """Adds a connection. Returns whether there is room for it, or was made for it."""
        self.connections.add(connection)
        if self._stopping:
            connection.drain()
        groups = self._groups_of(connection)
        for group in groups:
            group.add(connection)
        for group in groups:
            while len(group) > group.limit:
                leaving = group.next_to_go(connection)
                if leaving is None:
                    self._leave_groups(connection)
                    return False
                self._leave_groups(leaving)
                leaving.give_way()
        return True

    def _groups_of(self, connection: ManagedConnection) -> tuple[ConnectionGroup, ...]:
        """The groups in which a connection counts. Behind proxies addresses are shared, and have none."""
        address = connection.address
        if not address or self.proxies is not None:
            return (self._all,)
        group = self._by_address.get(address)
        if group is None:
            group = self._by_address[address] = ConnectionGroup(self.limits.connections_per_address)
        return group, self._all

    def _leave_groups(self, connection: ManagedConnection) -> None:
        self._all.discard(connection)
        group = self._by_address.get(connection.address)
        if group is not None:
            group.discard(connection)
            if not len(group):
                del self._by_address[connection.address]

    def mark_known(self, connection: ManagedConnection) -> None:
        """A caller was identified on a connection."""
        for group in self._groups_of(connection):
            group.mark_known(connection)

    def mark_lingering(self, connection: ManagedConnection) -> None:
        """A connection has written its last reply, and waits for its client to close."""
        for group in self._groups_of(connection):
            group.mark_lingering(connection)

    @property
    def saturated(self) -> bool:
        """Whether there are too many connections to give a further one a 503."""
        return len(self.connections) > self.limits.connections + self.limits.spare_connections

    def remove_connection(self, connection: ManagedConnection) -> None:
        """Removes a connection that is lost and has no request under way."""
        self.connections.discard(connection)
        self._leave_groups(connection)
        if not self.connections:
            self._empty.set()

    def count_connection(self, principal: str) -> bool:
        """Counts one more connection of a principal. False if it has too many; behind proxies none has."""
        count = self._connections_by_principal.get(principal, 0)
        if count >= self._limit_per_principal:
            return False
        self._connections_by_principal[principal] = count + 1
        return True

    def uncount_connection(self, principals: Iterable[str]) -> None:
        """Counts one connection less of each principal."""
        for principal in principals:
            self._connections_by_principal[principal] -= 1
            if not self._connections_by_principal[principal]:
                del self._connections_by_principal[principal]

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Ends the connections whose deadline has passed. Cost: about 50 ns a connection."""
        self._sweeper = loop.call_later(self.limits.sweep_s, self._sweep, loop)
        now_s = loop.time()
        for connection in [one for one in self.connections if one.deadline_s <= now_s]:
            connection.expire(now_s)
