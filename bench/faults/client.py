"""Callers with open connections: what each of them sent and when, and what came back and when.

An open loop: a request is sent when it is due, on a connection that is free or on a new one. So a fault that
keeps requests waiting holds up none of the others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import orjson

GIVE_UP_S: Final = 20.0
"""How long a caller waits for its reply."""
LIMIT_BYTES: Final = 2**20
Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class Request:
    """A whole HTTP request. id: as the caller calls it; kind: of its rows, `good` or `outlier`."""

    id: str
    kind: str
    rows: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. status: of HTTP; headers: names in lower case; document: the body's JSON object."""

    status: int
    headers: Mapping[str, str]
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and how it ended for its caller.

    sent_s, ended_s: by the monotonic clock; reply: None if there was none, and `error` says why. opened: the
    connection was opened for this request.
    """

    request: Request
    sent_s: float
    ended_s: float
    reply: Reply | None
    error: str = ""
    opened: bool = False

    @property
    def elapsed_s(self) -> float:
        return self.ended_s - self.sent_s


class Connections:
    """Connections to one port of loopback, used again where they are free."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._free: list[Streams] = []

    async def open(self, n: int) -> None:
        """Opens so many connections ahead."""
        self._free += [await self._open() for _ in range(n)]

    async def send(self, request: Request) -> Exchange:
        """One request to its end; no error of the connection is raised."""
        sent_s = time.monotonic()
        writer: asyncio.StreamWriter | None = None
        opened = False
        try:
            async with asyncio.timeout(GIVE_UP_S):
                free = self._take_free()
                opened = free is None
                reader, writer = free or await self._open()
                sent_s = time.monotonic()
                writer.write(request.payload)
                reply = await _read(reader)
        except (OSError, EOFError, ValueError, TimeoutError, asyncio.LimitOverrunError) as error:
            if writer is not None:
                writer.transport.abort()
            return Exchange(request, sent_s, time.monotonic(), None, type(error).__name__, opened)
        ended_s = time.monotonic()
        if reply.headers.get("connection") == "close":
            writer.close()
        else:
            self._free.append((reader, writer))
        return Exchange(request, sent_s, ended_s, reply, opened=opened)

    def _take_free(self) -> Streams | None:
        while self._free:
            reader, writer = self._free.pop()
            if not (reader.at_eof() or writer.is_closing()):
                return reader, writer
            writer.close()
        return None

    async def _open(self) -> Streams:
        return await asyncio.open_connection("127.0.0.1", self._port, limit=LIMIT_BYTES)

    def close(self) -> None:
        for _, writer in self._free:
            writer.close()
        self._free.clear()


async def send_at(connections: Connections, requests: Sequence[Request], rate: float) -> list[Exchange]:
    """Sends so many requests a second, and waits for the end of each; in the order of sending."""
    start_s = time.monotonic()
    sending: list[asyncio.Task[Exchange]] = []
    for i, request in enumerate(requests):
        await asyncio.sleep(max(0.0, start_s + i / rate - time.monotonic()))
        sending.append(asyncio.create_task(connections.send(request)))
    return list(await asyncio.gather(*sending))


async def _read(reader: asyncio.StreamReader) -> Reply:
    """Raises ValueError for what is no reply of stated length."""
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    body = await reader.readexactly(int(headers["content-length"]))
    document = orjson.loads(body)
    if not isinstance(document, dict):
        raise ValueError("the body is no JSON object")
    return Reply(int(first.split()[1]), headers, document)
