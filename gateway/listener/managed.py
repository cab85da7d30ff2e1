"""What a server and its connections need of each other, over TCP and over TLS."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from gateway.listener.held import HeldConnections
from gateway.listener.limits import Limits
from gateway.listener.messages import ClientAddresses, Handler
from gateway.listener.read_queue import ReadQueue
from gateway.listener.states import WaitTarget


class ConnectionServer(Protocol):
    """What a connection needs of its server.

    timeouts_s: by what is awaited; saturated: whether a connection that is turned away gets no reply;
    draining: whether every reply ends its connection; held: those of its connections that are not read;
    read_queue: those that have bytes to be parsed.
    """

    handler: Handler
    limits: Limits
    proxies: ClientAddresses | None
    draining: bool
    held: HeldConnections
    read_queue: ReadQueue

    @property
    def timeouts_s(self) -> Mapping[WaitTarget, float]: ...

    @property
    def saturated(self) -> bool: ...

    def add_connection(self, connection: ManagedConnection, /) -> bool: ...

    def remove_connection(self, connection: ManagedConnection, /) -> None: ...

    def mark_known(self, connection: ManagedConnection, /) -> None: ...

    def mark_lingering(self, connection: ManagedConnection, /) -> None: ...

    def count_connection(self, principal: str, /) -> bool: ...

    def uncount_connection(self, principals: Iterable[str], /) -> None: ...


class ManagedConnection(Protocol):
    """What a server needs of each of its connections.

    deadline_s: when, on the loop's clock, `expire` is to be called; address: of the peer, empty where it has
    none; waits_since_s: since when no request is under way, None if one is (part of one, of a caller that is
    not known, does not count: it costs a client nothing to send).
    """

    deadline_s: float
    address: str

    @property
    def waits_since_s(self) -> float | None: ...

    def give_way(self) -> None:
        """Closes at once."""

    def expire(self, now_s: float, /) -> None:
        """Ends what did not happen by the deadline."""

    def drain(self) -> None:
        """Closes, unless a request is under way, which then is the last of the connection."""

    def terminate(self) -> None:
        """Closes, and cancels what is under way."""
