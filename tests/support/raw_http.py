"""A listener over a scripted handler, and clients that write bytes and read replies."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from gateway.access.proxies import Proxies
from gateway.core.decision import Reason, Refused
from gateway.http.handler import FAULT_ENDS
from gateway.http.replies import reply_json, reply_unanswered
from gateway.listener.limits import Limits
from gateway.listener.messages import Admitted, Fault, Handler, Reply, Request
from gateway.listener.server import Server
from gateway.protocol.endings import Rejection, Stamp, UnansweredEnd

QUICK = Limits(head_s=0.2, body_s=0.2, idle_s=0.6, stuck_s=0.2, linger_s=0.3, sweep_s=0.02)
BODY_LIMIT = 100_000
PACE_S = 0.3
LARGE = 8 * 2**20
TlsContexts = tuple[ssl.SSLContext, ssl.SSLContext]
"""The context of the listener and that of its clients."""
SOON_S = 5.0
"""How long a test waits for what must happen: it takes as long only where it fails."""


@dataclass(eq=False)
class Space:
    """What requests have no room in, as a test says."""

    free: int = 0
    idle: bool = False


@dataclass
class ScriptedHandler:
    """A handler that does what the first part of a request's path says.

    echo: takes a body and replies with the request; now: replies at once; paced: at once, but not within
    PACE_S of another such reply; full: at once, a refusal while `space` has none; slow: when `release` is
    set; bodiless: needs no body; large: a large reply;
    wait: no reply, when the client has disconnected; late: the same once `release` is set; raise,
    raise-at-once: raises; cancel: is cancelled. A connection counts as one of the caller in `X-Caller`, which
    is refused if it has too many. busy: set when work on a request has started; started, finished: the paths
    of the requests.
    """

    space: Space = field(default_factory=lambda: Space())
    release: asyncio.Event = field(default_factory=asyncio.Event)
    busy: asyncio.Event = field(default_factory=asyncio.Event)
    started: list[str] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)

    def admit(self, request: Request, /) -> Admitted | Reply:
        what = request.parts[0] if request.parts else ""
        caller = request.header(b"x-caller")
        if caller is not None and not request.count_connection(caller):
            return self._ended(Refused(Reason.RATE_LIMITED, 1.0))
        if what == "now":
            return reply_json(json.dumps(_about(request)).encode())
        if what == "paced":
            return reply_json(json.dumps(_about(request)).encode())._replace(pace_s=PACE_S)
        if what == "full":
            if self.space.free <= 0:
                end = Refused(Reason.UNAVAILABLE, 2.0)
                return self._ended(end, "no room")._replace(room=self.space)
            return reply_json(json.dumps({**_about(request), "begun_s": request.begun_s}).encode())
        if what == "raise-at-once":
            raise RuntimeError("broken on purpose")
        if what in ("echo", "slow", "bodiless", "large", "wait", "late", "raise", "cancel"):
            limit = 0 if what == "bodiless" else BODY_LIMIT
            return Admitted(limit, lambda body: self._answer(what, request, body))
        return self._ended(Rejection.NOT_FOUND)

    async def _answer(self, what: str, request: Request, body: bytes) -> Reply | None:
        name = "/".join(request.parts)
        self.started.append(name)
        self.busy.set()
        try:
            match what:
                case "raise":
                    raise RuntimeError("broken on purpose")
                case "cancel":
                    raise asyncio.CancelledError
                case "slow":
                    await self.release.wait()
                case "wait":
                    await request.disconnected()
                    return None
                case "late":
                    await self.release.wait()
                    await request.disconnected()
                    return None
                case "large":
                    return reply_json(b"x" * LARGE)
            return reply_json(json.dumps({**_about(request), "body": body.decode("latin-1")}).encode())
        finally:
            self.finished.append(name)

    def refuse(self, fault: Fault, what: str = "", /) -> Reply:
        return self._ended(FAULT_ENDS[fault], what)

    def _ended(self, end: UnansweredEnd, what: str = "") -> Reply:
        return reply_unanswered(end, Stamp("letters@1#0", "enforce", "01"), error=what)


def _about(request: Request) -> dict[str, Any]:
    return {
        "method": request.method,
        "parts": list(request.parts),
        "address": request.address,
        "headers": {k.decode(): v.decode("latin-1") for k, v in request.headers.items()},
    }


@dataclass(frozen=True)
class RawReply:
    """One reply as it was sent, its framing checked."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.body)
        return document

    @property
    def closes(self) -> bool:
        return self.headers.get("connection") == "close"


