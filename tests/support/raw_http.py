"""A listener over a handler that does as it is told, and clients that write bytes and read replies."""

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
LARGE = 8 * 2**20
Pair = tuple[ssl.SSLContext, ssl.SSLContext]
"""Of the listener and of its clients."""
SOON_S = 5.0
"""Long enough for anything that is to happen; nothing waits as long unless it is to fail."""


@dataclass
class Told:
    """A handler. What a request's first part says is done with it; the rest is for asking afterwards.

    echo: takes a body and tells what came; now: replies at once; slow: when `release` is set; bodiless: looks
    at no body; large: a large reply; wait: until the caller is gone; late: the same once `release` is set;
    raise, raise-at-once, cancel: breaks. Who names itself in `X-Caller` may be told that it is too many.
    """

    release: asyncio.Event = field(default_factory=asyncio.Event)
    busy: asyncio.Event = field(default_factory=asyncio.Event)
    begun: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)

    def admit(self, request: Request, /) -> Admitted | Reply:
        what = request.parts[0] if request.parts else ""
        caller = request.header(b"x-caller")
        if caller is not None and not request.claim(caller):
            return self._ended(Refused(Reason.RATE_LIMITED, 1.0))
        if what == "now":
            return reply_json(json.dumps(_about(request)).encode())
        if what == "raise-at-once":
            raise RuntimeError("broken on purpose")
        if what in ("echo", "slow", "bodiless", "large", "wait", "late", "raise", "cancel"):
            limit = 0 if what == "bodiless" else BODY_LIMIT
            return Admitted(limit, lambda body: self._answer(what, request, body))
        return self._ended(Rejection.NOT_FOUND)

    async def _answer(self, what: str, request: Request, body: bytes) -> Reply | None:
        name = "/".join(request.parts)
        self.begun.append(name)
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
                    await request.gone()
                    return None
                case "late":
                    await self.release.wait()
                    await request.gone()
                    return None
                case "large":
                    return reply_json(b"x" * LARGE)
            return reply_json(json.dumps({**_about(request), "body": body.decode("latin-1")}).encode())
        finally:
            self.ended.append(name)

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
class Got:
    """One reply as it came over the wire, its framing checked."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        held: dict[str, Any] = json.loads(self.body)
        return held

    @property
    def closes(self) -> bool:
        return self.headers.get("connection") == "close"


@dataclass
class Wire:
    """One connection to a listener, by its bytes."""

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

    async def reply(self, bare: bool = False) -> Got:
        """The next reply. An error must be one that every client can read."""
        status, headers = await self.head()
        async with asyncio.timeout(SOON_S):
            body = b"" if bare else await self.reader.readexactly(int(headers["content-length"]))
        got = Got(status, headers, body)
        if status >= 400:
            assert headers["content-type"] == "application/json"
            assert bare or (isinstance(got.json["error"], str) and got.json["error"])
            assert headers["x-failsafe-outcome"] in ("refused", "deferred")
        return got

    async def ask(self, *parts: str | bytes) -> Got:
        await self.send(*parts)
        return await self.reply()

    async def ended(self) -> bool:
        """Whether the server hangs up, without another byte."""
        async with asyncio.timeout(SOON_S):
            try:
                return await self.reader.read() == b""
            except ConnectionResetError:
                return True

    async def silent(self, for_s: float) -> bool:
        """Whether nothing comes for a while, not even the end."""
        try:
            async with asyncio.timeout(for_s):
                await self.reader.read(1)
        except TimeoutError:
            return True
        return False

    def reset(self) -> None:
        """Hangs up so that the other end sees an error, as a process that dies may do."""
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
class Door:
    """A listener, and the way to it. trust: of clients, where the listener speaks TLS."""

    server: Server
    address: tuple[str, int]
    trust: ssl.SSLContext | None = None
    wires: list[Wire] = field(default_factory=list)

    async def connect(self, limit: int = 2**24) -> Wire:
        return await self.connect_by(self.trust, limit)

    async def connect_by(self, trust: ssl.SSLContext | None, limit: int = 2**24) -> Wire:
        wire = Wire(*await asyncio.open_connection(*self.address, limit=limit, ssl=trust))
        self.wires.append(wire)
        return wire

    async def ask(self, *parts: str | bytes) -> Got:
        """One request over a connection of its own."""
        wire = await self.connect()
        got = await wire.ask(*parts)
        await wire.close()
        return got

    async def well(self) -> bool:
        """Whether a good request is answered, whatever came before."""
        got = await self.ask(post("/echo", b"well"))
        return (got.status, got.json["body"]) == (200, "well")

    async def forgotten(self) -> bool:
        """Whether the server lets go of every connection."""
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
    tls: Pair | None = None,
) -> AsyncIterator[Door]:
    """A listener on a port of its own; at the end it has let go of everything."""
    own = socket.create_server(("127.0.0.1", 0))
    own.setblocking(False)
    address = own.getsockname()
    ours, theirs = tls or (None, None)
    door = Door(Server(handler, limits, proxies, ours), address, theirs)
    await door.server.start(own)
    try:
        yield door
    finally:
        for wire in door.wires:
            await wire.close()
        await door.server.stop(1.0)
        assert door.server.connections == set()


Main = Callable[[Door, Told], Coroutine[Any, Any, None]]
Run = Callable[..., None]


def runner(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> Run:
    """Runs a test against a fresh listener on a loop of one kind."""

    def run(
        main: Main,
        limits: Limits = QUICK,
        proxies: Proxies | None = None,
        tls: Pair | None = None,
    ) -> None:
        async def serve() -> None:
            told = Told()
            async with listening(told, limits, proxies, tls) as door:
                await main(door, told)

        with asyncio.Runner(loop_factory=loop_factory) as runs:
            runs.run(serve())

    return run


def get(path: str, *headers: str, version: str = "1.1") -> str:
    lines = "".join(f"{line}\r\n" for line in headers)
    return f"GET {path} HTTP/{version}\r\nHost: x\r\n{lines}\r\n"


def post(path: str, body: bytes, *headers: str) -> bytes:
    lines = "".join(f"{line}\r\n" for line in headers)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{lines}\r\n"
    return head.encode("latin-1") + body


def chunked(path: str, *chunks: bytes, last: bytes = b"0\r\n\r\n") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return head + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + last
