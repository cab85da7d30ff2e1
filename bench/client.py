"""A keep-alive HTTP/1.1 client connection on asyncio, with little overhead in the load generator.

A request is bytes that were rendered before; a response is its status, three headers, and its body. One
request is in flight at a time, and its handler is called back: it has no task, future or timer. A whole reply
of known length in one read is parsed here; any other is parsed by httptools.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol, cast
from urllib.parse import SplitResult

import httptools

OUTCOME, REASON = b"x-failsafe-outcome", b"x-failsafe-reason"
HEADER_LENGTH = b"inference-header-content-length"
LENGTH, CHUNKED, CONNECTION = b"content-length", b"transfer-encoding", b"connection"
_NAMES = b"|".join((LENGTH, CHUNKED, CONNECTION, OUTCOME, REASON, HEADER_LENGTH))
_headers = re.compile(rb"\r\n(" + _NAMES + rb"):[ \t]*([^\r]*)").findall


class Response(NamedTuple):
    """One response. outcome and reason are empty where the server sent neither."""

    status: int
    outcome: str
    reason: str
    body: bytes
    header_bytes: int


class ResponseHandler(Protocol):
    """What a connection calls once for each request: one of the two methods."""

    def answered(self, connection: ClientConnection, answer: Response) -> None:
        """The connection is free again."""

    def failed(self, connection: ClientConnection, kind: str) -> None:
        """No answer came, or none that is HTTP. The next request opens the connection anew."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The host, port and transport of a server."""

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


class ClientConnection(asyncio.Protocol):
    """One TCP connection, opened by the first `send`; once `closed`, it stays so.

    since_s: from when the latency of the request in flight counts. sent_s: when it was handed over.
    """

    def __init__(self, origin: Origin) -> None:
        self.since_s = self.sent_s = 0.0
        self.closed = False
        self._origin = origin
        self._transport: asyncio.Transport | None = None
        self._handler: ResponseHandler | None = None
        self._opening: asyncio.Task[None] | None = None
        self._reply: _ParsedReply | None = None

    @property
    def in_flight(self) -> bool:
        """Whether a request waits for its response."""
        return self._handler is not None

    def send(self, request: bytes, handler: ResponseHandler, since_s: float, now_s: float) -> None:
        """One whole request, while none is in flight."""
        self._handler, self.since_s, self.sent_s = handler, since_s, now_s
        if self._transport is None:
            self._opening = asyncio.get_running_loop().create_task(self._open(request))
        else:
            self._transport.write(request)

    def close(self) -> None:
        """Closes the connection; the handler of a request in flight is not called."""
        self.closed, self._handler = True, None
        if self._opening is not None:
            self._opening.cancel()
        if self._transport is not None:
            self._transport.abort()

    def fail(self, kind: str) -> None:
        """Closes the connection; the request in flight has failed."""
        handler = self._handler
        self.close()
        if handler is not None:
            handler.failed(self, kind)

    async def _open(self, request: bytes) -> None:
        secure = ssl.create_default_context() if self._origin.tls else None
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: self, self._origin.host, self._origin.port, ssl=secure)
        except OSError as error:
            self._opening = None
            self.fail(str(error) or type(error).__name__)
        else:
            self._opening = None
            assert self._transport is not None
            self._transport.write(request)

    def _answered(self, answer: Response) -> None:
        handler, self._handler = self._handler, None
        if handler is not None:
            handler.answered(self, answer)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass

    def data_received(self, data: bytes) -> None:
        if self._handler is None:
            self.close()  # a response to no request: the connection is out of step
        elif self._reply is None and (answer := parse_plain_reply(data)) is not None:
            self._answered(answer)
        else:
            self._feed_parser(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        if self._reply is not None and self._reply.ends_at_close:
            self._answered(self._reply.answer())
        else:
            self.fail("the connection was closed before the answer")

    def _feed_parser(self, data: bytes) -> None:
        """Parses a read that is not one whole plain reply."""
        reply = self._reply = self._reply or _ParsedReply()
        try:
            reply.parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.fail(f"not HTTP: {error}")
            return
        if reply.complete:
            self._reply = None
            self.closed = not reply.keeps_alive
            self._answered(reply.answer())
            if self.closed:
                self.close()


class _SingleResponse:
    """The handler of a single request."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()

    def answered(self, connection: ClientConnection, answer: Response) -> None:
        self.answer.set_result(answer)

    def failed(self, connection: ClientConnection, kind: str) -> None:
        self.answer.set_exception(ConnectionError(kind))


async def send_once(origin: Origin, request: bytes) -> Response:
    """The answer to one request on a connection of its own. Raises ConnectionError."""
    connection, once = ClientConnection(origin), _SingleResponse()
    try:
        connection.send(request, once, 0.0, 0.0)
        return await once.answer
    finally:
        connection.close()


def parse_plain_reply(data: bytes) -> Response | None:
    """The answer, if these bytes are one whole reply of stated length on a connection that stays open."""
    end = data.find(b"\r\n\r\n")
    if end < 0 or not data.startswith(b"HTTP/1.1 ") or not data[9:12].isdigit():
        return None
    headers = dict(_headers(data[:end].lower()))
    length = headers.get(LENGTH, b"")
    if not length.isdigit() or end + 4 + int(length) != len(data) or CHUNKED in headers:
        return None
    if headers.get(CONNECTION, b"keep-alive") != b"keep-alive":
        return None
    return _answer(int(data[9:12]), headers, data[end + 4 :])


def _answer(status: int, headers: Mapping[bytes, bytes], body: bytes) -> Response:
    outcome, reason = headers.get(OUTCOME, b""), headers.get(REASON, b"")
    length = headers.get(HEADER_LENGTH, b"")
    header_bytes = int(length) if length.isdigit() else 0
    return Response(status, outcome.decode("latin-1"), reason.decode("latin-1"), body, header_bytes)


class _ParsedReply:
    """A reply that httptools parses: chunked, in several reads, or the last one on its connection."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.complete = self.ends_at_close = self.keeps_alive = False
        self._headers: dict[bytes, bytes] = {}
        self._parts: list[bytes] = []

    def answer(self) -> Response:
        """The response as far as it has been received; the whole of it once `complete`."""
        return _answer(self.parser.get_status_code(), self._headers, b"".join(self._parts))

    # callbacks of httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        self.ends_at_close = LENGTH not in self._headers and CHUNKED not in self._headers

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)

    def on_message_complete(self) -> None:
        self.complete = True
        self.keeps_alive = self.parser.should_keep_alive()  # later the parser no longer knows the headers