@dataclass
class RawConnection:
    """The client's end of one connection, byte by byte."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, *parts: str | bytes) -> None:
        for part in parts:
            self.writer.write(part.encode("latin-1") if isinstance(part, str) else part)
        await self.writer.drain()

    async def head(self) -> tuple[int, dict[str, str]]:
        async with asyncio.timeout(SOON_S):
            text = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = text[:-4].split("\r\n")
        version, status, _ = first.split(" ", 2)
        assert version == "HTTP/1.1"
        pairs = [line.split(": ", 1) for line in lines]
        headers = {line[0]: line[1] for line in pairs}
        assert len(headers) == len(pairs)
        return int(status), headers

    async def reply(self, head_only: bool = False) -> RawReply:
        """The next reply. An error must be JSON, with a text and an outcome."""
        status, headers = await self.head()
        async with asyncio.timeout(SOON_S):
            length = 0 if head_only or status == 204 else int(headers["content-length"])
            body = await self.reader.readexactly(length)
        assert ("content-length" in headers) is (status != 204)
        got = RawReply(status, headers, body)
        if status >= 400:
            assert headers["content-type"] == "application/json"
            assert head_only or (isinstance(got.json["error"], str) and got.json["error"])
            assert headers["x-failsafe-outcome"] in ("refused", "deferred")
        return got

    async def request(self, *parts: str | bytes) -> RawReply:
        await self.send(*parts)
        return await self.reply()

    async def is_closed(self) -> bool:
        """Whether the server closes without another byte, soon."""
        async with asyncio.timeout(SOON_S):
            try:
                return await self.reader.read() == b""
            except ConnectionResetError:
                return True

    async def silent(self, for_s: float) -> bool:
        """Whether for so long nothing arrives, not even the end."""
        try:
            async with asyncio.timeout(for_s):
                await self.reader.read(1)
        except TimeoutError:
            return True
        return False

    def reset(self) -> None:
        """Closes so that the other end sees an error, as a process that dies may do."""
        self.writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        self.writer.close()

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except OSError:
            pass


@dataclass
class RunningListener:
    """A listener, and how to connect to it. trust: of clients, where it serves TLS."""

    server: Server
    address: tuple[str, int]
    trust: ssl.SSLContext | None = None
    connections: list[RawConnection] = field(default_factory=list)

    async def connect(self, limit: int = 2**24) -> RawConnection:
        return await self.connect_by(self.trust, limit)

    async def connect_by(self, trust: ssl.SSLContext | None, limit: int = 2**24) -> RawConnection:
        connection = RawConnection(*await asyncio.open_connection(*self.address, limit=limit, ssl=trust))
        self.connections.append(connection)
        return connection

    async def request(self, *parts: str | bytes) -> RawReply:
        """One request over a connection of its own."""
        connection = await self.connect()
        got = await connection.request(*parts)
        await connection.close()
        return got

    async def serves(self) -> bool:
        """Whether a good request over a new connection is answered."""
        got = await self.request(post("/echo", b"good"))
        return (got.status, got.json["body"]) == (200, "good")

    async def has_no_connections(self) -> bool:
        """Whether the server has removed every connection, soon."""
        for _ in range(int(SOON_S / 0.005)):
            if not self.server.connections:
                return True
            await asyncio.sleep(0.005)
        return False


@asynccontextmanager
async def listening(
    handler: Handler,
    limits: Limits = QUICK,
    proxies: Proxies | None = None,
    tls: TlsContexts | None = None,
) -> AsyncIterator[RunningListener]:
    """A listener on a port of its own, which at the end has no connection left."""
    own = socket.create_server(("127.0.0.1", 0))
    own.setblocking(False)
    address = own.getsockname()
    ours, theirs = tls or (None, None)
    listener = RunningListener(Server(handler, limits, proxies, ours), address, theirs)
    await listener.server.start(own)
    try:
        yield listener
    finally:
        for connection in listener.connections:
            await connection.close()
        await listener.server.stop(1.0)
        assert listener.server.connections == set()


Main = Callable[[RunningListener, ScriptedHandler], Coroutine[Any, Any, None]]
Run = Callable[..., None]


def runner(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> Run:
    """Runs a test against a new listener, on a new loop of one kind."""

    def run(
        main: Main,
        limits: Limits = QUICK,
        proxies: Proxies | None = None,
        tls: TlsContexts | None = None,
    ) -> None:
        async def serve() -> None:
            handler = ScriptedHandler()
            async with listening(handler, limits, proxies, tls) as listener:
                await main(listener, handler)

        with asyncio.Runner(loop_factory=loop_factory) as runs:
            runs.run(serve())

    return run


def get(path: str, *headers: str, version: str = "1.1") -> str:
    lines = "".join(f"{line}\r\n" for line in headers)
    return f"GET {path} HTTP/{version}\r\nHost: localhost\r\n{lines}\r\n"


def post(path: str, body: bytes, *headers: str) -> bytes:
    lines = "".join(f"{line}\r\n" for line in headers)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n{lines}\r\n"
    return head.encode("latin-1") + body


def chunked(path: str, *chunks: bytes, last: bytes = b"0\r\n\r\n") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return head + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + last
