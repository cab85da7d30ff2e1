"""One keep-alive HTTP/1.1 connection on asyncio that costs the measuring side as little as may be.

A request is bytes that were rendered before; a response is its status, the three headers that count, and its
body. One request is in flight at a time. `httptools` parses, as it does in the server.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import NamedTuple, cast
from urllib.parse import SplitResult

import httptools

OUTCOME, REASON, HEADER_LENGTH = (
    b"x-failsafe-outcome",
    b"x-failsafe-reason",
    b"inference-header-content-length",
)


class Answer(NamedTuple):
    """What came back. outcome and reason are empty where the gateway said neither."""

    status: int
    outcome: str
    reason: str
    body: bytes
    header_bytes: int


@dataclass(frozen=True, slots=True)
class Origin:
    """Where connections go."""

    host: str
    port: int
    tls: bool

    @classmethod
    def of(cls, url: SplitResult) -> Origin:
        tls = url.scheme == "https"
        return cls(url.hostname or "127.0.0.1", url.port or (443 if tls else 80), tls)

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class Connection(asyncio.Protocol):
    """Opened by the first `ask`, and again by the next one after the server has closed it."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[Answer] | None = None

    async def ask(self, request: bytes) -> Answer:
        """The answer to one request. Raises OSError (also where the connection is lost) or ValueError."""
        if self._transport is None or self._transport.is_closing():
            await self._open()
        assert self._transport is not None
        self._begin()
        waiter: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiter = waiter
        self._transport.write(request)
        return await waiter

    def close(self) -> None:
        """Hangs up, whatever is in flight."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    async def _open(self) -> None:
        secure = ssl.create_default_context() if self._origin.tls else None
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self, self._origin.host, self._origin.port, ssl=secure)

    def _begin(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[bytes, bytes] = {}
        self._parts: list[bytes] = []

    def _fail(self, error: Exception) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)
        self._waiter = None

    # what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass

    def data_received(self, data: bytes) -> None:
        if self._waiter is None:
            self.close()  # nobody asked: whatever this is, the connection is no longer in step
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(ValueError(f"not HTTP: {error}"))
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._fail(ConnectionResetError("the connection was closed before the answer"))

    # what httptools calls

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)

    def on_message_complete(self) -> None:
        if not self._parser.should_keep_alive():
            self.close()
        if self._waiter is None or self._waiter.done():
            return
        length = self._headers.get(HEADER_LENGTH, b"0")
        answer = Answer(
            self._parser.get_status_code(),
            self._headers.get(OUTCOME, b"").decode("latin-1"),
            self._headers.get(REASON, b"").decode("latin-1"),
            b"".join(self._parts),
            int(length) if length.isdigit() else 0,
        )
        self._waiter.set_result(answer)
        self._waiter = None
