"""Requests and replies as the listener and its handler exchange them, and the interface of the handler.

A body is not read before the head is admitted: `Handler.admit` returns either the reply to a request, or how
large its body may be and what then answers it. What the handler does not ask for is not parsed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from enum import Enum, auto
from typing import Any, NamedTuple, Protocol, TypeAlias
from urllib.parse import unquote

import httptools

from gateway.caching import BoundedCache
from gateway.listener.held import Room

Headers = Mapping[bytes, bytes]
CountConnection = Callable[[str], bool]
CACHED, LONGEST_CACHED = 512, 256
"""So many targets are kept parsed, each of at most so many bytes."""


def _uncounted(principal: str, /) -> bool:
    return True


class Fault(Enum):
    """Why the listener itself refuses a request or a connection. The handler makes the reply."""

    INVALID = auto()
    TOO_LARGE = auto()
    TOO_SLOW = auto()
    UNSUPPORTED = auto()
    UNMET_EXPECTATION = auto()
    HEAD_TOO_LARGE = auto()
    UNAVAILABLE = auto()  # no room for another connection, or the handler raised


class Reply(NamedTuple):
    """One HTTP response.

    headers: as sent, `name: value` with the name in lower case, each ended by CR LF, so that what many
    replies share is encoded once. The server adds Content-Length. pace_s: seconds that lie between two such
    replies on one connection, more each time (`pace.py`); the first is never delayed. on_unsent: called
    where the client has closed the connection, or its sending half: nothing is sent to it then. Without it,
    one that has closed its sending half alone still gets the reply. room: what the request had no room in:
    the connection is not read on until there is some (`held.py`).
    """

    status: int
    headers: bytes
    body: bytes
    pace_s: float = 0.0
    on_unsent: Callable[[], None] | None = None
    room: Room | None = None


class Request:
    """One request without its body.

    begun_s: when its first byte was read, in loop seconds; target: as in the request line; parts: its
    path's, decoded, empty ones left out; headers: by lower-case name, repeated ones joined; address: of the
    client, empty where it has none; peer: of the other end of the connection, which may be a proxy;
    disconnected: returns when the client has closed its connection;
    count_connection: counts the connection as one of this principal's and returns whether it may
    have so many (a server that does not count returns True). On False the handler must refuse the request:
    the connection ends with that reply.
    """

    __slots__ = (
        "address",
        "begun_s",
        "count_connection",
        "disconnected",
        "headers",
        "method",
        "parts",
        "peer",
        "target",
    )

    def __init__(
        self,
        begun_s: float,
        method: str,
        target: bytes,
        parts: tuple[str, ...],
        headers: Headers,
        address: str,
        disconnected: Callable[[], Awaitable[None]],
        count_connection: CountConnection = _uncounted,
        peer: str = "",
    ) -> None:
        self.begun_s = begun_s
        self.method = method
        self.target = target
        self.parts = parts
        self.headers = headers
        self.address = address
        self.peer = peer
        self.disconnected = disconnected
        self.count_connection = count_connection

    def header(self, name: bytes) -> str | None:
        """The value of a header, by its lower-case name."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")


AnswerBody: TypeAlias = Callable[[bytes], Coroutine[Any, Any, Reply | None] | Reply]


class Admitted(NamedTuple):
    """A request whose body may be read and which may then be answered.

    body_limit: in bytes; at 0 the request is answered without its body. answer: takes the body and returns
    the reply, at once or when awaited, which is None if the client has disconnected. It is called once, and
    must not raise.
    """

    body_limit: int
    answer: AnswerBody


class ClientAddresses(Protocol):
    """Which address a request came from, where trusted proxies stand before the listener."""

    def client(self, peer: str, forwarded: bytes | None, /) -> str:
        """The client's address, from that of the peer and the value of X-Forwarded-For."""
        ...


class Handler(Protocol):
    """What answers the requests of a server: the data plane."""

    def admit(self, request: Request, /) -> Admitted | Reply:
        """Decides from its head alone whether a request is answered, and how."""
        ...

    def refuse(self, fault: Fault, what: str = "", /) -> Reply:
        """The reply to what the listener refuses. what: the text of the error, if not that of the fault."""
        ...


def parts_of(path: str) -> tuple[str, ...]:
    """The parts of a decoded path."""
    return tuple(part for part in path.split("/") if part)


def parts_of_target(target: bytes) -> tuple[str, ...]:
    """The parts of the path in a request line. Raises ValueError if there is none. Cost: 3 us."""
    try:
        path = httptools.parse_url(target).path or b""
    except httptools.HttpParserInvalidURLError:
        raise ValueError("the target of a request must be a path") from None
    return parts_of(unquote(path.decode("ascii")))


def host_of_target(target: bytes) -> bytes:
    """The host and port in a request line, as `Host` has them; empty if it has none, as `*`.

    Raises:  ValueError for a target that is no URL.
    """
    try:
        url = httptools.parse_url(target)
    except httptools.HttpParserInvalidURLError:
        raise ValueError("the target of a request must be a path") from None
    host = url.host or b""
    host = b"[%b]" % host if b":" in host else host
    return b"%b:%d" % (host, url.port) if host and url.port else host


PARTS_BY_TARGET = BoundedCache(parts_of_target, entries=CACHED, longest=LONGEST_CACHED)
HOST_BY_TARGET = BoundedCache(host_of_target, entries=CACHED, longest=LONGEST_CACHED)
