"""The head of one HTTP request.

Nothing is parsed that nobody asks for, and a body is not read before the head has been let in: `admit`
gives either the reply to a request or how much body it may have and what then answers it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from enum import Enum, auto
from functools import lru_cache
from typing import Any, NamedTuple, Protocol
from urllib.parse import unquote

import httptools

Headers = Mapping[bytes, bytes]
Claim = Callable[[str], bool]
LONGEST_KEPT = 256
"""Longer targets are parsed each time, so that nobody fills the memory with them."""


def _granted(principal: str, /) -> bool:
    return True


class Fault(Enum):
    """Why the listener itself ends a request or a connection. The handler words the reply."""

    INVALID = auto()
    TOO_LARGE = auto()
    TOO_SLOW = auto()
    UNSUPPORTED = auto()
    UNMET_EXPECTATION = auto()
    HEAD_TOO_LARGE = auto()
    UNAVAILABLE = auto()  # no room for another connection, or the handler raised


class Reply(NamedTuple):
    """One HTTP response.

    headers: as they travel, `name: value` with the name in lower case, each ended by CR LF, so that what
    many replies share is made once. Content-Length is the server's.
    """

    status: int
    headers: bytes
    body: bytes


class Request:
    """One request without its body.

    parts: the path's, decoded, empty ones left out; headers: by lower-case name, repeated ones joined;
    address: of the client, empty where it has none; gone: returns when the client has hung up; claim: counts
    the connection as one of this principal's and says whether it may have so many (a door that counts none
    always says so). Who is told that it may not has to be refused: the connection ends with that reply.
    """

    __slots__ = ("address", "claim", "gone", "headers", "method", "parts")

    def __init__(
        self,
        method: str,
        parts: tuple[str, ...],
        headers: Headers,
        address: str,
        gone: Callable[[], Awaitable[None]],
        claim: Claim = _granted,
    ) -> None:
        self.method = method
        self.parts = parts
        self.headers = headers
        self.address = address
        self.gone = gone
        self.claim = claim

    def header(self, name: bytes) -> str | None:
        """The value of a header, by its lower-case name."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    @property
    def key(self) -> str | None:
        """The caller's key, from `Authorization: Bearer` or `x-api-key`."""
        raw = self.headers.get(b"authorization")
        if raw is not None:
            token = _kept_token(raw) if len(raw) <= LONGEST_KEPT else _token(raw)
            if token is not None:
                return token
        return self.header(b"x-api-key")


class Admitted(NamedTuple):
    """A request that may go on.

    body_limit: in bytes; at 0 nobody looks at the body. answer: takes the body and gives the reply, or None
    if the caller has hung up. It may be called once, and raises nothing on purpose.
    """

    body_limit: int
    answer: Callable[[bytes], Coroutine[Any, Any, Reply | None]]


class ClientAddresses(Protocol):
    """Which address a request came from, where trusted proxies stand before the listener."""

    def client(self, peer: str, forwarded: bytes | None, /) -> str:
        """The client's address, from that of the peer and the value of X-Forwarded-For."""
        ...


class Handler(Protocol):
    """What stands behind a server: the data plane."""

    def admit(self, request: Request, /) -> Admitted | Reply:
        """What is to become of a request, told from its head alone."""
        ...

    def refuse(self, fault: Fault, what: str = "", /) -> Reply:
        """The reply to what cannot even be asked; `what`: the error in words, if not the usual."""
        ...


def parts_of(path: str) -> tuple[str, ...]:
    """The parts of a decoded path."""
    return tuple(part for part in path.split("/") if part)


def parts_of_target(target: bytes) -> tuple[str, ...]:
    """The parts of the path in a request line. Raises ValueError if there is none.

    Cost: 0.1 us for one that was seen lately; 3 us else.
    """
    return _kept(target) if len(target) <= LONGEST_KEPT else _parsed(target)


def _parsed(target: bytes) -> tuple[str, ...]:
    try:
        path = httptools.parse_url(target).path or b""
    except httptools.HttpParserInvalidURLError:
        raise ValueError("the target of a request must be a path") from None
    return parts_of(unquote(path.decode("ascii")))


_kept = lru_cache(maxsize=512)(_parsed)


def bearer(authorization: str) -> str | None:
    """The key that follows `Bearer`; None of any other scheme."""
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _token(authorization: bytes) -> str | None:
    return bearer(authorization.decode("latin-1"))


_kept_token = lru_cache(maxsize=512)(_token)
