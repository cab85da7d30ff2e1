"""A server of the Open Inference Protocol over HTTP whose answers, good or bad, a test chooses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import orjson

from fallbacks.oip.address import RemoteModel, UpstreamAddress

MODEL = "doubles"
SPEC = [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}]
METADATA = {"name": MODEL, "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}], "outputs": SPEC}


@dataclass(frozen=True)
class ReceivedRequest:
    """One request as it was received."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        """Its JSON, without the binary tensors after it."""
        size = self.headers.get("inference-header-content-length")
        return orjson.loads(self.body[: int(size)] if size else self.body)

    @property
    def binary(self) -> bool:
        return "inference-header-content-length" in self.headers


Handler: TypeAlias = Callable[[ReceivedRequest, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class OipServer:
    """Answers metadata correctly, and everything else by `infer`; keeps the requests.

    about: the body of its server metadata, None for 404; empty: generated from `extensions`.
    """

    infer: Handler
    extensions: list[str] = field(default_factory=list)
    about: bytes | None = b""
    metadata: Any = field(default_factory=lambda: METADATA)
    asked: list[ReceivedRequest] = field(default_factory=list)
    infers: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""
    listening: asyncio.Server = field(init=False)
    connections: dict[asyncio.StreamWriter, asyncio.Task[Any]] = field(default_factory=dict)

    def drop_connections(self) -> None:
        """Ends every connection."""
        for writer in self.connections:
            writer.transport.abort()

    @property
    def remote(self) -> RemoteModel:
        return RemoteModel(UpstreamAddress.parse(self.url), MODEL)

    @property
    def infer_requests(self) -> list[ReceivedRequest]:
        return [one for one in self.asked if one.method == "POST"]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.connections[writer] = task
        try:
            while True:
                asked = await _read(reader)
                self.asked.append(asked)
                if asked.path == "/v2":
                    await self._send_server_metadata(writer)
                elif asked.method == "GET":
                    await send(writer, self.metadata)
                else:
                    await self._infer(asked, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.left.set()
            self.connections.pop(writer)
            writer.close()

    async def _send_server_metadata(self, writer: asyncio.StreamWriter) -> None:
        if self.about is None:
            await send(writer, {"error": "not found"}, "404 Not Found")
        else:
            await send(writer, self.about or {"name": "test", "extensions": self.extensions})

    async def _infer(
        self, asked: ReceivedRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Answers, unless the caller leaves first."""
        self.infers.set()
        answer, gone = asyncio.ensure_future(self.infer(asked, writer)), asyncio.ensure_future(reader.read(1))
        await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)
            return answer.result()
        answer.cancel()
        raise ConnectionResetError


async def _read(reader: asyncio.StreamReader) -> ReceivedRequest:
    first = (await reader.readuntil(b"\r\n")).decode().split()
    headers: dict[str, str] = {}
    while line := (await reader.readuntil(b"\r\n")).decode().strip():
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return ReceivedRequest(first[0], first[1], headers, body)


async def send(writer: asyncio.StreamWriter, content: Any, status: str = "200 OK", **headers: str) -> None:
    """One response; what is not bytes is sent as JSON."""
    body = content if isinstance(content, bytes) else orjson.dumps(content)
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    await writer.drain()


@asynccontextmanager
async def oip_server(infer: Handler, extensions: tuple[str, ...] = ()) -> AsyncIterator[OipServer]:
    """The server on a port of loopback."""
    server = OipServer(infer, list(extensions))
    server.listening = listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listening.close()
        ending = list(server.connections.values())
        server.drop_connections()
        await asyncio.wait_for(asyncio.gather(*ending), 5)
        await listening.wait_closed()
